"""Stubs: metadata-only wheels that show a resolver a distribution which it must neither change nor fetch.

A resolver that gets ``torch @ file:///…/torch-2.13.0+cpu-0_….whl`` as a constraint can choose that version only, and
reads its metadata from a file of a few hundred bytes. The build tag contains the hash of the content (PEP 427): one
directory can contain the stubs of any number of environments.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_plugins.core import atomic, hashes, regular_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vllm_plugins.packages.metadata import Metadata

__all__ = ["write", "write_over"]

_WHEEL = "Wheel-Version: 1.0\nGenerator: vllm-plugin-manager\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
# Higher than the number of any build. Of several builds with the same tags, resolvers take the highest.
_LAST_BUILD = 999_999_999


def write(
    into: Path,
    *,
    name: str,
    version: str,
    extras: Iterable[str] = (),
    requires: Iterable[str] = (),
    build: int = 0,
    tags: str = "py3-none-any",
) -> Path:
    """Return the path of a distribution's stub in a directory, written at the first call.

    ``build`` is the number in its build tag. ``tags`` are those in its file name.

    Raises:
        OSError: it can't be written.
    """
    escaped = name.replace("-", "_")
    # Resolvers compare the version of the file name with that of the metadata, both in normal form (PEP 440).
    normal = str(Version(version))
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {normal}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    data = _archive(f"{escaped}-{normal}.dist-info", "\n".join(lines) + "\n")
    path = into / f"{escaped}-{normal}-{build}_{hashes.sha256(data)[:12]}-{tags}.whl"
    with contextlib.suppress(FileNotFoundError):
        if regular_file.read_bytes(path) == data:
            return path
    atomic.write(path, data, durable=False)
    return path


def write_over(into: Path, wheel: str, content: Metadata) -> Path:
    """Write a stub that a resolver takes instead of a wheel of that file name, with the metadata as we read it.

    Raises:
        OSError: it can't be written.
    """
    return write(
        into,
        name=content.name,
        version=str(content.version),
        extras=content.extras,
        requires=content.requires,
        build=_LAST_BUILD,
        tags="-".join(wheel.removesuffix(".whl").split("-")[-3:]),
    )


def _archive(info: str, metadata: str) -> bytes:
    """Return a wheel, the same bytes for the same metadata: a ``ZipInfo`` of a name alone has a fixed date."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr(zipfile.ZipInfo(f"{info}/METADATA"), metadata)
        wheel.writestr(zipfile.ZipInfo(f"{info}/WHEEL"), _WHEEL)
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD"), f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return archive.getvalue()
