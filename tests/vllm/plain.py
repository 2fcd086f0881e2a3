"""Plain vLLM: an environment without the manager, with an overlay on ``PYTHONPATH``. It is what we compare ourselves with."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from . import environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.place import Place


OURS = ("vllm_plugins", "vllm_plugin_manager")


def without_manager(python: Path, into: Path) -> Path:
    """A twin of an environment, made of symbolic links, that lacks the manager. Returns its interpreter."""
    (site,) = python.parents[1].glob("lib/python3.*/site-packages")
    twin = into / site.relative_to(python.parents[1])
    twin.mkdir(parents=True)
    for entry in site.iterdir():
        if not entry.name.startswith(OURS):
            (twin / entry.name).symlink_to(entry)
    (into / "bin").mkdir()
    (into / "bin" / "python").symlink_to(os.path.realpath(python))
    for name in ("pyvenv.cfg", environment.imported(python).name):
        shutil.copyfile(python.parents[1] / name, into / name)
    return into / "bin" / "python"


def plain(world: Place, interpreter: Path) -> Place:
    """The same place in plain vLLM, with the overlay that is active."""
    return replace(world, interpreter=str(interpreter), paths=(*world.paths, world.site))
