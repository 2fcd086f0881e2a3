"""Every next step that a message of the product suggests, read from its source."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import vllm_plugins

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NextStep", "every"]

_PACKAGE = Path(vllm_plugins.__file__).parent


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class NextStep:
    """A next step: its text, with ``{…}`` for what a message fills in, and the modules whose errors have it."""

    text: str
    modules: tuple[str, ...]


def every() -> tuple[NextStep, ...]:
    """All next steps, sorted by text. One that only passes on another's, as ``next_step=error.next_step``, is left out."""
    found: dict[str, set[str]] = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(_PACKAGE).with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            for value in _values(node):
                for text in _texts(value, constants):
                    found.setdefault(text, set()).add(module)
    return tuple(NextStep(text=text, modules=tuple(sorted(modules))) for text, modules in sorted(found.items()))


def _values(node: ast.AST) -> Iterator[ast.expr]:
    """What is given as a next step: a keyword, or the new value of an error's attribute."""
    if (isinstance(node, ast.keyword) and node.arg == "next_step") or (
        isinstance(node, ast.Assign) and any(getattr(target, "attr", None) == "next_step" for target in node.targets)
    ):
        yield node.value


def _texts(node: ast.expr, constants: dict[str, ast.expr]) -> Iterator[str]:
    """The texts that an expression may have: one for each branch of a condition, and each entry of a table."""
    if isinstance(node, ast.IfExp):
        yield from _texts(node.body, constants)
        yield from _texts(node.orelse, constants)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _texts(value, constants)
    elif isinstance(node, ast.BinOp):
        for left in [*_texts(node.left, constants)] or ["{…}"]:
            yield from (f"{left}{right}" for right in [*_texts(node.right, constants)] or ["{…}"])
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "{…}" for part in node.values)  # type: ignore[misc]
    elif isinstance(node, ast.Name) and node.id in constants:
        yield from _texts(constants[node.id], constants)
    else:
        yield from _entries(node, constants)


def _entries(node: ast.expr, constants: dict[str, ast.expr]) -> Iterator[str]:
    """The texts of a table of the module, whose entry an expression takes, and perhaps fills in with ``format``.

    Raises:
        TypeError: the table is none of the module, so its texts can't be read.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        for text in _texts(node.func.value, constants):
            yield re.sub(r"\{\w*\}", "{…}", text)
    elif isinstance(node, ast.Subscript):
        table = constants.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if not isinstance(table, ast.Dict):
            raise TypeError(f"{ast.unparse(node)}: a next step is a text, or an entry of a table of its module")
        for value in table.values:
            yield from _texts(value, constants)
