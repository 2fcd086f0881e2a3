"""A YAML document as tables whose every value knows its line and path; problems are gathered, not raised."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Document", "Problem", "Table", "load"]

MAX_NODES = 20_000
MAX_DEPTH = 20
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TYPES = {
    "str": "a string",
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "null": "nothing",
    "seq": "a list",
    "map": "a mapping",
    "timestamp": "a date",
}


@dataclass(frozen=True, order=True, slots=True)
class Problem:
    """One thing that is wrong, in a line (from 1) and at a path such as ``plugins[2].ref``."""

    line: int
    path: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {f'{self.path}: ' if self.path else ''}{self.text}"


@dataclass(slots=True)
class Document:
    """A loaded document, and the problems met so far."""

    root: yaml.Node | None = None
    problems: list[Problem] = field(default_factory=list)

    def problem(self, line: int, path: str, text: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(line, path, text))

    def table(self) -> Table | None:
        """The top of the document, which must be a mapping."""
        if self.root is None:
            if not self.problems:
                self.problem(1, "", "expected a mapping with the key 'plugins', found nothing")
            return None
        return _table(self, self.root, "")


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping. Getters note a problem and return ``None`` (or the default) where a value is not as it must be."""

    document: Document
    path: str
    line: int
    nodes: Mapping[str, yaml.Node]

    def only(
        self,
        keys: Sequence[str],
        *,
        needed: Sequence[str] = (),
        elsewhere: Mapping[str, str] | None = None,
        what: str = "here",
    ) -> None:
        """Note every key that has no meaning here, and every one that is missing.

        ``elsewhere`` says for what else a key has a meaning.
        """
        for key, node in self.nodes.items():
            if key in keys:
                continue
            near = difflib.get_close_matches(key, keys, n=1)
            if elsewhere and key in elsewhere:
                hint = f"; it belongs to a {elsewhere[key]} plugin"
            else:
                hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(keys)}"
            self.document.problem(_line(node), self._at(key), f"unknown key{hint}")
        for key in needed:
            if key not in self.nodes:
                self.document.problem(self.line, self._at(key), f"missing: {what} needs it")

    def string(
        self,
        key: str,
        *,
        choices: Sequence[str] = (),
        pattern: re.Pattern[str] | None = None,
        meaning: str = "",
        refused: Callable[[str], str | None] | None = None,
    ) -> str | None:
        """A string: one of ``choices``, or one that ``pattern`` matches, or that ``refused`` says nothing against."""
        node = self.nodes.get(key)
        if node is None:
            return None
        return _string(
            self.document, node, self._at(key), choices=choices, pattern=pattern, meaning=meaning, refused=refused
        )

    def strings(self, key: str, *, pattern: re.Pattern[str], meaning: str) -> tuple[str, ...]:
        """A list of strings."""
        node = self.nodes.get(key)
        if node is None:
            return ()
        if not isinstance(node, yaml.SequenceNode):
            self.document.problem(_line(node), self._at(key), f"expected a list of strings, found {_tell(node)}")
            return ()
        found = [
            _string(self.document, item, f"{self._at(key)}[{i}]", pattern=pattern, meaning=meaning)
            for i, item in enumerate(node.value)
        ]
        return tuple(item for item in found if item is not None)

    def boolean(self, key: str, *, default: bool) -> bool:
        """``true`` or ``false``."""
        node = self.nodes.get(key)
        if node is None:
            return default
        if _kind(node) != "bool":
            self.document.problem(_line(node), self._at(key), f"expected true or false, found {_tell(node)}")
            return default
        return str(node.value).lower() in ("true", "yes", "on")

    def tables(self, key: str) -> list[Table]:
        """A list of mappings."""
        node = self.nodes.get(key)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.document.problem(_line(node), self._at(key), f"expected a list, found {_tell(node)}")
            return []
        found = (_table(self.document, item, f"{self._at(key)}[{i}]") for i, item in enumerate(node.value))
        return [table for table in found if table is not None]

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def load(data: bytes) -> Document:
    """Read one YAML document. What is not YAML, not UTF-8, or of no sane size is a problem of the document."""
    document = Document()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        document.problem(line, "", f"not UTF-8: byte 0x{data[error.start]:02x}")
        return document
    try:
        # libyaml composes recursively, in C: the depth is counted before, on its events.
        if _depth(text) > MAX_DEPTH:
            document.problem(1, "", f"nested more than {MAX_DEPTH} deep")
            return document
        root = yaml.compose(text, Loader=_LOADER)
        if root is not None and _size(root) > MAX_NODES:
            document.problem(1, "", f"more than {MAX_NODES} values, aliases counted as often as they stand")
            return document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        document.problem(line, "", f"not YAML: {error.problem or error.context} (column {column})")
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        document.problem(line, "", f"not YAML: the character {error.character!r} is not allowed")
    except yaml.YAMLError as error:
        document.problem(1, "", f"not YAML: {error}")
    else:
        document.root = root
    return document


def _depth(text: str) -> int:
    depth = deepest = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return deepest


def _size(root: yaml.Node) -> int:
    """How many values a document holds, an alias counted each time: a bomb is large before it is expanded."""
    count = 0
    waiting: list[yaml.Node] = [root]
    while waiting and count <= MAX_NODES:
        node = waiting.pop()
        count += 1
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            waiting.extend(value for pair in node.value for value in pair)
    return count


def _table(document: Document, node: yaml.Node, path: str) -> Table | None:
    if not isinstance(node, yaml.MappingNode):
        document.problem(_line(node), path, f"expected a mapping, found {_tell(node)}")
        return None
    nodes: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else _tell(key)
        where = f"{path}.{name}" if path else name
        if name in nodes:
            document.problem(_line(key), where, f"stands in line {_line(nodes[name])} already")
        nodes[name] = value
    return Table(document, path, _line(node), nodes)


def _string(
    document: Document,
    node: yaml.Node,
    path: str,
    *,
    choices: Sequence[str] = (),
    pattern: re.Pattern[str] | None = None,
    meaning: str = "",
    refused: Callable[[str], str | None] | None = None,
) -> str | None:
    if _kind(node) != "str":
        quoted = (
            f'; write it in quotes: "{node.value}"' if _kind(node) in ("int", "float", "bool", "timestamp") else ""
        )
        document.problem(_line(node), path, f"expected a string, found {_tell(node)}{quoted}")
        return None
    text = str(node.value)
    if choices and text not in choices:
        near = difflib.get_close_matches(text, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        document.problem(_line(node), path, f"expected {', '.join(choices)}, found {text!r}{hint}")
        return None
    if pattern is not None and not pattern.fullmatch(text):
        document.problem(_line(node), path, f"expected {meaning}, found {text!r}")
        return None
    problem = refused(text) if refused is not None else None
    if problem is not None:
        document.problem(_line(node), path, problem)
        return None
    return text


def _kind(node: yaml.Node) -> str:
    return str(node.tag).rpartition(":")[2]


def _tell(node: yaml.Node) -> str:
    told = _TYPES.get(_kind(node), f"a value of type {node.tag}")
    return f"{told} ({node.value})" if isinstance(node, yaml.ScalarNode) and node.value else told


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
