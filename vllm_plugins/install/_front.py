"""The directory of a stage that comes before the base on the path: what may be in it.

A module there replaces the base's module of the same name, so a plugin's wheel must not put files there, and a wheel
of one package must not replace another one that can't be overridden.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import InstallError
from vllm_plugins.documents.overrides import FIXED_MODULES, WHY_FIXED
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["check_override", "check_plugin", "refuse_path_files"]

_NOT_OVERRIDDEN = (
    "remove it from `overrides` in plugins.yaml and run vllm-plugins lock, or use an environment that has such a "
    "version"
)


def check_plugin(title: str, paths: Iterable[str]) -> None:
    """Check that a plugin's distribution has no file in that directory. ``paths`` are relative to ``site``.

    Raises:
        InstallError: it has one, which would replace a module of the base.
    """
    found = next((path for path in paths if path.partition("/")[0] == overlay.FRONT), None)
    if found is not None:
        raise InstallError(
            f"{title} installs a file into the directory for overrides",
            found=found,
            next_step="report it to the plugin's author, and set `enabled: false` for the plugin in plugins.yaml",
        )


def check_override(title: str, paths: Iterable[str]) -> None:
    """Check that an override has no module of vLLM, Python or the manager. ``paths`` are relative to the directory.

    Raises:
        InstallError: it has one.
    """
    fixed = FIXED_MODULES | sys.stdlib_module_names
    found = next((path for path in paths if path.partition("/")[0].partition(".")[0] in fixed), None)
    if found is not None:
        raise InstallError(
            f"{title} overrides a module that is not its own",
            found=found,
            details=[WHY_FIXED],
            next_step=_NOT_OVERRIDDEN,
        )


def refuse_path_files(front: Path) -> None:
    """Refuse ``.pth`` files of overrides: Python reads them in directories of packages only.

    Raises:
        InstallError: there is one.
    """
    files = sorted(path.name for path in front.glob("*.pth"))
    if files:
        raise InstallError(
            "a package that overrides one of the vLLM environment has .pth files, which would have no effect",
            where=", ".join(files),
            next_step=_NOT_OVERRIDDEN,
        )
