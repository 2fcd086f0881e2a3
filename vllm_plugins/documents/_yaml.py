"""Parse YAML into nodes with line numbers, in bounded time, and read checked values from them.

YAML's own constructors and alias expansion are not used, so a hostile file costs little.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from vllm_plugins.documents import _utf8, merge_conflicts
from vllm_plugins.documents._manifest import rules
from vllm_plugins.documents._manifest.rules import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from yaml.nodes import Node

__all__ = ["MAX_BYTES", "Fields", "Malformed", "Problems", "describe", "did_you_mean", "kind", "line", "load"]

MAX_BYTES = 1024 * 1024
_MAX_NODES = 10_000
_MAX_DEPTH = 32  # plugins.yaml has five levels

_TAG = "tag:yaml.org,2002:"
# A part of PyYAML's message, and a hint; the first match counts.
_HINTS = (
    ("'\\t'", "YAML does not allow tabs in the indentation: use spaces"),
    ("single document", "only one document is allowed: remove what follows the line `---`"),
    (
        "while scanning a block scalar",
        'a value that begins with ">" or "|" must be in quotes, as in version: ">=0.1"',
    ),
    ("<document start>", "this line is indented less than the first key, which is in line {first}"),
    ("expected <block end>", "keys of one mapping, and items of one list, begin in the same column"),
    (
        "mapping values are not allowed",
        'a value with ": " in it must be in quotes, and keys of one mapping begin in the same column',
    ),
    ("cannot start any token", "put the value in quotes"),
    ("while scanning an alias", 'a value that begins with "*" must be in quotes'),
    ("while scanning an anchor", 'a value that begins with "&" must be in quotes'),
)
_CONFLICT = (
    "a merge has left a conflict here: edit the lines from <<<<<<< to >>>>>>>, and remove those of =======, too"
)


class Malformed(Exception):
    """The text is not a YAML document that we accept. ``line`` and ``column`` count from 1."""

    def __init__(self, message: str, *, line: int = 1, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class _Loader(yaml.SafeLoader):
    """PyYAML's parser in Python: the one in C overflows its stack before a limit could stop it."""

    depth = 0
    count = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self.depth += 1
        self.count += 1
        if self.depth > _MAX_DEPTH or self.count > _MAX_NODES:
            limit = f"{_MAX_DEPTH} levels" if self.depth > _MAX_DEPTH else f"{_MAX_NODES} values"
            raise Malformed(f"more than {limit}: a manifest needs far fewer", line=self.line + 1)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def load(data: bytes) -> Node | None:
    """The root node of the only document in ``data``; ``None`` if the file has only comments.

    Raises:
        Malformed: it is too large, not UTF-8, not YAML, more than one document, nested too deeply, or its
            aliases stand for too many values.
    """
    if len(data) > MAX_BYTES:
        raise Malformed(f"the file has more than {MAX_BYTES} bytes: a manifest needs far fewer")
    try:
        text = _utf8.decode(data)
    except _utf8.NotUtf8Error as error:
        raise Malformed(error.what, line=error.line, column=error.column) from error
    node = _compose(text)
    if node is not None:
        _expanded(node, {})
    return node


def _compose(text: str) -> Node | None:
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        raise Malformed(
            f"the character U+{ord(text[error.position]):04X} is not allowed in YAML",
            line=before.count("\n") + 1,
            column=len(before) - before.rfind("\n"),
        ) from error
    except yaml.MarkedYAMLError as error:
        if (number := merge_conflicts.first_marker(text)) is not None:
            raise Malformed(_CONFLICT, line=number) from error
        problem = error.problem or error.context or "not valid YAML"
        context = f"{error.context or ''} {problem}"
        hint = next((f"; {hint}" for words, hint in _HINTS if words in context), "").format(first=_first_line(text))
        mark = error.problem_mark or error.context_mark
        if mark is None:
            raise Malformed(problem + hint) from error
        raise Malformed(problem + hint, line=mark.line + 1, column=mark.column + 1) from error
    except (ValueError, OverflowError) as error:  # "\UFFFFFFFF" is not a character
        raise Malformed("an escape is not a valid character", line=loader.line + 1 if loader else 1) from error
    finally:
        if loader is not None:
            loader.dispose()


def _first_line(text: str) -> int:
    """The line of the first key: comments, directives and the line ``---`` are none."""
    lines = enumerate(map(str.strip, text.split("\n")), 1)
    return next((number for number, line in lines if line and not line.startswith(("#", "%", "---"))), 1)


def _expanded(node: Node, sizes: dict[int, int | None]) -> int:
    """The number of values of a node after alias expansion. Each node is visited once."""
    if isinstance(node, ScalarNode):
        return 1
    known = sizes.get(id(node), 0)
    if known is None:
        raise Malformed("an alias refers to a value that contains it", line=line(node))
    if known:
        return known
    sizes[id(node)] = None
    total = 1
    for child in node.value:
        total += sum(_expanded(part, sizes) for part in (child if isinstance(child, tuple) else (child,)))
        if total > _MAX_NODES:
            raise Malformed(
                f"its aliases expand to more than {_MAX_NODES} values: a manifest needs far fewer", line=line(node)
            )
    sizes[id(node)] = total
    return total


def line(node: Node) -> int:
    """The line on which a node begins, from 1."""
    return int(node.start_mark.line) + 1


def kind(node: Node) -> str:
    """The short tag of a node: ``str``, ``int``, ``map``, …; an unknown tag as it is written."""
    return str(node.tag).removeprefix(_TAG)


def describe(node: Node) -> str:
    """A node in words, for "expected a string, found …"."""
    name = kind(node)
    if isinstance(node, SequenceNode):
        return "a list" if name == "seq" else f"a list tagged {quoted(name)}"
    if isinstance(node, MappingNode):
        return "a mapping" if name == "map" else f"a mapping tagged {quoted(name)}"
    if name == "null":
        return "nothing"
    nouns = {"str": "the text", "int": "the number", "float": "the number", "timestamp": "the date"}
    if name in nouns:
        return f"{nouns[name]} {quoted(node.value) if name == 'str' else node.value[:80]}"
    if name == "bool":
        return f"the truth value {node.value[:80]}"
    return f"a value tagged {quoted(name)}"


class Problems:
    """The problems so far, each with its line."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []

    def add(self, node: Node, where: str, message: str) -> None:
        self.found.append((line(node), f"line {line(node)}: {where}: {message}"))


def did_you_mean(word: str, known: list[str]) -> str:
    """The nearest known word, as the end of a message."""
    import difflib

    near = difflib.get_close_matches(word.lower()[:100], known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


class Fields:
    """The keys of one mapping. ``where`` is its path, "" for the top."""

    def __init__(self, node: MappingNode, where: str, problems: Problems) -> None:
        self.node = node
        self.where = where
        self.problems = problems
        self.fields: dict[str, tuple[Node, Node]] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                problems.add(key, where or "the top", f"expected a word as the key, found {describe(key)}")
            elif key.value in self.fields:
                first = line(self.fields[key.value][0])
                problems.add(key, self.path(key.value), f"appears twice, first in line {first}; remove one")
            else:
                self.fields[key.value] = (key, value)

    def path(self, key: str) -> str:
        shown = key if re.fullmatch(r"[\w.-]{1,40}", key) else quoted(key)
        return f"{self.where}.{shown}" if self.where else shown

    def problem(self, key: str, message: str) -> None:
        """Report a problem of a key's value, or of the mapping if the key is missing."""
        self.problems.add(self.fields[key][1] if key in self.fields else self.node, self.path(key), message)

    def unknown(self, allowed: Sequence[str], elsewhere: Mapping[str, str] | None = None) -> None:
        """Report every unknown key; ``elsewhere`` has messages for keys that are allowed elsewhere."""
        for key, (node, _) in self.fields.items():
            if key in allowed:
                continue
            if key == "<<":
                message = "merge keys are not supported; write the keys out"
            elif elsewhere and key in elsewhere:
                message = elsewhere[key]
            else:
                near = did_you_mean(key, list(allowed))
                message = f"unknown key{near or '; expected one of ' + ', '.join(allowed)}"
            self.problems.add(node, self.path(key), message)

    def node_of(self, key: str, *, required: str | None = None) -> Node | None:
        """The value of a key. ``required`` describes the value in the message about a missing key."""
        if key in self.fields:
            return self.fields[key][1]
        if required is not None:
            self.problem(key, f"missing; expected {required}")
        return None

    def text(
        self, key: str, check: Callable[[str], str | None] | None = None, *, required: str | None = None
    ) -> str | None:
        """A string; ``check`` returns its problem."""
        node = self.node_of(key, required=required)
        return None if node is None else self._text(node, self.path(key), check)

    def _text(self, node: Node, where: str, check: Callable[[str], str | None] | None) -> str | None:
        if not isinstance(node, ScalarNode) or kind(node) != "str":
            self.problems.add(node, where, f"expected a string, found {describe(node)}{_hint(node, check)}")
            return None
        value = str(node.value)
        wrong = rules.text(value) or (check(value) if check else None)
        if wrong is not None:
            self.problems.add(node, where, wrong)
            return None
        return value

    def texts(self, key: str, check: Callable[[str], str | None] | None = None) -> tuple[str, ...]:
        """A list of strings; empty if the key is missing."""
        node = self.node_of(key)
        if node is None:
            return ()
        if not isinstance(node, SequenceNode):
            is_item = isinstance(node, ScalarNode) and not (check and check(node.value))
            hint = f"; write [{node.value}]" if is_item else ""
            self.problem(key, f"expected a list of strings, found {describe(node)}{hint}")
            return ()
        found = (self._text(item, f"{self.path(key)}[{number}]", check) for number, item in enumerate(node.value))
        return tuple(item for item in found if item is not None)

    def number(self, key: str, *, default: int) -> int:
        """A whole number, from 0 to 99999."""
        node = self.node_of(key)
        if node is None:
            return default
        if not isinstance(node, ScalarNode) or kind(node) != "int" or not re.fullmatch(r"[0-9]{1,5}", node.value):
            self.problem(key, f"expected a whole number from 0 to 99999, found {describe(node)}")
            return default
        return int(node.value)

    def flag(self, key: str, *, default: bool) -> bool:
        """Read ``true`` or ``false``."""
        node = self.node_of(key)
        if node is None:
            return default
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        value = words.get(str(node.value).lower()) if isinstance(node, ScalarNode) else None
        if value is None or kind(node) != "bool":
            hint = "; write it without quotes" if value is not None and kind(node) == "str" else ""
            self.problem(key, f"expected true or false, found {describe(node)}{hint}")
            return default
        return value


def _hint(node: Node, check: Callable[[str], str | None] | None) -> str:
    """What to write in place of a value that YAML does not read as a string."""
    if not isinstance(node, ScalarNode):
        return ""
    if kind(node) == "null":
        return "; write a value or remove the key"
    if kind(node) in ("int", "float", "bool", "timestamp"):
        # version: 1.10 would not be valid in quotes either.
        wrong = rules.text(node.value) or (check(node.value) if check else None)
        return f"; {wrong}" if wrong else f'; write it in quotes: "{node.value}"'
    # version: !=1.0 is a tag to YAML.
    return '; write it in quotes, as in "!=1.0"' if kind(node).startswith("!=") else ""
