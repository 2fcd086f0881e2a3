"""Metadata-only wheels: how something that must not be fetched is offered to a resolver.

A resolver that meets ``torch @ file:///…/torch-2.13.0+cpu-0_….whl`` as a constraint can take exactly that version,
and reads its metadata from a file of a few hundred bytes. As with built wheels, the build tag is the hash of what the
stub says (PEP 427): so one directory can keep those of any number of environments.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_plugins.core import atomic, hashes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["write"]

_WHEEL = "Wheel-Version: 1.0\nGenerator: vllm-plugin-manager\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write(into: Path, *, name: str, version: str, extras: Iterable[str] = (), requires: Iterable[str] = ()) -> Path:
    """The path of one distribution's stub in a directory; it is written where it is not there, whole.

    Raises:
        OSError: it could not be written.
    """
    escaped = name.replace("-", "_")
    # The file name must say the version as the metadata does, in its normalized form (PEP 440).
    normalized = str(Version(version))
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {normalized}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    data = _archive(f"{escaped}-{normalized}.dist-info", "\n".join(lines) + "\n")
    path = into / f"{escaped}-{normalized}-0_{hashes.sha256(data)[:12]}-py3-none-any.whl"
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == data:
            return path
    atomic.write(path, data, durable=False)
    return path


def _archive(info: str, metadata: str) -> bytes:
    """The same bytes for the same metadata: a ``ZipInfo`` of no more than a name is of the first of January 1980."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr(zipfile.ZipInfo(f"{info}/METADATA"), metadata)
        wheel.writestr(zipfile.ZipInfo(f"{info}/WHEEL"), _WHEEL)
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD"), f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return archive.getvalue()
