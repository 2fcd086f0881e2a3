"""Interpreters of their own: all that this one has, and more modules in ``site-packages``, without PYTHONPATH."""

from __future__ import annotations

import site
import sysconfig
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import vllm_plugins

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["make"]


def make(directory: Path, *entries: Path, modules: Mapping[str, str] | None = None) -> str:
    """Make a virtual environment that also has these directories on its path, and these modules by file name."""
    venv.EnvBuilder(symlinks=True).create(directory)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(directory)}))
    world = [*site.getsitepackages(), *map(str, entries), str(Path(vllm_plugins.__file__).parents[1])]
    (packages / "a-world.pth").write_text("".join(f"{entry}\n" for entry in world), encoding="utf-8")
    for name, source in (modules or {}).items():
        (packages / name).write_text(source, encoding="utf-8")
    return str(directory / "bin" / "python")
