"""Metadata-only wheels: how something that must not be fetched is offered to a resolver.

A resolver that meets ``torch @ file:///…/torch-2.13.0+cpu-py3-none-any.whl`` as a constraint can take exactly that
version, and reads its metadata from a file of a few hundred bytes.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["write"]

_WHEEL = "Wheel-Version: 1.0\nGenerator: vllm-plugin-manager\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write(into: Path, *, name: str, version: str, extras: Iterable[str] = (), requires: Iterable[str] = ()) -> Path:
    """Write the stub of one distribution into a directory and return its path."""
    escaped = name.replace("-", "_")
    # The file name must say the version as the metadata does, in its normalized form (PEP 440).
    normalized = str(Version(version))
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {normalized}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    path = into / f"{escaped}-{normalized}-py3-none-any.whl"
    info = f"{escaped}-{normalized}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        wheel.writestr(f"{info}/WHEEL", _WHEEL)
        wheel.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path
