"""What a Python file of a plugin refers to: names of vLLM, and other modules of the plugin itself."""

from __future__ import annotations

import ast
import re
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vllm_plugins.review._outlook.bindings import is_type_checking
from vllm_plugins.review._outlook.context import Context, When
from vllm_plugins.review._outlook.release import PACKAGE, parse, resolve

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["Edge", "Reference", "References", "read"]

_IMPORT_ERRORS = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException", ""})
_ATTRIBUTE_ERRORS = frozenset({"AttributeError", "Exception", "BaseException", ""})
# Conditions by which a plugin chooses among releases of vLLM.
_CHECKS = re.compile(r"version|hasattr|getattr|find_spec|signature|_available\b", re.IGNORECASE)
_REPORTS = frozenset({"critical", "error", "exception", "warn", "warning"})  # methods of loggers, and warnings.warn
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# The nodes in which names are bound; other expressions are passed over, which are most of a file.
_BINDING = (ast.stmt, ast.excepthandler, ast.match_case, ast.withitem, ast.Name, ast.Tuple, ast.List, ast.Starred)
# A way into vLLM: the module that is imported, and the attributes that are taken from there.
_Path = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A module of vLLM that a line imports, and the attributes that it takes from there.

    ``when`` is ``load`` (the module is imported), ``call`` (a function is called), ``guarded`` (the plugin handles a
    failure, or chooses among releases of vLLM) or ``typing`` (only type checkers read it). ``attempt`` numbers the
    ``try`` whose body it is in, and ``instead_of`` the one whose handler it is in: a handler counts only if its body
    fails. A line that only uses what an import has bound has the attributes of that import as ``imported``.
    """

    module: str
    chain: tuple[str, ...]
    line: int
    when: When
    attempt: int | None = None
    instead_of: int | None = None
    imported: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """Another module of the plugin that a line imports; ``names`` may be modules inside of it.

    Where the plugin only reports that this failed, ``when`` is not ``guarded``: what is in the module is not there.
    """

    module: str
    names: tuple[str, ...]
    when: When


@dataclass(kw_only=True)
class References:
    """All of a file. ``calls`` are functions of the plugin, with their modules, that run when the file is loaded."""

    vllm: list[Reference] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    calls: set[tuple[str, str]] = field(default_factory=set)


def read(
    source: bytes, module: str, *, is_package: bool, own: Collection[str], called: Collection[str]
) -> References:
    """Read a file. ``own`` are the top-level modules of the plugin, ``called`` functions that run when it is loaded.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as :func:`release.parse`.
    """
    tree = parse(source)
    visitor = _Visitor(module, is_package=is_package, own=own, called=called)
    visitor.scope(tree.body, {})
    return visitor.found


class _Visitor(ast.NodeVisitor):
    """Follows a file. Each scope maps local names to ways into vLLM; ``None`` hides a name of an outer scope."""

    def __init__(self, module: str, *, is_package: bool, own: Collection[str], called: Collection[str]) -> None:
        self.found = References()
        self._module = module
        self._is_package = is_package
        self._own = own
        self._called = called
        self._scopes: list[dict[str, _Path | None]] = []
        self._context = Context()
        self._attempts = 0
        self._lazy_annotations = False

    def scope(self, body: Sequence[ast.stmt], names: dict[str, _Path | None]) -> None:
        """Visit the statements of a module, a class or a function."""
        self._scopes.append({**names, **self._bound(body)})
        for statement in body:
            self.visit(statement)
        self._scopes.pop()

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, (), node, "ImportError")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module == "__future__":
            self._lazy_annotations |= any(alias.name == "annotations" for alias in node.names)
            return
        target = self._absolute(node)
        names = tuple(alias.name for alias in node.names if alias.name != "*")
        if target.partition(".")[0] == PACKAGE:
            if len(names) < len(node.names):
                self._add(target, (), node, "ImportError")
            for name in names:
                self._add(target, (name,), node, "ImportError")
        elif target.partition(".")[0] in self._own:
            self._edge(target, names, "ImportError")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            chain.insert(0, inner.attr)
            inner = inner.value
        path = self._look_up(inner.id) if isinstance(inner, ast.Name) else None
        if path is None or path[0].partition(".")[0] != PACKAGE:
            self.visit(inner)
            return
        if not isinstance(node.ctx, ast.Load):
            chain.pop()  # what is set need not be there
        if chain:
            self._add(path[0], (*path[1], *chain), node, "AttributeError", imported=path[1])

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        first = node.args[0] if node.args else None
        text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
        if name in ("import_module", "__import__") and text:
            self._add(text, (), node, "ImportError")
        path = self._path(node.func)
        if path is not None and path[1] and self._current("ImportError") == "load":
            self.found.calls.add((".".join((path[0], *path[1][:-1])), path[1][-1]))
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        """A platform plugin returns the name of a class, which vLLM imports at once."""
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            module, _, name = node.value.value.replace(":", ".").rpartition(".")
            if module.partition(".")[0] in self._own:
                self.found.edges.append(Edge(module=module, names=(name,), when=self._context.when))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        typing = is_type_checking(node.test)
        if typing is None:
            self.visit(node.test)
            if isinstance(node.test, ast.Compare) and isinstance(node.test.ops[0], ast.NotIn):
                # Plugins register what is not there yet, which holds in a process that starts.
                certain, uncertain = node.body, node.orelse
            else:
                certain, uncertain = [], [*node.body, *node.orelse]
            self._all(certain)
            with self._as("guarded" if _CHECKS.search(ast.unparse(node.test)) else "call"):
                self._all(uncertain)
            return
        with self._as("typing"):
            self._all(node.body if typing else node.orelse)
        self._all(node.orelse if typing else node.body)

    def visit_Try(self, node: ast.Try | ast.TryStar) -> None:
        caught = frozenset(name for handler in node.handlers if not _raises(handler) for name in _errors(handler))
        self._attempts += 1
        number = self._attempts
        body = self._context
        if caught & (_IMPORT_ERRORS | _ATTRIBUTE_ERRORS):
            is_reported = all(map(_only_reports, node.handlers))
            body = replace(body, caught=body.caught | caught, attempt=number, is_reported=is_reported)
        with self._inside(body):
            self._all(node.body)
        with self._inside(replace(self._context, instead_of=number)):
            for handler in node.handlers:
                self._all(handler.body)
        self._all([*node.orelse, *node.finalbody])

    visit_TryStar = visit_Try  # noqa: N815

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self.visit(item.context_expr)
        suppressed: set[str] = set()
        for item in node.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("suppress", "contextlib.suppress"):
                suppressed |= {ast.unparse(argument).rpartition(".")[2] for argument in call.args}
        caught, is_reported = self._context.caught | suppressed, self._context.is_reported and not suppressed
        with self._inside(replace(self._context, caught=caught, is_reported=is_reported)):
            self._all(node.body)

    visit_AsyncWith = visit_With  # noqa: N815 - the name of the base class

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._all(node.decorator_list)
        self._all([*node.args.defaults, *filter(None, node.args.kw_defaults)])
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        arguments += [found for found in (node.args.vararg, node.args.kwarg) if found is not None]
        annotations = [node.returns, *(argument.annotation for argument in arguments)]
        if not self._lazy_annotations:
            self._all(list(filter(None, annotations)))
        is_called = len(self._scopes) == 1 and node.name in self._called
        # It runs later, when nothing that is around it here handles a failure.
        with self._inside(Context(when=self._context.when)), self._as("load" if is_called else "call"):
            self.scope(node.body, dict.fromkeys(argument.arg for argument in arguments))

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        with self._as("call"):
            self.visit(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._all([*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)])
        self.scope(node.body, {})

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if not self._lazy_annotations and self._context.when == "load":
            self.visit(node.annotation)
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)

    def _all(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def _absolute(self, node: ast.ImportFrom) -> str:
        return resolve(self._module, node.level, node.module or "", is_package=self._is_package)

    def _bound(self, body: Sequence[ast.stmt]) -> dict[str, _Path | None]:
        """The names that a scope binds: ways to modules, and others, which hide those of outer scopes."""
        names: dict[str, _Path | None] = {}
        is_top = not self._scopes
        pending: list[ast.AST] = list(body)
        for node in pending:  # the list grows during the loop
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    path = (alias.name if alias.asname else first, ()) if self._is_followed(first) else None
                    names[alias.asname or first] = path
            elif isinstance(node, ast.ImportFrom):
                target = self._absolute(node)
                is_followed = self._is_followed(target.partition(".")[0])
                for alias in node.names:
                    names[alias.asname or alias.name] = (target, (alias.name,)) if is_followed else None
            elif isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
                names[node.name] = (self._module, (node.name,)) if is_top else None
                continue
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.setdefault(node.id, None)
            pending += [child for child in ast.iter_child_nodes(node) if isinstance(child, _BINDING)]
        return names

    def _is_followed(self, top: str) -> bool:
        return top == PACKAGE or top in self._own

    def _path(self, node: ast.expr) -> _Path | None:
        """The way that a dotted name takes, if it begins with an imported one or a function of this module."""
        chain: list[str] = []
        while isinstance(node, ast.Attribute):
            chain.insert(0, node.attr)
            node = node.value
        path = self._look_up(node.id) if isinstance(node, ast.Name) else None
        return None if path is None else (path[0], (*path[1], *chain))

    def _look_up(self, name: str) -> _Path | None:
        return next((scope[name] for scope in reversed(self._scopes) if name in scope), None)

    @contextmanager
    def _as(self, when: When) -> Iterator[None]:
        """Inside, nothing is more certain than ``when``."""
        with self._inside(replace(self._context, when=self._context.at_most(when))):
            yield

    @contextmanager
    def _inside(self, context: Context) -> Iterator[None]:
        outer, self._context = self._context, context
        yield
        self._context = outer

    def _current(self, error: str) -> When:
        handled = _ATTRIBUTE_ERRORS if error == "AttributeError" else _IMPORT_ERRORS
        return self._context.at_most("guarded" if self._context.caught & handled else "load")

    def _edge(self, module: str, names: tuple[str, ...], error: str) -> None:
        when = self._context.at_most("call") if self._context.is_reported else self._current(error)
        self.found.edges.append(Edge(module=module, names=names, when=when))

    def _add(
        self, module: str, chain: tuple[str, ...], node: ast.AST, error: str, imported: tuple[str, ...] | None = None
    ) -> None:
        if module.partition(".")[0] in self._own and module.partition(".")[0] != PACKAGE:
            self._edge(module, (), error)
        if module.partition(".")[0] != PACKAGE:
            return
        self.found.vllm.append(
            Reference(
                module=module,
                chain=chain,
                line=getattr(node, "lineno", 0),
                when=self._current(error),
                attempt=self._context.attempt,
                instead_of=self._context.instead_of,
                imported=imported,
            )
        )


def _errors(handler: ast.ExceptHandler) -> set[str]:
    if handler.type is None:
        return {""}
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {ast.unparse(kind).rpartition(".")[2] for kind in kinds}


def _only_reports(handler: ast.ExceptHandler) -> bool:
    """Whether a handler writes to a log that something failed, and imports nothing in place of it."""
    nodes = list(ast.walk(handler))
    calls = (node.func for node in nodes if isinstance(node, ast.Call))
    is_reported = any(isinstance(function, ast.Attribute) and function.attr in _REPORTS for function in calls)
    return is_reported and not any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in nodes)


def _raises(handler: ast.ExceptHandler) -> bool:
    return bool(handler.body) and isinstance(handler.body[-1], ast.Raise)
