"""What of vLLM we rely on, compared with the newest release: ``python -m tests.vllm.canary [SITE-PACKAGES]``.

Nothing is installed: the modules are read from the newest ``vllm`` wheel of the index, by ranges. With a directory, an
installed vLLM is read. What moved is printed in plain words, one line each, and the exit status is 1.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import requests
from packaging.utils import canonicalize_name, parse_wheel_filename
from remotezip import RemoteZip

from vllm_plugins.core.errors import PluginsError
from vllm_plugins.install._checks import _vllm_start as start
from vllm_plugins.packages import pip_config
from vllm_plugins.packages.index import Index
from vllm_plugins.startup import _vllm_listing as listing
from vllm_plugins.startup import _vllm_process, hook, settings
from vllm_plugins.startup.ranks import _vllm_group

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from packaging.version import Version

PLUGINS = "vllm/plugins/__init__.py"
PLATFORMS = "vllm/platforms/__init__.py"
ENVS = "vllm/envs.py"
IO = "vllm/plugins/io_processors/__init__.py"
LOGITS = "vllm/v1/sample/logits_processor/__init__.py"
ARGUMENTS = "vllm/engine/arg_utils.py"
GROUPS_OF_RANKS = f"{_vllm_group.CALLER.replace('.', '/')}.py"
# The modules of the processes that load general plugins; the message names the process.
LOADERS = {
    ARGUMENTS: "the API server, when its arguments are parsed",
    "vllm/v1/engine/core.py": "EngineCore",
    "vllm/v1/worker/worker_base.py": "a worker",
    "vllm/model_executor/models/registry.py": "the inspection of a model",
}
FILES = (PLUGINS, PLATFORMS, ENVS, IO, LOGITS, GROUPS_OF_RANKS, *LOADERS)

LISTING = listing._LISTING
GROUPS = {group for group in start.ORDER if group != settings.LOADS}
GENERAL = "load_general_plugins"
RESOLVE = "resolve_current_platform_cls_qualname"
VARIABLES = ("VLLM_PLUGINS", start._RUNNER, "VLLM_USE_RUST_FRONTEND", "VLLM_TARGET_DEVICE")
_GROUP = re.compile(r"vllm\.[a-z_]*(?:plugins|processors)")

Function = ast.FunctionDef | ast.AsyncFunctionDef
N = TypeVar("N", bound=ast.AST)


def moved(sources: Mapping[str, str]) -> Iterator[str]:
    """What of these modules is not as we rely on it, each as a sentence. A module that is missing is not in them."""
    yield from (f"{path} is missing" for path in FILES if path not in sources)
    trees = {}
    for path, source in sources.items():
        try:
            trees[path] = ast.parse(source)
        except SyntaxError as error:
            yield f"{path} can't be parsed by Python {sys.version_info[0]}.{sys.version_info[1]}: {error}"
    if PLUGINS in trees:
        yield from _of_listing(trees[PLUGINS])
        yield from _of_general(trees[PLUGINS])
    if PLATFORMS in trees:
        yield from _of_platforms(trees[PLATFORMS])
    if LOGITS in trees:
        yield from _of_logits(trees[LOGITS])
    if ENVS in trees:
        yield from _of_variables(trees[ENVS])
    yield from _of_groups([trees[path] for path in (PLUGINS, PLATFORMS, IO, LOGITS) if path in trees])
    if GROUPS_OF_RANKS in trees and not _looks_up(trees[GROUPS_OF_RANKS], _vllm_process.FUNCTION):
        yield f"{GROUPS_OF_RANKS} does not call torch's {_vllm_process.FUNCTION} by its module: nodes are not compared"
    for path, process in LOADERS.items():
        if path in trees and not _calls(trees[path], GENERAL):
            yield f"{path} does not call {GENERAL}: it was {process} that loaded general plugins there"


def _of_listing(tree: ast.Module) -> Iterator[str]:
    function = _function(tree, LISTING)
    if function is None:
        yield f"{PLUGINS} has no function {LISTING}: the hook recognizes a listing in progress by it"
        return
    if len(function.args.args) != 1:
        yield f"{LISTING} has {len(function.args.args)} parameters, not one: the load check replaces it"
    if not _calls(function, "entry_points"):
        yield f"{LISTING} does not call importlib.metadata.entry_points"
    loads = list(_calls(function, "load"))
    if not loads:
        yield f"{LISTING} does not call an entry point's load()"
    elif not all(_is_caught(call, function) for call in loads):
        yield f"an entry point that can't be loaded stops {LISTING}: it was logged and skipped"
    returned = {
        node.value.id
        for node in ast.walk(function)
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Name)
    }
    if not returned & set(_keyed_by_name(function)):
        yield f"{LISTING} does not return a dictionary of functions by the entry points' names"


def _of_general(tree: ast.Module) -> Iterator[str]:
    function = _function(tree, GENERAL)
    if function is None:
        yield f"{PLUGINS} has no function {GENERAL}"
        return
    name = _local_of(function)
    if name is None:
        yield f"{GENERAL} does not keep what {LISTING} returns in a local variable: plugins can't be withdrawn"
        return
    calls = [call for call in _of_kind(function, ast.Call) if _comes_from(call.func, name, function)]
    if not calls:
        yield f"{GENERAL} does not call the functions of its local variable {name!r}"
    elif any(_is_caught(call, function) for call in calls):
        yield f"{GENERAL} catches what a plugin raises: our error would no longer stop vLLM"


def _of_platforms(tree: ast.Module) -> Iterator[str]:
    if not any(
        alias.name == LISTING for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ):
        yield f"{PLATFORMS} does not import {LISTING} at its top: the load check replaces it there"
    if not any(
        isinstance(node, ast.Constant) and node.value == "current_platform"
        for function in [_function(tree, "__getattr__")]
        if function is not None
        for node in ast.walk(function)
    ):
        yield f"{PLATFORMS} does not resolve current_platform when it is looked up"
    function = _function(tree, RESOLVE)
    if function is None:
        yield f"{PLATFORMS} has no function {RESOLVE}"
        return
    name = _local_of(function)
    if name is None:
        yield f"{RESOLVE} does not keep what {LISTING} returns in a local variable: plugins can't be withdrawn"
    elif not any(_is_caught(call, function) for call in _of_kind(function, ast.Call)):
        yield f"{RESOLVE} does not catch what a platform plugin raises: the general hook would not be reached"


def _of_logits(tree: ast.Module) -> Iterator[str]:
    if not _calls(tree, "entry_points"):
        yield f"{LOGITS} does not call importlib.metadata.entry_points"
    if any(isinstance(node, ast.Attribute) and node.attr == "VLLM_PLUGINS" for node in ast.walk(tree)):
        yield f"{LOGITS} reads VLLM_PLUGINS: it did not apply to {settings.FREE[0]}"


def _of_variables(tree: ast.Module) -> Iterator[str]:
    known = {
        key.value: value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant)
    }
    if not any(
        isinstance(target, ast.Name) and target.id == "environment_variables"
        for node in tree.body
        for target in ([node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", []))
    ):
        yield f"{ENVS} has no dictionary environment_variables"
    for name in VARIABLES:
        if name not in known:
            yield f"{ENVS} does not know the variable {name}"
    if "VLLM_PLUGINS" in known and '.split(",")' not in ast.unparse(known["VLLM_PLUGINS"]).replace("'", '"'):
        yield "VLLM_PLUGINS is not a list of names with commas between them"


def _of_groups(trees: list[ast.Module]) -> Iterator[str]:
    there = {
        node.value
        for tree in trees
        for node in _of_kind(tree, ast.Constant)
        if isinstance(node.value, str) and _GROUP.fullmatch(node.value)
    }
    yield from (f"vLLM has a new group of plugins, {group}" for group in sorted(there - GROUPS))
    for group in sorted(GROUPS - there):
        ours = " (our hook is in it)" if group in (hook.PLATFORM, hook.GENERAL) else ""
        yield f"vLLM has no group {group}{ours}"


def _function(tree: ast.AST, name: str) -> Function | None:
    return next((node for node in ast.walk(tree) if isinstance(node, Function) and node.name == name), None)


def _of_kind(tree: ast.AST, kind: type[N]) -> list[N]:
    return [node for node in ast.walk(tree) if isinstance(node, kind)]


def _calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [
        node
        for node in _of_kind(tree, ast.Call)
        if (isinstance(node.func, ast.Name) and node.func.id == name)
        or (isinstance(node.func, ast.Attribute) and node.func.attr == name)
    ]


def _looks_up(tree: ast.AST, name: str) -> bool:
    """Whether a function is called by its module, where it may have been replaced."""
    return any(isinstance(call.func, ast.Attribute) for call in _calls(tree, name))


def _local_of(function: Function) -> str | None:
    """The local variable that gets the result of the listing."""
    for node in _of_kind(function, ast.Assign):
        (target, *others) = node.targets
        if not others and isinstance(target, ast.Name) and node.value in _calls(function, LISTING):
            return target.id
    return None


def _comes_from(called: ast.expr, name: str, function: Function) -> bool:
    """Whether what is called is a value of this dictionary: an item of a loop over it, or looked up in it."""
    loops = [
        loop.target
        for loop in _of_kind(function, ast.For)
        if any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(loop.iter))
    ]
    items = {node.id for target in loops for node in _of_kind(target, ast.Name)}
    return any(isinstance(node, ast.Name) and node.id in {name, *items} for node in [called])


def _is_caught(call: ast.Call, function: Function) -> bool:
    """Whether an exception of a call is caught."""
    return any(
        call in _of_kind(statement, ast.Call)
        for attempt in _of_kind(function, ast.Try)
        if attempt.handlers
        for statement in attempt.body
    )


def _keyed_by_name(function: Function) -> Iterator[str]:
    """The variables of a function to which something is assigned under a ``.name``."""
    for node in _of_kind(function, ast.Assign):
        for target in node.targets:
            if (
                isinstance(target, ast.Subscript)
                and isinstance(target.value, ast.Name)
                and isinstance(target.slice, ast.Attribute)
                and target.slice.attr == "name"
            ):
                yield target.value.id


def installed(site: Path) -> dict[str, str]:
    """The modules of an installed vLLM."""
    return {path: (site / path).read_text(encoding="utf-8") for path in FILES if (site / path).exists()}


def newest() -> tuple[Version, dict[str, str]]:
    """The modules of the newest release of vLLM at the index, without downloading its wheel."""
    config = pip_config.read()
    with Index(config) as index:
        wheels = [file for file in index.files(canonicalize_name("vllm")) if file.filename.endswith(".whl")]
    by_version = {parse_wheel_filename(file.filename)[1]: file for file in wheels if not file.yanked}
    version = max(version for version in by_version if not version.is_prerelease)
    with requests.Session() as session:
        session.verify = config.cert or True
        with RemoteZip(by_version[version].url, session=session) as archive:
            names = set(archive.namelist())
            return version, {path: archive.read(path).decode("utf-8") for path in FILES if path in names}


def main(words: list[str]) -> int:
    """Compare, and print what moved."""
    try:
        name, sources = (words[0], installed(Path(words[0]))) if words else newest()
    except (PluginsError, OSError) as error:
        print(f"vLLM can't be read: {error}")
        return 1
    found = list(moved(sources))
    print(f"vLLM {name}: " + (f"{len(found)} things that we rely on have moved:" if found else "nothing has moved"))
    print(*(f"  - {line}" for line in found), sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
