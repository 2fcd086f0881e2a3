"""What may be in the two directories of a stage that are on the path: after the base, and before it.

A module before the base replaces the base's module of the same name, so a plugin's wheel must not put files there,
and a wheel of one package must not replace another one that can't be overridden. In neither may be a module that
Python itself imports when it starts: with a link, or an inherited path, it would run in any other process.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from typing import TYPE_CHECKING

from vllm_plugins.core import regular_file
from vllm_plugins.core.errors import InstallError
from vllm_plugins.documents.overrides import FIXED_MODULES, WHY_FIXED
from vllm_plugins.packages import metadata
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

__all__ = ["check_declarations", "check_override", "check_path_files", "check_plugin", "refuse_path_files"]

# A line of setuptools (``namespaces.py``), with and without support of Python 2. A part is a name in quotes.
_PART = re.compile(r"'(\w+)'")
_NAMESPACE = re.compile(
    r"import sys, types, os;(?:has_mfs = sys\.version_info > \(3, 5\);)?"
    r"p = os\.path\.join\(sys\._getframe\(1\)\.f_locals\['sitedir'\], \*\(((?:'\w+',? ?)+)\)\);"
)
_INFORMATION = (".dist-info", ".egg-info")  # directories that Python reads as metadata, in any case
_OF_EACH_START = ("sitecustomize", "usercustomize")  # imported by `site`
_OPTIMIZED = re.compile(r"\.opt-\w+\.pyc$")  # PEP 488
_BAD_PLUGIN = "report it to the plugin's author, and set `enabled: false` for the plugin in plugins.yaml"
_NOT_OVERRIDDEN = (
    "remove it from `overrides` in plugins.yaml and run vllm-plugins lock, or use an environment that has such a "
    "version"
)


def check_plugin(title: str, paths: Sequence[str]) -> None:
    """Check that a plugin's distribution has no file before the base, and no module that Python imports itself.

    ``paths`` are relative to ``site``.

    Raises:
        InstallError: it has one.
    """
    _check_start(title, paths)
    found = next((path for path in paths if path.partition("/")[0] == overlay.FRONT), None)
    if found is not None:
        raise InstallError(
            f"{title} installs a file into the directory for overrides",
            found=found,
            next_step=_BAD_PLUGIN,
        )


def check_override(title: str, paths: Sequence[str]) -> None:
    """Check that an override has no module of vLLM, Python or the manager. ``paths`` are relative to the directory.

    Raises:
        InstallError: it has one.
    """
    _check_start(title, paths)
    fixed = FIXED_MODULES | sys.stdlib_module_names
    found = next((path for path in paths if path.partition("/")[0].partition(".")[0] in fixed), None)
    if found is not None:
        raise InstallError(
            f"{title} overrides a module that is not its own",
            found=found,
            details=[WHY_FIXED],
            next_step=_NOT_OVERRIDDEN,
        )


def _check_start(title: str, paths: Sequence[str]) -> None:
    _check_bytecode(title, paths)
    found = next((path for path in paths if path.partition("/")[0].partition(".")[0] in _OF_EACH_START), None)
    if found is not None:
        raise InstallError(
            f"{title} installs a module that Python runs in every process when it starts",
            found=found,
            next_step=_BAD_PLUGIN,
        )


def _check_bytecode(title: str, paths: Sequence[str]) -> None:
    """Refuse bytecode that only ``python -O`` uses. The other is replaced, as nothing ties it to its source."""
    found = next((path for path in paths if _OPTIMIZED.search(path)), None)
    if found is not None:
        raise InstallError(
            f"{title} installs bytecode for python -O, which need not be that of its source",
            found=found,
            next_step=_BAD_PLUGIN,
        )


def check_path_files(title: str, site: Path, paths: Sequence[str]) -> None:
    """Check that the ``.pth`` files of a distribution add no directory outside of ``site`` to the path.

    What is there is neither locked nor compared, and another user may be able to make it. A wheel that was made of an
    editable installation names a directory of its author's machine.

    Raises:
        InstallError: one does.
    """
    root = os.path.join(os.path.normpath(site), "")
    for path in paths:
        if path.endswith(".pth") and "/" not in path:
            for line in metadata.path_lines(site / path):
                if not os.path.normpath(os.path.join(root, line)).startswith(root):
                    raise InstallError(
                        f"{title} puts a directory on the import path that is not its own",
                        where=path,
                        found=line[:200],
                        next_step=_BAD_PLUGIN,
                    )


def check_declarations(site: Path, known: Collection[Path]) -> None:
    """Check that only ``known`` directories of metadata declare entry points of vLLM.

    Python also lists those of ``.egg-info`` directories, of any case, and of what ``.pth`` files put on the path. No
    lock shows them. The project of an editable plugin, which is elsewhere, may have some.

    Raises:
        InstallError: others do.
    """
    for place in (site, site / overlay.FRONT):
        for name in os.listdir(place) if place.is_dir() else ():
            if name.lower().endswith(_INFORMATION) and place / name not in known:
                _refuse_declarations(importlib.metadata.Distribution.at(place / name), name)
    root = os.path.join(os.path.normpath(site), "")
    for file in site.glob("*.pth"):
        for line in metadata.path_lines(file):
            if (entry := os.path.normpath(site / line)).startswith(root):
                for declared in importlib.metadata.distributions(path=[entry]):
                    _refuse_declarations(declared, f"{line[:200]}, which {file.name} puts on the import path")


def _refuse_declarations(declared: importlib.metadata.Distribution, where: str) -> None:
    try:
        found = ", ".join(f"{name} in {group}" for group, name, _ in metadata.vllm_entry_points(declared))
    except (ValueError, OSError) as error:
        found = f"entry points that can't be read: {error}"
    if found:
        raise InstallError(
            "a distribution declares entry points of vLLM in a place that no lock shows",
            where=where,
            found=found,
            next_step=_BAD_PLUGIN,
        )


def refuse_path_files(front: Path) -> None:
    """Refuse ``.pth`` files of overrides: Python reads them in directories of packages only.

    One in which setuptools declares a namespace package may stay: it has no effect, and without ``__init__.py``
    Python finds the package all the same (PEP 420), also its parts in the base.

    Raises:
        InstallError: there is one.
    """
    files = sorted(path.name for path in front.glob("*.pth") if not _declares_namespaces(path))
    if files:
        raise InstallError(
            "a package that overrides one of the vLLM environment has .pth files, which would have no effect",
            where=", ".join(files),
            next_step=_NOT_OVERRIDDEN,
        )


def _declares_namespaces(path: Path) -> bool:
    """Whether each line of a ``.pth`` file declares a namespace package that has no ``__init__.py``."""
    lines = regular_file.read_text(path, errors="replace").splitlines()
    found = [_NAMESPACE.match(line) for line in lines]
    names = [re.findall(_PART, match[1]) for match in found if match is not None]
    return len(names) == len(lines) and not any(path.parent.joinpath(*name, "__init__.py").exists() for name in names)
