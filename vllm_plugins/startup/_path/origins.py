"""Where the modules of an overlay's entry points are imported from: the overlay, or a place that comes before it.

The overlay is last on the path, so that it can't replace a module of the base. A module of the working directory, or
of a directory that ``PYTHONPATH`` names, would therefore run in place of a locked one. Nothing of such a place is
imported: where a module would come from is found out before, as the import system does it.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import sys
from typing import TYPE_CHECKING

from vllm_plugins.startup import overlay
from vllm_plugins.startup.marker import module_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vllm_plugins.core.errors import LoadError
    from vllm_plugins.startup.overlay import EntryPoint

__all__ = ["check", "check_imported", "path_file_entries"]

_PACKAGES = ("site-packages", "dist-packages")


def check(points: Iterable[EntryPoint]) -> None:
    """Check where these modules would be imported from. A package of the base may still extend its path.

    Raises:
        LoadError: one would be imported, or has been, from a place that is neither the overlay nor the base.
    """
    ours = _directories()
    for point in points if ours else ():
        if not point.distribution:  # the base provides it, from wherever it has it
            continue
        name = module_name(point.value)
        if name.partition(".")[0] in sys.modules:
            from vllm_plugins.startup._path import namespaces

            namespaces.extend(name)
        module, origin = _locate(name, ours)
        if origin is not None and not _is_in(origin, (*ours, *_base())):
            raise _error(point, module, origin, ours)


def check_imported(point: EntryPoint) -> None:
    """Check where the module of an entry point has been imported from. Raises the same error as :func:`check`.

    The base may provide a module that the overlay does not have.
    """
    ours = _directories()
    name = module_name(point.value)
    origin = getattr(sys.modules.get(name), "__file__", None)
    if (
        not ours
        or not point.distribution
        or origin is None
        or _is_in(origin, ours)
        or _is_of_hook(name, origin, ours)
    ):
        return
    if not _is_in(origin, _base()) or _has(name, ours):
        raise _error(point, name, origin, ours)


def _directories() -> tuple[str, ...]:
    """The active overlay's directory, and those that its ``.pth`` files name: of editable plugins."""
    sites = [overlay.real(entry) for entry in overlay.entries() if overlay.key_in(entry) is not None]
    return tuple(path for site in sites for path in (site, *path_file_entries(site)))


def path_file_entries(site: str) -> list[str]:
    """The directories that the ``.pth`` files of an overlay add to the path."""
    found: list[str] = []
    try:
        names = [name for name in os.listdir(site) if name.endswith(".pth")]
    except OSError:
        return found
    for name in names:
        with (
            contextlib.suppress(OSError),  # what can't be read has added nothing
            open(os.path.join(site, name), encoding="utf-8", errors="replace") as file,
        ):
            found += [os.path.abspath(os.path.join(site, line.strip())) for line in file if line.strip()]
    return found


def _base() -> list[str]:
    """The directories into which packages are installed, and the standard library."""
    installed = (entry for entry in overlay.entries() if os.path.basename(entry) in _PACKAGES)
    return [*installed, os.path.dirname(os.__file__)]


def _is_in(origin: str, directories: Iterable[str]) -> bool:
    real = os.path.realpath(origin)
    return any(real.startswith(os.path.join(os.path.realpath(directory), "")) for directory in directories)


def _locate(name: str, ours: Sequence[str]) -> tuple[str, str | None]:
    """The first part of a dotted name that is a file, and its path. What is below it, that file's code decides.

    The path is ``None`` where nothing is found, and where a finder of the overlay itself finds it (editable plugins).
    Namespace packages are directories without code, in which the next part is looked up.
    """
    path: Sequence[str] | None = None
    module = ""
    for part in name.split("."):
        module = f"{module}.{part}" if module else part
        loaded = sys.modules.get(module)
        finder, spec = _find(module, path)
        origin = (spec.origin if spec is not None else None) if loaded is None else getattr(loaded, "__file__", None)
        if origin is not None:
            is_hooked = spec is not None and spec.origin == origin and _comes_from(finder, ours)
            return module, None if is_hooked else origin
        found = getattr(loaded, "__path__", None) or (spec.submodule_search_locations if spec is not None else None)
        path = None if found is None else list(found)
        if path is None:
            break
    return module, None


def _find(module: str, path: Sequence[str] | None) -> tuple[object, importlib.machinery.ModuleSpec | None]:
    """The finder of a module, and what it has found."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is None:
            continue
        is_usual = finder is importlib.machinery.PathFinder and path is not None
        spec = _find_in(module, path or ()) if is_usual else find(module, path)
        if spec is not None:
            return finder, spec
    return None, None


def _find_in(module: str, path: Sequence[str]) -> importlib.machinery.ModuleSpec | None:
    """What ``PathFinder`` finds. For a namespace package in another, that requires the other to be imported."""
    import pkgutil

    portions: list[str] = []
    for entry in path:
        finder = pkgutil.get_importer(entry)
        spec = None if finder is None else finder.find_spec(module, None)
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec.submodule_search_locations or ()) if spec is not None else ()
    namespace = importlib.machinery.ModuleSpec(module, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace if portions else None


def _comes_from(finder: object, ours: Sequence[str]) -> bool:
    module = sys.modules.get(getattr(finder, "__module__", None) or type(finder).__module__)
    file = getattr(module, "__file__", None)
    return file is not None and _is_in(file, ours)


def _is_of_hook(name: str, origin: str, ours: Sequence[str]) -> bool:
    parent = sys.modules.get(name.rpartition(".")[0])
    finder, spec = _find(name, getattr(parent, "__path__", None))
    return spec is not None and spec.origin == origin and _comes_from(finder, ours)


def _has(name: str, ours: Sequence[str]) -> bool:
    """Whether the overlay has a module of this name itself."""
    path: Sequence[str] | None = ours
    module = ""
    for part in name.split("."):
        module = f"{module}.{part}" if module else part
        spec = None if path is None else _find_in(module, path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return True


def _error(point: EntryPoint, module: str, origin: str, ours: Sequence[str]) -> LoadError:
    from vllm_plugins.core.errors import LoadError

    holding = [entry for entry in overlay.entries() if _is_in(origin, [entry or os.getcwd()])]
    entry = max(holding, key=len, default=None)  # one may be in another
    if module in sys.modules:
        reason = "it was imported before the plugins were made active"
    elif entry is not None and os.path.realpath(entry) == os.path.realpath(os.getcwd()):
        reason = "the working directory is on the path of this process, before the plugins"
    else:
        reason = f"{entry or os.path.dirname(origin)} is on the path of this process, before the plugins"
    pythonpath = os.environ.get("PYTHONPATH", "")
    named = [os.path.abspath(path) for path in pythonpath.split(os.pathsep)] if pythonpath else []
    if entry is not None and os.path.abspath(entry) in named:
        next_step = f"take {os.path.abspath(entry)} out of PYTHONPATH, or rename {origin}"
    else:
        next_step = f"rename {origin}, or start vLLM from another directory with the command vllm"
    return LoadError(
        f"plugin {point.plugin!r} is not what would run: its module {module} is imported from {origin}, "
        f"and not from {ours[0]}",
        where=f"entry point {point.name} = {point.value} in {point.group}, of {point.distribution}",
        expected=f"a module in {ours[0]}",
        found=f"{origin}: {reason}",
        next_step=next_step,
    )
