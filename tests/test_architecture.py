"""The three rules of the layout (ranks, doors, startup), and what the rest of the code base holds itself to."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vllm_plugins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.index import Index
    from tests.kit.place import Place

PACKAGE = Path(vllm_plugins.__file__).parent
WINGS = ("core", "startup", "documents", "sources", "packages", "locking", "install", "review", "cli")
LINES, FUNCTION_LINES, MODULES = 350, 60, 20


@cache
def trees() -> dict[str, ast.Module]:
    """Each module by its dotted name, as a tree. All of them together take a second to parse."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in paths
    }


@cache
def nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    """Everything in a module."""
    return tuple(ast.walk(tree))


def modules(*wings: str) -> Iterator[tuple[str, ast.Module]]:
    """Each module of the wings (of all, where none is named) by its dotted name, as a tree."""
    for name, tree in trees().items():
        wing, dot, _ = name.partition(".")
        if not wings or (dot and wing in wings):
            yield name, tree


@cache
def imported(tree: ast.Module) -> tuple[str, ...]:
    """The dotted name of every import anywhere in a module, those for type checking included."""
    found: list[str] = []
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "an import is absolute, so that its wing can be read off it"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(found)


def test_the_package_consists_of_the_wings() -> None:
    found = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert found == set(WINGS)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_a_private_module_is_imported_by_its_own_wing_alone() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, tree in modules()
        for other in imported(tree)
        if other.startswith("vllm_plugins.")
        and any(part.startswith("_") and not part.startswith("__") for part in other.split(".")[2:3])
        and list((PACKAGE / other.split(".")[1]).glob(f"{other.split('.')[2]}*"))
        and other.split(".")[1] != name.partition(".")[0]
    ]
    assert wrong == []


def imported_at_run_time(tree: ast.Module) -> set[str]:
    """The modules of ours that a module imports, those for type checking alone left out."""
    typing = [node for node in nodes(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = {inner for node in typing for statement in node.body for inner in ast.walk(statement)}
    names = {
        f"{node.module}.{alias.name}".removeprefix("vllm_plugins.")
        for node in nodes(tree)
        if isinstance(node, ast.ImportFrom) and node not in skipped
        for alias in node.names
    }
    return {known for name in names for known in (name, name.rpartition(".")[0]) if known in trees()}


def test_no_module_imports_itself_through_others() -> None:
    """Except in ``startup``: what a start rarely needs is imported late, wherever that is, and may lead back."""
    graph = {name: imported_at_run_time(tree) for name, tree in modules() if not name.startswith("startup.")}
    graphlib.TopologicalSorter(graph).prepare()  # the error names the modules of a cycle


def test_the_init_of_a_wing_imports_nothing() -> None:
    silent = [wing for wing in WINGS if wing not in ("startup", "cli")]
    wrong = [
        f"{name} imports {other}"
        for name, tree in modules(*silent)
        if name.endswith(".__init__")
        for other in imported(tree)
        if other != "__future__.annotations"
    ]
    assert wrong == []


def test_core_and_startup_import_the_standard_library_and_one_another_only() -> None:
    allowed = {*sys.stdlib_module_names, "vllm_plugins"}
    wrong = [
        f"{name} imports {other}"
        for name, tree in modules("core", "startup")
        for other in imported(tree)
        if other.partition(".")[0] not in allowed
    ]
    assert wrong == []


def test_one_module_starts_processes() -> None:
    using = {name for name, tree in modules() if any(other.startswith("subprocess") for other in imported(tree))}
    assert using <= {"core.process", "core._processes.ending", "core._processes.output"}
    starting = {
        name
        for name, tree in modules()
        for node in nodes(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("subprocess.")
    }
    assert starting == {"core.process"}


def named_variables(tree: ast.Module) -> Iterator[str]:
    """The source of each name that is looked up or set in ``os.environ``, or asked of ``os.getenv``."""
    for node in nodes(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            yield ast.unparse(node.slice)
        elif isinstance(node, ast.Call) and node.args:
            function = ast.unparse(node.func)
            if function in ("os.getenv", "os.putenv", "os.unsetenv") or function.startswith("os.environ."):
                yield ast.unparse(node.args[0])
        elif isinstance(node, ast.Compare) and "os.environ" in map(ast.unparse, node.comparators):
            yield ast.unparse(node.left)


def test_one_module_reads_variables_of_ours_and_of_vllm() -> None:
    """Elsewhere a variable is written out, and is another program's or the system's: see ``startup.settings``."""
    wrong = [
        f"{name}: {variable}"
        for name, tree in modules()
        if name != "startup.settings"
        for variable in named_variables(tree)
        if not variable.startswith("'") or variable.lstrip("'_").startswith("VLLM_")
    ]
    assert wrong == []


def reaches_into_vllm(tree: ast.Module) -> bool:
    """Whether a module looks into a caller's frame, or for a module of vLLM that is loaded."""
    for node in nodes(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("_getframe", "f_locals"):
            return True
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "sys.modules.get":
            name = node.args[0]
            if isinstance(name, ast.Constant) and str(name.value).partition(".")[0] == "vllm":
                return True
        if isinstance(node, ast.Compare) and "sys.modules" in map(ast.unparse, node.comparators):
            name = node.left
            if isinstance(name, ast.Constant) and str(name.value).startswith("vllm."):
                return True
    return False


def test_what_reaches_into_vllm_is_named_after_it() -> None:
    """Whether the package ``vllm`` is imported at all is nothing inside of it."""
    reaching = {name for name, tree in modules() if reaches_into_vllm(tree)}
    assert {name for name in reaching if not name.rpartition(".")[2].startswith("_vllm")} == set()
    assert {"startup._vllm_process", "startup._vllm_listing"} <= reaching


def test_one_module_takes_file_locks_and_the_start_its_own() -> None:
    locking = {name for name, tree in modules() if "fcntl" in imported(tree)}
    assert locking == {"core.flock", "startup.activation"}


def test_one_module_draws_with_rich() -> None:
    """It is an optional dependency, and takes longer to import than most commands run."""
    drawing = {name for name, tree in modules() if any(other.partition(".")[0] == "rich" for other in imported(tree))}
    assert drawing == {"cli._terminal.drawing"}


def test_only_the_command_line_takes_the_manifest_of_the_working_directory() -> None:
    importing = {name for name, tree in modules() if "vllm_plugins.startup.discovery" in imported(tree)}
    assert importing == {"cli.__init__", "cli.completion"}


def test_modules_functions_and_wings_are_short() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LINES:
            wrong.append(f"{path.name} has {lines} lines")
    for name, tree in modules():
        for node in nodes(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > FUNCTION_LINES:
                    wrong.append(f"{name}: {node.name} has {length} lines")
    directories = {path.parent for path in PACKAGE.rglob("*.py")}
    wrong += [
        f"{directory.name} has too many modules"
        for directory in directories
        if len(list(directory.glob("*.py"))) > MODULES
    ]
    assert wrong == []


def test_a_module_exports_names_that_it_has() -> None:
    wrong = []
    for name, tree in modules():
        if name == "__main__" or (name.startswith("cli.") and "._" not in name) or name.endswith("__init__"):
            continue
        lists = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
        ]
        module = __import__(f"vllm_plugins.{name}", fromlist=["__all__"])
        wrong += [name] if len(lists) != 1 else [f"{name}.{word}" for word in lists[0] if not hasattr(module, word)]
    assert wrong == []


def loaded_by(code: str) -> set[str]:
    """The modules that code loads in a fresh interpreter, beyond those that it starts with."""
    script = f"import sys; before = set(sys.modules); {code}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing() -> None:
    assert loaded_by("import vllm_plugins") == {"vllm_plugins"}


STARTUP = ("hook", "activation", "overlay", "marker", "_trust", "settings")
HOOK = {"vllm_plugins", "vllm_plugins.startup", *(f"vllm_plugins.startup.{name}" for name in STARTUP)}
IN_VLLM = "vllm_plugins.startup._vllm_process"  # one more in vLLM, whatever it has imported
# What a vLLM process has not loaded by then anyway.
LATER = {"subprocess", "dataclasses", "tempfile", "tomllib", "argparse"}


def of_logging() -> set[str]:
    """The modules that logging loads, which vLLM and every command import: since 3.14, ``dataclasses`` is one."""
    return loaded_by("import logging")


def others(loaded: set[str]) -> set[str]:
    return {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names}


def test_the_hook_loads_only_what_a_start_needs() -> None:
    loaded = loaded_by("import vllm_plugins.startup.hook")
    assert others(loaded) == HOOK
    assert loaded & LATER <= of_logging()


def test_a_start_that_is_up_to_date_loads_no_more(place: Place, index: Index) -> None:
    index.wheel("tiny", entry_points={"vllm.logits_processors": {"bend": "tiny:Bend"}})
    place.pypi("tiny")
    place.run("lock")
    place.run("sync", "--no-load-check")
    start = "before = set(sys.modules); from vllm_plugins.startup import hook; hook.general(); "
    show = "print(*set(sys.modules) - before)"
    loaded = set(place.python("-c", f"import sys; {start}{show}").stdout.split())
    assert others(loaded) == HOOK
    assert loaded & LATER <= of_logging()
    vllm = "import sys, types; sys.modules['vllm'] = types.ModuleType('vllm'); "
    vllm += "sys.modules['vllm.envs'] = types.SimpleNamespace(environment_variables={}); "
    vllm += "sys.modules['torch.distributed'] = types.SimpleNamespace(init_process_group=print); "
    vllm += "sys.modules['prometheus_client'] = types.SimpleNamespace(); "
    assert set(place.python("-c", f"{vllm}{start}{show}").stdout.split()) - loaded == {IN_VLLM}


def loaded_by_command(place: Place, *words: str) -> set[str]:
    """The modules that a command loads."""
    script = (
        "import atexit, sys; before = set(sys.modules); from vllm_plugins.cli import main; "
        "atexit.register(lambda: print(*set(sys.modules) - before, file=sys.stderr)); main(sys.argv[1:])"
    )
    return set(place.python("-c", script, *words).stderr.splitlines()[-1].split())


def wings_and_others(loaded: set[str]) -> tuple[set[str], set[str]]:
    """The wings of our own among some modules, and what else is not the standard library."""
    own = {name.split(".")[1] for name in loaded if name.startswith("vllm_plugins.")}
    third = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"vllm_plugins"}
    return own, {name for name in third if not name.startswith(("_cython", "cython"))}


def test_the_version_loads_hardly_anything(bare_place: Place) -> None:
    assert wings_and_others(loaded_by_command(bare_place, "--version")) == ({"cli", "core", "startup"}, set())


# Modules that take milliseconds to import; parsers of requirements, for locks that have none; classes from texts.
SLOW = {"shutil", "dataclasses", "packaging.markers", "packaging.requirements", "http.client", "email", "tomlkit"}


@pytest.mark.parametrize(
    ("command", "wings"),
    [("status", {"install", "documents", "review"}), ("lock", {"locking", "documents", "sources"})],
)
def test_a_command_that_changes_nothing_loads_little(
    place: Place, index: Index, command: str, wings: set[str]
) -> None:
    index.wheel("tiny")
    place.pypi("tiny")
    place.run("lock")
    place.run("sync")
    loaded = loaded_by_command(place, command)
    own, third = wings_and_others(loaded)
    assert own == {"cli", "core", "startup"} | wings
    assert third == {"packaging", "yaml"}
    if command == "status":  # several times a day, and by scripts
        assert loaded & SLOW <= of_logging()
