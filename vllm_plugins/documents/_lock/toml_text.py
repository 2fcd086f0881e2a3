"""The text of a TOML document in the layout of a lock: each value has a line, and each item of an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomlkit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tomlkit.container import Container
    from tomlkit.items import AbstractTable, Item

__all__ = ["Table", "dumps", "table"]


class Table(dict[str, Any]):
    """A table with a header of its own, or, in a list, one of an array of tables. Other mappings stand in a line."""


def table(fields: Mapping[str, Any]) -> Table:
    """A table without its empty fields."""
    return Table(
        (key, value) for key, value in fields.items() if value is not None and value != [] and value is not False
    )


def dumps(document: Table, *, comment: str) -> str:
    """The text of a document, which begins with a comment. Tables come after the other values of their table."""
    text = tomlkit.document()
    text.add(tomlkit.comment(comment))
    _fill(text, document)
    return tomlkit.dumps(text)


def _fill(container: Container | AbstractTable, fields: Table) -> None:
    for key, value in sorted(fields.items(), key=lambda field: _has_header(field[1])):
        container.append(tomlkit.key(key), _item(value))


def _has_header(value: Any) -> bool:
    """Whether a value is a table with a header, or an array of them."""
    return isinstance(value, Table) or (isinstance(value, list) and any(isinstance(item, Table) for item in value))


def _item(value: Any) -> Item:
    if isinstance(value, Table):
        parent = tomlkit.table(is_super_table=all(map(_has_header, value.values())))
        _fill(parent, value)
        return parent
    if not isinstance(value, list) or not value:
        return _inline(value)
    if _has_header(value):
        tables = tomlkit.aot()
        for item in value:
            tables.append(_item(item))
        return tables
    lines = tomlkit.array()
    lines.multiline(multiline=True)
    for item in value:
        lines.append(_inline(item))
    return lines


def _inline(value: Any) -> Item:
    if isinstance(value, list):
        array = tomlkit.array()
        for inner in value:
            array.append(_inline(inner))
        return array
    if isinstance(value, dict):
        fields = tomlkit.inline_table()
        for key, inner in value.items():
            fields.append(tomlkit.key(key), _inline(inner))
        return fields
    item: Item = tomlkit.item(value)
    return item
