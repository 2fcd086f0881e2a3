from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vllm_plugins

if TYPE_CHECKING:
    from .kit.index import Index
    from .kit.place import Place

PACKAGE = Path(vllm_plugins.__file__).parent

# A module may import only what stands above it. Down to `hook`: the standard library and ourselves, nothing else.
ORDER = [
    "__init__",
    "amounts",
    "errors",
    "disk",
    "records",
    "marker",
    "settings",
    "crew",
    "_run",
    "files",
    "history",
    "overlay",
    "activation",
    "temporary",
    "trust",
    "integrity",
    "logs",
    "loading",
    "listing",
    "recovery",
    "hook",
    "values",
    "nodes",
    "policy",
    "manifest",
    "remotes",
    "git",
    "refs",
    "projects",
    "trees",
    "sources",
    "fields",
    "contents",
    "lock",
    "lockfile",
    "export",
    "sbom",
    "base",
    "fit",
    "registry",
    "cache",
    "metadata",
    "stubs",
    "pipconfig",
    "installers",
    "archives",
    "wheels",
    "resolvers",
    "resolve",
    "simple",
    "index",
    "releases",
    "released",
    "graph",
    "changes",
    "selection",
    "lockstep",
    "bundle",
    "bytecode",
    "stage",
    "store",
    "link",
    "generations",
    "verification",
    "sync",
    "doctor",
    "kept",
    "plugins",
    "rebuild",
    "licenses",
    "advisories",
    "provenance",
    "audit",
    "drawing",
    "report",
    "assembly",
    "locking",
    "cli._output",
    "cli._inputs",
    "cli.base",
    "cli.verify",
    "cli.history",
    "cli.rollback",
    "cli.prune",
    "cli.bundle",
    "cli.diff",
    "cli.export",
    "cli.audit",
    "cli.doctor",
    "cli.status",
    "cli._locking",
    "cli.lock",
    "cli.sync",
    "cli.__init__",
    "__main__",
]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = path
    return found


def imports(name: str, path: Path) -> set[str]:
    """Which of our own modules a module imports, anywhere in it, type checking included."""
    package = ["vllm_plugins", *name.split(".")[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {_own(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            found |= {_own(f"{whole}.{alias.name}") or _own(whole) for alias in node.names}
    return {name for name in found if name}


def _own(imported: str) -> str:
    """The name in ``ORDER`` of a module of ours, a package's own included; empty for anything else."""
    if imported.partition(".")[0] != "vllm_plugins":
        return ""
    name = imported.removeprefix("vllm_plugins").removeprefix(".")
    package = f"{name}.__init__".removeprefix(".")
    return name if name in modules() else package if package in modules() else ""


def test_every_module_is_in_the_order() -> None:
    assert set(modules()) == set(ORDER)


@pytest.mark.parametrize("name", list(modules()))
def test_a_module_imports_only_what_stands_above_it(name: str) -> None:
    if name == "__init__":  # its two functions reach down, when they are called
        return
    above = set(ORDER[: ORDER.index(name)])
    assert imports(name, modules()[name]) - {name} <= above


@pytest.mark.parametrize("name", list(modules()))
def test_modules_and_functions_are_short(name: str) -> None:
    text = modules()[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


@pytest.mark.parametrize("name", list(modules()))
def test_a_module_says_what_is_its_own_or_is_a_command(name: str) -> None:
    path = modules()[name]
    if name == "__main__" or (name.startswith("cli.") and not path.name.startswith("_")):
        return
    text = path.read_text(encoding="utf-8")
    (names,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
    ]
    module = importlib.import_module(f"vllm_plugins.{name}".removesuffix(".__init__"))
    assert [exported for exported in names if not hasattr(module, exported)] == []


def loaded_by(code: str) -> set[str]:
    """The modules that code loads in a fresh interpreter, beyond those that it starts with."""
    script = f"import sys; before = set(sys.modules); {code}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing() -> None:
    assert loaded_by("import vllm_plugins") == {"vllm_plugins"}


HOOK = {"vllm_plugins"} | {
    f"vllm_plugins.{name}"
    for name in ("activation", "hook", "logs", "marker", "overlay", "records", "settings", "trust")
}
# What a vLLM process has not loaded by then anyway.
LATER = {"subprocess", "dataclasses", "tempfile", "tomllib", "argparse"}


def test_the_hook_loads_the_standard_library_and_ourselves() -> None:
    loaded = loaded_by("import vllm_plugins.hook")
    assert {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names} == HOOK
    assert loaded & LATER == set()


def test_a_start_in_step_loads_no_more(place: Place, index: Index) -> None:
    index.wheel("tiny", entry_points={"vllm.logits_processors": {"bend": "tiny:Bend"}})
    place.pypi("tiny")
    place.run("lock")
    place.run("sync", "--no-load-check")
    script = "import sys; before = set(sys.modules); from vllm_plugins import hook; hook.general(); "
    loaded = set(place.python("-c", f"{script}print(*set(sys.modules) - before)").stdout.split())
    assert {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names} == HOOK
    assert loaded & LATER == set()


def loaded_by_command(place: Place, *words: str) -> tuple[set[str], set[str]]:
    """Our own modules, and what else that is not the standard library, that a command loads."""
    script = (
        "import atexit, sys; before = set(sys.modules); from vllm_plugins.cli import main; "
        "atexit.register(lambda: print(*set(sys.modules) - before, file=sys.stderr)); main(sys.argv[1:])"
    )
    loaded = set(place.python("-c", script, *words).stderr.splitlines()[-1].split())
    own = {name.removeprefix("vllm_plugins.") for name in loaded if name.startswith("vllm_plugins.")}
    others = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"vllm_plugins"}
    return own, {name for name in others if not name.startswith(("_cython", "cython"))}


def test_the_version_loads_hardly_anything(bare_place: Place) -> None:
    own, others = loaded_by_command(bare_place, "--version")
    assert own == {"cli", "cli._output", "disk", "errors", "records", "settings"}
    assert others == set()


SMALL = {"cli", "cli._inputs", "cli._output", "_run", "base", "errors", "fields", "fit", "lock", "manifest", "marker"}
SMALL |= {"contents", "crew", "disk", "files", "nodes", "overlay", "policy", "records", "settings", "values"}


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("status", {"activation", "cli.status", "link", "loading"}),
        ("lock", {"amounts", "cli._locking", "cli.lock", "lockstep", "projects", "resolve", "selection", "stubs"}),
    ],
)
def test_what_changes_nothing_loads_nothing_of_what_changes_something(
    place: Place, index: Index, command: str, more: set[str]
) -> None:
    index.wheel("tiny")
    place.pypi("tiny")
    place.run("lock")
    place.run("sync")
    assert loaded_by_command(place, command) == (SMALL | more, {"packaging", "yaml"})


@pytest.mark.parametrize("name", ORDER[1 : ORDER.index("hook") + 1])
def test_what_the_hook_may_reach_is_the_standard_library(name: str) -> None:
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        assert all(imported.partition(".")[0] in sys.stdlib_module_names for imported in names), names


@pytest.mark.parametrize("name", [name for name in modules() if name != "_run"])
def test_only_one_module_starts_processes(name: str) -> None:
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "subprocess" not in names
