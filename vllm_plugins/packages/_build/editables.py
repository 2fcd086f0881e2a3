"""Editable wheels (PEP 660): whether the paths in them lead to the modules of their entry points."""

from __future__ import annotations

import zipfile
from pathlib import Path

from vllm_plugins.packages import metadata

__all__ = ["are_found"]


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


def _is_in(directory: Path, module: str) -> bool:
    """Whether a directory has a module's file: source, or compiled for any interpreter."""
    path = directory / module
    near = path.parent.glob(f"{path.name}.*") if path.parent.is_dir() else ()
    return any(file.suffix in (".py", ".so") for file in (*near, *path.glob("__init__.*")))
