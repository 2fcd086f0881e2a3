"""The text of a TOML document in the layout of a lock: each value has a line, and each item of an array.

A lock needs six kinds of values, and is read back before it is written. A library that keeps the layout of other
documents takes longer to import than all of that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Table", "dumps", "table"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL = re.compile(r'[\x00-\x1f\x7f"\\]')
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


class Table(dict[str, Any]):
    """A table with a header of its own, or, in a list, one of an array of tables. Other mappings stand in a line."""


def table(fields: Mapping[str, Any]) -> Table:
    """A table without its empty fields."""
    return Table(
        (key, value) for key, value in fields.items() if value is not None and value != [] and value is not False
    )


def dumps(document: Table, *, comment: str) -> str:
    """The text of a document, which begins with a comment. Tables come after the other values of their table."""
    return "\n".join((f"# {comment}", *_table(document, ()), ""))


def _table(fields: Table, path: tuple[str, ...]) -> Iterator[str]:
    for key, value in fields.items():
        if not _tables(value):
            yield f"{_key(key)} = {_lines(value)}"
    for key, value in fields.items():
        here = (*path, _key(key))
        name = ".".join(here)
        for item in _tables(value):
            if isinstance(value, list):
                yield from ("", f"[[{name}]]")
            elif any(not _tables(inner) for inner in item.values()):
                yield from ("", f"[{name}]")
            yield from _table(item, here)


def _tables(value: Any) -> list[Table]:
    """The tables of a value that is a table, or an array of them."""
    every = value if isinstance(value, list) else [value]
    return [item for item in every if isinstance(item, Table)]


def _lines(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return _inline(value)
    return "\n".join(("[", *(f"    {_inline(item)}," for item in value), "]"))


def _inline(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    return f"{{{', '.join(f'{_key(key)} = {_inline(item)}' for key, item in value.items())}}}"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(value: str) -> str:
    escaped = _CONTROL.sub(lambda found: _SHORT.get(found[0], f"\\u{ord(found[0]):04x}"), value)
    return f'"{escaped}"'
