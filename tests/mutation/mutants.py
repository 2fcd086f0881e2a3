"""The mutants of a module: the operators of mutmut, and some that take a whole check away.

mutmut changes operators, constants, assignments and arguments. It does not remove a ``raise``, a call, a condition or
an element of a table, which is how a check gets lost. What a ``raise`` says is left alone: no decision depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import libcst as cst
from mutmut.mutation.mutators import mutation_operators

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["Mutant", "mutants"]

_TRUE, _FALSE = cst.Name("True"), cst.Name("False")
_NOT_MUTATED = ("len", "isinstance", "cast", "getLogger")  # as in mutmut: nearly each such mutant is an error


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A module with one change."""

    unit: str  # the function, class or variable at the top of the module
    line: int
    change: str
    source: str
    is_text: bool  # the change is in a text for people
    statement: str | None  # of a variable at the top of the module: what sets it


def mutants(path: Path, wanted: Callable[[int, str, str], bool] = lambda *_: True) -> Iterator[Mutant]:
    """Each mutant of a file, in the order of its lines: those that are wanted, by number, name and change."""
    source = path.read_text(encoding="utf-8")
    wrapper = cst.MetadataWrapper(cst.parse_module(source))
    lines = wrapper.resolve(cst.metadata.PositionProvider)
    module = wrapper.module
    seen, number = {source}, -1
    for statement in module.body:
        name = _name(statement)
        if name is None:
            continue
        whole = module.code_for_node(statement)
        is_variable = isinstance(statement, cst.SimpleStatementLine)
        members = dict(_members(statement))
        for number, (node, change) in enumerate(_changes(statement), number + 1):  # noqa: B020 - goes on counting
            words = _change(module.code_for_node(node), module.code_for_node(change))
            if not wanted(number, name, words):
                continue
            text = module.code_for_node(_replaced(statement, members.get(node), node, change))
            mutated = source.replace(whole, text, 1)
            if mutated in seen:
                continue
            seen.add(mutated)
            yield Mutant(
                unit=name,
                line=lines[node].start.line,
                change=words,
                source=mutated,
                is_text=_is_text(node),
                statement=text if is_variable else None,
            )


def _members(statement: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    """Each node in the body of a class, with the member that it is in."""
    if isinstance(statement, cst.ClassDef):
        for member in statement.body.body:
            inside: list[cst.CSTNode] = [member]
            while inside:
                node = inside.pop()
                yield node, member
                inside += node.children


def _replaced(
    statement: cst.CSTNode, member: cst.CSTNode | None, node: cst.CSTNode, change: cst.CSTNode
) -> cst.CSTNode:
    """A statement with another node. To look for it in one member of a class takes a tenth of the time."""
    if member is None or not isinstance(statement, cst.ClassDef):
        changed = statement.deep_replace(node, change)
        assert isinstance(changed, cst.CSTNode)
        return changed
    body = [item.deep_replace(node, change) if item is member else item for item in statement.body.body]
    return statement.with_changes(body=statement.body.with_changes(body=body))


def _name(statement: cst.CSTNode) -> str | None:
    """The name of a statement at the top of a module, or none where nothing is mutated."""
    if isinstance(statement, (cst.FunctionDef, cst.ClassDef)):
        return str(statement.name.value)
    if isinstance(statement, cst.SimpleStatementLine) and isinstance(
        assign := statement.body[0], (cst.Assign, cst.AnnAssign)
    ):
        target = assign.targets[0].target if isinstance(assign, cst.Assign) else assign.target
        if isinstance(target, cst.Name) and target.value != "__all__" and assign.value is not None:
            return str(target.value)
    return None


def _changes(node: cst.CSTNode, *, in_function: bool = False) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    """Pairs of a node and what takes its place."""
    if isinstance(node, (cst.Annotation, cst.Decorator)) or _is_docstring(node):
        return
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in _NOT_MUTATED:
        return
    in_function = in_function or isinstance(node, cst.FunctionDef)
    if in_function or not isinstance(node, (cst.Assign, cst.AnnAssign)):
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                yield from ((node, change) for change in operator(node))
    yield from ((node, change) for change in _removed(node))
    if isinstance(node, cst.Raise):
        return
    for child in node.children:
        yield from _changes(child, in_function=in_function)


def _removed(node: cst.CSTNode) -> Iterable[cst.CSTNode]:
    """The node without what it checks, decides or returns."""
    if isinstance(node, cst.If):
        yield node.with_changes(test=_parenthesized(_TRUE))
        yield node.with_changes(test=_parenthesized(_FALSE))
    elif isinstance(node, cst.CompIf):
        yield node.with_changes(test=_parenthesized(_TRUE))
    elif isinstance(node, cst.BooleanOperation):
        yield from (node.left, node.right)
    elif isinstance(node, cst.Raise) or (isinstance(node, cst.Expr) and isinstance(node.value, cst.Call)):
        yield cst.Pass()
    elif isinstance(node, cst.Return) and node.value is not None and not _is(node.value, "None"):
        yield node.with_changes(value=cst.Name("None"), whitespace_after_return=cst.SimpleWhitespace(" "))
    elif isinstance(node, (cst.Tuple, cst.List, cst.Set, cst.Dict)):
        yield from _shorter(node)


def _shorter(node: Any) -> Iterator[cst.CSTNode]:
    """A table of at least three constants, without one of them."""
    elements = node.elements
    if len(elements) >= 3 and all(isinstance(element.value, cst.BaseExpression) for element in elements):
        for i in range(len(elements)):
            yield node.with_changes(elements=[*elements[:i], *elements[i + 1 :]])


def _parenthesized(name: cst.Name) -> cst.Name:
    return name.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])  # `if(x)` has no space


def _is(node: cst.BaseExpression, name: str) -> bool:
    return isinstance(node, cst.Name) and node.value == name


def _is_docstring(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Expr) and isinstance(node.value, (cst.SimpleString, cst.ConcatenatedString))


def _is_text(node: cst.CSTNode) -> bool:
    """Several words, or a part of a formatted text."""
    return isinstance(node, cst.SimpleString) and " " in node.value.strip("'\" ")


def _change(before: str, after: str) -> str:
    """What differs, with a little of what stands around it, in one line."""
    before, after = " ".join(before.split()), " ".join(after.split())
    start, end = 0, 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    start, end = max(0, start - 30), max(0, end - 20)
    return f"{before[start : len(before) - end][:120]}  ->  {after[start : len(after) - end][:120]}"
