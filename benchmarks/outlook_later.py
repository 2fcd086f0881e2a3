"""How often "may break" of ``vllm-plugins outlook`` is right: what a plugin runs later is run, as far as it imports.

"may break" says that code that runs after vLLM's start imports a name that the release lacks, and does not handle
that. Whether a server gets there depends on its model and options. Measured is whether the import fails when it runs:
each module of the plugin is imported for real, and each import of vLLM in a function is run.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.outlook import Tally
    from vllm_plugins.packages.wheel_files import WheelFiles
    from vllm_plugins.review.outlook import Finding, Outlook

__all__ = ["FORKED", "Counts", "Later", "read", "statements", "truth"]

# A part of programs that run in an environment: the result of a function, from a fork.
FORKED = """
def forked(function, argument):
    reading, writing = os.pipe()
    if not os.fork():
        os.close(reading)
        result = function(argument)
        with open(writing, "w") as file:
            json.dump(result, file)
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        text = file.read()
    os.wait()
    return json.loads(text) if text else None
"""
# Runs in an environment, with a fork for each plugin: the modules that fail for a name of vLLM, and the statements.
JOBS = (
    """
import importlib, json, os, signal, sys

def is_name(error):
    name = getattr(error, "name", None) or ""
    text = str(error)
    return isinstance(error, (ImportError, AttributeError)) and (name.partition(".")[0] == "vllm" or "vllm." in text)

def use(job):
    signal.setitimer(signal.ITIMER_PROF, 120)  # of processor time
    sys.path.append(job["target"])
    failed, other = [], []
    for module in job["modules"]:
        try:
            importlib.import_module(module)
        except BaseException as error:
            (failed if is_name(error) else other).append(module)
    lines = []
    for statement in job["statements"]:
        try:
            exec(statement, {})
        except BaseException as error:
            if is_name(error):
                lines.append(statement)
    return {"failed": failed, "other": other, "statements": lines}

"""
    + FORKED
    + """
jobs = json.load(sys.stdin)
import vllm
print("RESULT" + json.dumps([forked(use, job) for job in jobs]))
"""
)
_KNOWN = {name for name, value in vars(builtins).items() if isinstance(value, type)}  # the errors that have a name
_CHECKS = ("version", "hasattr", "getattr", "find_spec", "signature", "_available")


@dataclass(frozen=True, slots=True)
class Later:
    """What a function imports of vLLM: a name, or a ``try`` with its handlers, of which only the imports are left.

    ``lines`` are those of the imports. ``guard`` is ``check`` where the plugin chooses by release whether they run,
    ``try`` for what else is in a ``try``, or empty.
    """

    path: str
    lines: tuple[int, ...]
    statement: str
    guard: str


def read(files: WheelFiles) -> tuple[list[str], list[Later]]:
    """The modules of a plugin, and its imports that run when a function is called. Not read by outlook."""
    modules, found = [], []
    for path, source in files.sources.items():
        if ".dist-info/" in path or ".data/" in path or path.startswith("vllm/"):
            continue
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        modules.append(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        found += list(_later(path, tree, in_function=False, guard=""))
    return sorted(modules), found


def _later(path: str, node: ast.AST, *, in_function: bool, guard: str) -> Iterator[Later]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        if in_function and guard != "typing":
            yield from (Later(path, (node.lineno,), statement, guard) for statement in _statements(node))
        return
    is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    inner = "" if is_function else guard
    if isinstance(node, ast.If):
        test = ast.unparse(node.test)
        is_check = any(word in test.lower() for word in _CHECKS)
        inner = guard or ("typing" if "TYPE_CHECKING" in test else "check" if is_check else "")
    elif isinstance(node, ast.Try) and in_function and not guard:
        imports = _imports_of(node)
        lines = sorted(child.lineno for child in ast.walk(imports) if isinstance(child, (ast.Import, ast.ImportFrom)))
        if lines:
            yield Later(path, tuple(lines), ast.unparse(ast.fix_missing_locations(imports)), "")
        inner = "try"
    for child in ast.iter_child_nodes(node):
        yield from _later(path, child, in_function=in_function or is_function, guard=inner)


def _imports_of(node: ast.Try) -> ast.Try:
    """A ``try`` of which only the imports of vLLM are left, and what is raised again."""
    handlers = [
        ast.ExceptHandler(type=handler.type, name=None, body=_left(handler.body, in_handler=True))
        for handler in node.handlers
        if _names(handler) <= _KNOWN
    ]
    body, others = _left(node.body, in_handler=False), _left(node.orelse, in_handler=False)
    return ast.Try(body=body, handlers=handlers, orelse=others if handlers else [], finalbody=[ast.Pass()])


def _left(body: Sequence[ast.stmt], *, in_handler: bool) -> list[ast.stmt]:
    left: list[ast.stmt] = []
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and any(_statements(node)):
            left.append(node)
        elif isinstance(node, ast.Try):
            left.append(_imports_of(node))
        elif isinstance(node, ast.Raise) and in_handler:
            left.append(ast.Raise())
    return left or [ast.Pass()]


def _statements(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """One statement for each name of vLLM that is imported."""
    if isinstance(node, ast.Import):
        yield from (f"import {alias.name}" for alias in node.names if alias.name.partition(".")[0] == "vllm")
    elif not node.level and (node.module or "").partition(".")[0] == "vllm":
        yield from (f"from {node.module} import {alias.name}" for alias in node.names)


def _names(handler: ast.ExceptHandler) -> set[str]:
    if handler.type is None:
        return set()
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {ast.unparse(kind) for kind in kinds}


def truth(python: str, plugins: Sequence[tuple[Path, list[str], list[str]]], root: Path) -> list[Any]:
    """What of each plugin (directory, modules, statements) fails for a name of vLLM; kept for the next call."""
    jobs = json.dumps(
        [
            {"target": str(target), "modules": modules, "statements": statements}
            for target, modules, statements in plugins
        ]
    )
    kept = root / "later" / hashlib.sha256(f"{python} {JOBS} {jobs}".encode()).hexdigest()
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [python, "-c", JOBS],
            input=jobs,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "VLLM_PLUGIN_DISABLE": "1", "HOME": tempfile.gettempdir()},
        )
        (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT"))
        kept.write_text(line.removeprefix("RESULT"), encoding="utf-8")
    found: list[Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def statements(later: Iterable[Later], expected: Outlook) -> list[str]:
    """What is run for a plugin: its own imports, and the names that are said to be missing."""
    return sorted({item.statement for item in later} | {resolving(item.name) for item in expected.findings})


def resolving(name: str) -> str:
    """A statement that fails if a name is missing."""
    return f"import pkgutil; pkgutil.resolve_name({name!r})"


@dataclass(kw_only=True)
class Counts:
    """What outlook says of code that runs later, and what happened when its imports ran."""

    verdicts: Tally
    findings: Tally
    imports: Tally
    checked: int = 0  # imports that fail, of branches that the plugin chooses by the release

    def add(self, what: str, expected: Outlook, found: Any, later: Sequence[Later]) -> None:
        """Compare one plugin and one release."""
        if found is None:
            self.verdicts.not_judged += 1
            return
        failed = set(found["failed"])
        failing = [item for item in later if item.statement in found["statements"]]
        self.checked += sum(item.guard == "check" for item in failing)
        said = {place for item in _said(expected, "load", "call") for place in item.where}
        broken = {_places(item) for item in failing if not item.guard}
        for places in sorted(broken):
            self.imports.add(said=not said.isdisjoint(places), true=True, what=f"{what} {', '.join(places)}")
        run = {place for places in broken for place in places}
        imports = {place for item in later for place in _places(item)}
        for item in _said(expected, "call"):
            is_run = any(place in run or _stem(place) in failed or place not in imports for place in item.where)
            true = resolving(item.name) in found["statements"] and is_run
            self.findings.add(said=True, true=true, what=f"{what} {item.name} {item.where[0]}")
        if expected.verdict == "breaks":
            return
        reason = next(iter(_said(expected, "call")), None)
        example = sorted(failed)[:2] or sorted(broken)[:2]
        text = f"{what}: {expected.verdict} because of {reason.name if reason else 'nothing'}; in truth {example}"
        self.verdicts.add(said=expected.verdict == "may break", true=bool(failed or broken), what=text)

    def report(self) -> None:
        """Print the figures."""
        self.verdicts.report("may break, by plugin and release")
        self.findings.report("names that are missing later")
        self.imports.report("imports in functions that fail")
        print(f"imports that fail in branches or handlers of the plugin's own, not counted: {self.checked}")


def _places(item: Later) -> tuple[str, ...]:
    return tuple(f"{item.path}:{line}" for line in item.lines)


def _said(expected: Outlook, *when: str) -> list[Finding]:
    return [item for item in expected.findings if item.kind != "unknown" and item.when in when]


def _stem(place: str) -> str:
    return place.rpartition(":")[0].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
