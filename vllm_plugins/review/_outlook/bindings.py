"""The names that a module has after it was imported, as far as its source tells."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Bindings", "is_type_checking", "read"]

# Every module has these, without a line that says so.
_IMPLICIT = frozenset(
    {
        "__builtins__",
        "__dict__",
        "__doc__",
        "__file__",
        "__loader__",
        "__name__",
        "__package__",
        "__path__",
        "__spec__",
    }
)
_BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.With, ast.AsyncWith, ast.Match)


@dataclass(kw_only=True)
class Bindings:
    """``sure`` names are bound whatever the machine is, ``maybe`` names on some machines.

    ``stars`` are the modules of ``from MODULE import *``, with their level. ``lazy`` are the texts of a module with
    ``__getattr__``, among them the names that it knows. ``is_open``: the module gets names in a way that its source
    does not tell. ``exported`` is ``__all__``, if it is a list of texts.
    """

    sure: set[str] = field(default_factory=set)
    maybe: set[str] = field(default_factory=set)
    stars: list[tuple[int, str]] = field(default_factory=list)
    lazy: set[str] = field(default_factory=set)
    is_open: bool = False
    exported: set[str] | None = None


def read(tree: ast.Module) -> Bindings:
    """Follow the statements of a module, without functions and classes inside."""
    found = Bindings(sure=set(_IMPLICIT))
    _block(tree.body, found)
    _dynamic(tree, found)
    return found


def _block(body: Sequence[ast.stmt], found: Bindings) -> None:
    for statement in body:
        if isinstance(statement, _BRANCHES):
            _branches(statement, found)
        elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.sure.add(statement.name)
        elif isinstance(statement, ast.Import):
            found.sure.update(alias.asname or alias.name.partition(".")[0] for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            _import_from(statement, found)
        elif isinstance(statement, ast.Assign):
            found.sure.update(name for target in statement.targets for name in _targets(target))
            _exports(statement, found)
        elif isinstance(statement, ast.AugAssign) or (isinstance(statement, ast.AnnAssign) and statement.value):
            found.sure.update(_targets(statement.target))
        elif isinstance(statement, ast.Delete):
            gone = {name for target in statement.targets for name in _targets(target)}
            found.sure -= gone
            found.maybe -= gone


def _branches(statement: ast.stmt, found: Bindings) -> None:
    match statement:
        case ast.If():
            if (typing := is_type_checking(statement.test)) is not None:
                _block(statement.orelse if typing else statement.body, found)
                return
            _merge(found, [statement.body, statement.orelse])
        case ast.Try() | ast.TryStar():
            # A name of the body is bound if nothing is caught, one of a handler if something is.
            _merge(found, [[*statement.body, *statement.orelse], *(handler.body for handler in statement.handlers)])
            _block(statement.finalbody, found)
        case ast.With() | ast.AsyncWith():
            names = [item.optional_vars for item in statement.items if item.optional_vars is not None]
            found.sure.update(name for target in names for name in _targets(target))
            _block(statement.body, found)
        case ast.For() | ast.AsyncFor():
            found.maybe.update(_targets(statement.target))
            _merge(found, [statement.body, []])
            _block(statement.orelse, found)
        case ast.While():
            _merge(found, [statement.body, []])
        case ast.Match():
            _merge(found, [*(case.body for case in statement.cases), []])


def _merge(found: Bindings, blocks: Sequence[Sequence[ast.stmt]]) -> None:
    """Names of every branch are sure, the others are not. A branch that raises does not count."""
    going_on = [block for block in blocks if not (block and isinstance(block[-1], ast.Raise))]
    branches = []
    for block in going_on:
        inner = Bindings()
        _block(block, inner)
        branches.append(inner)
        found.stars += inner.stars
        found.is_open |= inner.is_open
        found.exported = inner.exported or found.exported
    if not branches:
        return
    sure = set.intersection(*(inner.sure for inner in branches))
    found.sure |= sure
    found.maybe |= set().union(*(inner.sure | inner.maybe for inner in branches)) - found.sure


def _import_from(statement: ast.ImportFrom, found: Bindings) -> None:
    for alias in statement.names:
        if alias.name == "*":
            found.stars.append((statement.level, statement.module or ""))
        else:
            found.sure.add(alias.asname or alias.name)


def _targets(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, (ast.Tuple, ast.List)):
        for item in target.elts:
            yield from _targets(item)
    elif isinstance(target, ast.Starred):
        yield from _targets(target.value)


def _exports(statement: ast.Assign, found: Bindings) -> None:
    if [ast.unparse(target) for target in statement.targets] == ["__all__"]:
        try:
            found.exported = set(map(str, ast.literal_eval(statement.value)))
        except (ValueError, TypeError):
            found.is_open = True


def _dynamic(tree: ast.Module, found: Bindings) -> None:
    """What binds names without a statement that names them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):  # a function binds them
            found.maybe.update(name for name in node.names if name not in found.sure)
        elif isinstance(node, ast.NamedExpr):
            found.maybe.add(node.target.id)
    for statement in tree.body:
        called = [node for node in ast.walk(statement) if isinstance(node, ast.Call)] if _runs(statement) else []
        for call in called:
            text = ast.unparse(call.func)
            if text in ("exec", "globals().update", "vars().update", "locals().update"):
                found.is_open = True
        if isinstance(statement, ast.Assign) and any(
            ast.unparse(target).startswith(("sys.modules[", "globals()[")) for target in statement.targets
        ):
            found.is_open = True
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__getattr__"]
    own = [node for node in functions if any(node in _statements(statement) for statement in tree.body)]
    for function in own:
        found.lazy = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        # One that ends with AttributeError knows its names. Another one may pass each name on.
        found.is_open |= not any(isinstance(node, ast.Raise) for node in ast.walk(function))


def _runs(statement: ast.stmt) -> bool:
    return not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))


def _statements(statement: ast.stmt) -> Iterator[ast.stmt]:
    """A statement of a module, and those in its branches."""
    yield statement
    if isinstance(statement, _BRANCHES):
        for node in ast.iter_child_nodes(statement):
            if isinstance(node, ast.stmt):
                yield from _statements(node)
            elif isinstance(node, ast.ExceptHandler):
                for inner in node.body:
                    yield from _statements(inner)


def is_type_checking(test: ast.expr) -> bool | None:
    """Whether a condition is ``TYPE_CHECKING`` (``True``) or its opposite (``False``); else ``None``."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = is_type_checking(test.operand)
        return None if inner is None else not inner
    if isinstance(test, ast.Constant) and test.value is False:
        return True
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return True if name == "TYPE_CHECKING" else None
