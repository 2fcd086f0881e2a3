"""A directory that stands in for a vLLM environment: metadata and tiny modules, put on ``PYTHONPATH``."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from . import projects

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["DISTRIBUTIONS", "distribution", "environment", "unpack"]

DISTRIBUTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    # Name: version, requirements. That vLLM's torch is an older one than it asks for is how real images are.
    "vllm": ("0.32.0", ("torch==2.12.0", "transformers>=4.56")),
    "torch": ("2.13.0+cpu", ("sympy>=1.13",)),
    "transformers": ("4.57.1", ()),
}


def distribution(
    into: Path,
    name: str,
    version: str,
    *,
    requires: Iterable[str] = (),
    extras: Mapping[str, Iterable[str]] | None = None,
    modules: Mapping[str, str] | None = None,
) -> None:
    """Install one distribution into a directory, as an installer would: its files and ``.dist-info``."""
    wheel = projects.wheel(into, name, version, requires=requires, extras=extras, modules=modules)
    unpack(wheel, into)


def unpack(wheel: Path, into: Path) -> None:
    """Lay the files of a wheel into a directory; the wheel is gone then."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into)
    wheel.unlink()


def environment(into: Path, *, without: Iterable[str] = ()) -> Path:
    """Write vLLM and what goes with it into a directory, and return it."""
    into.mkdir(parents=True, exist_ok=True)
    for name, (version, requires) in DISTRIBUTIONS.items():
        if name not in without:
            distribution(into, name, version, requires=requires)
    return into
