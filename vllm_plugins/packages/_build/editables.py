"""Editable wheels (PEP 660): whether the paths in them lead to modules, and to what is still there afterwards."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

from vllm_plugins.core.errors import BuildError
from vllm_plugins.packages import metadata

__all__ = ["are_found", "check_independent"]


def are_found(wheel: Path) -> bool:
    """Whether every module of the entry points is in the wheel, or in a directory that its ``.pth`` files name."""
    values = [value for _, _, value in metadata.inspect(wheel).entry_points]
    modules = {value.partition(":")[0].strip().replace(".", "/") for value in values}
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        texts = [archive.read(name).decode("utf-8", "surrogateescape") for name in names if name.endswith(".pth")]
    directories = [Path(line) for text in texts for line in metadata.directories(text.splitlines())]
    return all(
        any(name.startswith((f"{module}.", f"{module}/__init__.")) for name in names)
        or any(_is_in(directory, module) for directory in directories)
        for module in modules
    )


def check_independent(wheel: Path, environment: Path, plugin: str) -> None:
    """Refuse a wheel whose code names a file of its build environment, which is removed after the build.

    That of meson-python compiles at each import, with the ninja that was there when it was built.

    Raises:
        BuildError: it names one.
    """
    roots = {os.fsencode(environment), os.path.realpath(os.fsencode(environment))}
    named = re.compile(rb"(?:%s)/([^'\"\s]+)" % b"|".join(map(re.escape, roots)))
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            found = named.search(archive.read(name)) if name.endswith((".py", ".pth")) else None
            if found is not None:
                program = os.fsdecode(os.path.basename(found[1]))
                raise BuildError(
                    "the editable plugin would run a program of its build environment, which is removed after "
                    "the build",
                    where=f"{name} of the editable wheel",
                    found=os.fsdecode(found[1]),
                    next_step=f"install {program} as a program of this machine, so that the build uses that one; or "
                    f"set `editable: false` for plugin {plugin!r} in plugins.yaml",
                )


def _is_in(directory: Path, module: str) -> bool:
    """Whether a directory has a module's file: source, or compiled for any interpreter."""
    path = directory / module
    near = path.parent.glob(f"{path.name}.*") if path.parent.is_dir() else ()
    return any(file.suffix in (".py", ".so") for file in (*near, *path.glob("__init__.*")))
