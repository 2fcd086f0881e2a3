"""The wheel of a single file.

Its bytes depend only on the name of the plugin, the file name and the content. So a lock has it as any other wheel,
and everybody can check that it contains the file whose hash the lock says.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from vllm_plugins.core import hashes
from vllm_plugins.core.errors import BuildError
from vllm_plugins.documents.lock import file_package, file_place, file_version
from vllm_plugins.packages import _reproducible, archives
from vllm_plugins.packages.single_files.reading import MAX_BYTES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["content", "write"]

_WHEEL = "Wheel-Version: 1.0\nGenerator: vllm-plugin-manager\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write(into: Path, data: bytes, *, plugin: str, filename: str) -> Path:
    """Write the wheel of a plugin's file into a directory and return its path.

    Raises:
        OSError: it can't be written.
    """
    name, version = file_package(plugin), file_version(hashes.sha256(data))
    escaped = name.replace("-", "_")
    info = f"{escaped}-{version}.dist-info"
    summary = f"The file {filename} of plugin {plugin}"
    into.mkdir(parents=True, exist_ok=True)
    path = into / f"{escaped}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(file_place(plugin, filename), data)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {summary}\n"
        )
        archive.writestr(f"{info}/WHEEL", _WHEEL)
    _reproducible.normalise(path)
    return path


def content(path: Path, *, plugin: str, filename: str) -> bytes:
    """Return the plugin's file in its wheel.

    Raises:
        BuildError: the wheel does not contain it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            item = archive.getinfo(file_place(plugin, filename))
            if item.file_size <= MAX_BYTES:
                return archive.read(item)
            found = f"{item.file_size} bytes"
    except archives.UNREADABLE as error:
        found = str(error)
    raise BuildError(
        f"the wheel of plugin {plugin!r} does not contain its file",
        where=path.name,
        expected=file_place(plugin, filename),
        found=found,
        next_step="restore the wheel from version control, or lock again: vllm-plugins lock",
    )
