"""Namespace packages of the old kinds that the base and an overlay share: pkgutil, pkg_resources, ``-nspkg.pth``.

They compute their path once: when the package is imported, or from the one directory of the ``.pth`` file. Where pip
installs everything into one directory, that is enough. An overlay is a second one, and is put on the path later.
"""

from __future__ import annotations

import os
import pkgutil
import site
import sys

from vllm_plugins.startup import overlay

__all__ = ["add_site", "extend"]


def add_site(directory: str, known: set[str]) -> None:
    """Add an overlay to the path, and process its ``.pth`` files. ``known`` is for ``site.addsitedir``.

    A package that a ``.pth`` file has made gets its directories from the whole path, in its order: the base comes
    first, as everywhere.
    """
    before = set(sys.modules)
    site.addsitedir(directory, known)
    for name in sorted(sys.modules.keys() - before):
        module = sys.modules[name]
        path = getattr(module, "__path__", None)
        if path is not None and getattr(module, "__file__", None) is None:
            module.__path__ = list(dict.fromkeys((*_portions(name), *path)))


def extend(name: str) -> None:
    """Add the directories of the active overlay to a package, or those around it, that was imported before.

    Only a package that declares itself to be a namespace is extended: the base decides that.
    """
    parts = name.split(".")
    for number in range(1, len(parts) + 1):
        package = ".".join(parts[:number])
        module = sys.modules.get(package)
        path, file = getattr(module, "__path__", None), getattr(module, "__file__", None)
        if module is None or file is None or not isinstance(path, list):
            continue
        missing = [entry for entry in _portions(package) if _is_ours(entry) and entry not in path]
        if missing:
            from vllm_plugins.core import namespace_file

            if namespace_file.is_declared(file):
                module.__path__ = [*path, *missing]


def _portions(name: str) -> list[str]:
    """The directories of a package on the path. ``pkgutil.extend_path`` would also add what ``NAME.pkg`` says."""
    parent, _, last = name.rpartition(".")
    path = getattr(sys.modules.get(parent), "__path__", ()) if parent else overlay.entries()
    finders = (pkgutil.get_importer(entry) for entry in path)
    specs = [finder.find_spec(last, None) for finder in finders if finder is not None]
    return [entry for spec in specs if spec is not None for entry in spec.submodule_search_locations or ()]


def _is_ours(path: str) -> bool:
    """Whether a directory is in an overlay on the path. Below a guarded entry, directories have their own names."""
    ours = [overlay.real(entry) for entry in overlay.entries() if overlay.key_in(entry) is not None]
    return any(path.startswith(os.path.join(entry, "")) for entry in ours)
