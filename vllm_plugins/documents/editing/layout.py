"""Add, change and remove plugins in the text of plugins.yaml. Everything else stays as it is, byte for byte.

A library that parses and writes the whole file would move comments from one plugin to another, and indent it again.
Here the YAML parser only tells the places, and the text is changed there.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from vllm_plugins.documents import _utf8, _yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from yaml.nodes import Node

__all__ = ["UnknownLayout", "Value", "append", "change", "remove"]

Value = str | bool | tuple[str, ...]
_Edit = tuple[int, int, str]  # from, to (positions in the text), new text

_PLAIN = re.compile(r"[A-Za-z0-9_./~$][A-Za-z0-9_./~$:@+-]*")
_BLANK = re.compile(r"[ \t]*\r?\n")
_COMMENT = re.compile(r"([ \t]*)#[^\n]*(?:\n|\Z)")


class UnknownLayout(Exception):
    """The text is valid, and written in a way that this module can't change."""


def append(data: bytes, fields: Mapping[str, Value]) -> bytes:
    """Add a plugin with these keys after the last one."""
    text = _Text(data)
    plugins = text.plugins
    if plugins is None:
        return text.edited([(len(text.text), len(text.text), f"{text.gap()}plugins:\n{_block(fields, 2, 2)}")])
    if not plugins.value:
        return text.edited(_first(text, plugins, fields))
    last = plugins.value[-1]
    if plugins.flow_style:
        separator = ", "
        begin = text.line_start(last.start_mark.index)
        if not text.text[begin : last.start_mark.index].strip():
            separator = ",\n" + text.text[begin : last.start_mark.index]
        at = _end(last)
        return text.edited([(at, at, f"{separator}{_flow(fields, is_json=True)}")])
    dash = text.dash(last)
    column, gap = text.column(dash), last.start_mark.index - dash
    at = text.end_of_item(last, column)
    lines = f"{' ' * column}-{' ' * (gap - 1)}{_flow(fields)}\n" if last.flow_style else _block(fields, column, gap)
    if len(plugins.value) > 1 and text.is_apart(plugins.value[-2], last):
        lines = f"\n{lines}"
    return text.edited([(at, at, text.newline_before(at) + lines)])


def change(data: bytes, number: int, fields: Mapping[str, Value | None]) -> bytes:
    """Set keys of the plugin with that number, from 0. ``None`` removes a key."""
    text = _Text(data)
    item = text.item(number)
    edits: list[_Edit] = []
    for key, value in fields.items():
        position = next((at for at, (name, _) in enumerate(item.value) if name.value == key), None)
        if position is not None:
            _, node = item.value[position]
            edit = (node.start_mark.index, _end(node), _rendered(value, is_json=_is_json(item)))
            edits.append(text.without_key(item, position) if value is None else (*edit[:2], edit[2]))
        elif value is not None:
            edits.append(_new_key(text, item, key, value))
    return text.edited(edits)


def remove(data: bytes, number: int) -> bytes:
    """Remove the plugin with that number, from 0. Comments in it go with it; those before it stay."""
    text = _Text(data)
    plugins = text.plugins
    item = text.item(number)
    assert plugins is not None
    if plugins.flow_style:
        return text.edited([_without(plugins.value, number)])
    dash = text.dash(item)
    begin, end = text.line_start(dash), text.end_of_item(item, text.column(dash))
    after = _BLANK.match(text.text, end)
    if text.is_blank_before(begin) and (after or end == len(text.text)):
        if after:
            end = after.end()
        else:
            begin = text.line_start(begin - 1)
    edits: list[_Edit] = [(begin, end, "")]
    if len(plugins.value) == 1:
        colon = text.text.index(":", text.key_end)
        edits.append((colon + 1, colon + 1, " []"))
    return text.edited(edits)


class _Text:
    """The text of a manifest, and its nodes with their positions in it."""

    def __init__(self, data: bytes) -> None:
        self.text = _utf8.decode(data)
        self._has_mark = data.startswith(b"\xef\xbb\xbf")
        self._newline = "\r\n" if "\r\n" in self.text else "\n"
        root = _yaml.load(data)
        self.plugins: SequenceNode | None = None
        self.key_end = 0
        self.is_flow = isinstance(root, MappingNode) and bool(root.flow_style)
        for key, value in root.value if isinstance(root, MappingNode) else ():
            if key.value == "plugins" and isinstance(value, SequenceNode):
                self.plugins, self.key_end = value, key.end_mark.index
        if self.plugins is None and root is not None and _yaml.kind(root) != "null":
            raise UnknownLayout

    def item(self, number: int) -> MappingNode:
        """A plugin's node."""
        found = self.plugins.value[number] if self.plugins is not None else None
        if not isinstance(found, MappingNode):
            raise UnknownLayout
        return found

    def edited(self, edits: Iterable[_Edit]) -> bytes:
        """The whole file with other text in some places."""
        text = self.text
        for begin, end, new in sorted(edits, reverse=True):
            text = text[:begin] + new.replace("\n", self._newline) + text[end:]
        return (b"\xef\xbb\xbf" if self._has_mark else b"") + text.encode()

    def line_start(self, index: int) -> int:
        return self.text.rfind("\n", 0, index) + 1

    def line_end(self, index: int) -> int:
        """The position after the end of the line that a position is in; of its last line, the end of the text."""
        if index and self.text[index - 1] == "\n":  # a block scalar ends with its line
            return index
        end = self.text.find("\n", index)
        return len(self.text) if end < 0 else end + 1

    def column(self, index: int) -> int:
        return index - self.line_start(index)

    def dash(self, item: Node) -> int:
        """The position of the dash of an item, which begins a line."""
        index = item.start_mark.index - 1
        while index >= 0 and self.text[index] == " ":
            index -= 1
        if index < 0 or self.text[index] != "-" or self.text[self.line_start(index) : index].strip(" "):
            raise UnknownLayout
        return index

    def end_of_item(self, item: Node, column: int) -> int:
        """Where an item ends, with the comments after it that are indented more than its dash."""
        at = self.line_end(_end(item))
        while (comment := _COMMENT.match(self.text, at)) and len(comment[1]) > column:
            at = comment.end()
        return at

    def is_apart(self, before: Node, item: Node) -> bool:
        """Whether a blank line separates an item from the one before it."""
        return re.search(r"\n[ \t]*\r?\n", self.text[_end(before) : self.dash(item)]) is not None

    def is_blank_before(self, begin: int) -> bool:
        return begin > 0 and _BLANK.fullmatch(self.text, self.line_start(begin - 1), begin) is not None

    def newline_before(self, at: int) -> str:
        return "" if at == 0 or self.text[at - 1] == "\n" else "\n"

    def gap(self) -> str:
        """What separates a new top from the comments before it."""
        return self.newline_before(len(self.text)) + ("\n" if self.text.strip() else "")

    def without_key(self, item: MappingNode, number: int) -> _Edit:
        """The edit that removes a key of a plugin."""
        key, value = item.value[number]
        if item.flow_style:
            return _without(item.value, number)
        begin = self.line_start(key.start_mark.index)
        if self.text[begin : key.start_mark.index].strip():  # it is next to the dash
            following = item.value[number + 1 : number + 2]
            if not following:
                raise UnknownLayout
            return (key.start_mark.index, following[0][0].start_mark.index, "")
        return (begin, self.line_end(_end(value)), "")


def _first(text: _Text, plugins: SequenceNode, fields: Mapping[str, Value]) -> list[_Edit]:
    """The first plugin, in place of ``[]``."""
    begin, end = plugins.start_mark.index, plugins.end_mark.index
    if text.is_flow:
        return [(begin, end, f"[{_flow(fields, is_json=True)}]")]
    at = text.line_end(end)
    while text.text[begin - 1 : begin] == " ":
        begin -= 1
    return [(begin, end, ""), (at, at, text.newline_before(at) + _block(fields, 2, 2))]


def _without(nodes: list[Node] | list[tuple[Node, Node]], number: int) -> _Edit:
    """The edit that removes an item of a flow collection, with one comma."""
    pairs = [node if isinstance(node, tuple) else (node, node) for node in nodes]
    begin, end = pairs[number][0].start_mark.index, _end(pairs[number][1])
    if number + 1 < len(pairs):
        return (begin, pairs[number + 1][0].start_mark.index, "")
    return (_end(pairs[number - 1][1]) if number else begin, end, "")


def _new_key(text: _Text, item: MappingNode, key: str, value: Value) -> _Edit:
    last = item.value[-1][1]
    is_json = _is_json(item)
    line = f"{json.dumps(key) if is_json else key}: {_rendered(value, is_json=is_json)}"
    if item.flow_style:
        return (_end(last), _end(last), f", {line}")
    at = text.line_end(_end(last))
    return (at, at, f"{text.newline_before(at)}{' ' * item.value[0][0].start_mark.column}{line}\n")


def _end(node: Node) -> int:
    """Where a node's own text ends: a block collection's end mark is after the comments that follow it."""
    if not isinstance(node, (MappingNode, SequenceNode)) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _is_json(item: MappingNode) -> bool:
    """Whether the keys of a plugin are in quotes."""
    return bool(item.flow_style) and item.value[0][0].style == '"'


def _block(fields: Mapping[str, Value], column: int, gap: int) -> str:
    lines = [f"{key}: {_rendered(value)}\n" for key, value in fields.items()]
    return f"{' ' * column}-{' ' * (gap - 1)}" + (" " * (column + gap)).join(lines)


def _flow(fields: Mapping[str, Value], *, is_json: bool = False) -> str:
    pairs = (
        f"{json.dumps(key) if is_json else key}: {_rendered(value, is_json=is_json)}" for key, value in fields.items()
    )
    return f"{{{', '.join(pairs)}}}"


def _rendered(value: Value | None, *, is_json: bool = False) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(_scalar(item, is_json=is_json) for item in value)}]"
    return _scalar(value or "", is_json=is_json)


def _scalar(text: str, *, is_json: bool) -> str:
    """A string as YAML: plain where that means the same, otherwise in quotes."""
    if not is_json and _PLAIN.fullmatch(text) and not text.endswith(":"):
        node = _yaml.load(text.encode())
        if isinstance(node, ScalarNode) and _yaml.kind(node) == "str" and node.value == text:
            return text
    return json.dumps(text, ensure_ascii=False)
