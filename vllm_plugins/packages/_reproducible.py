"""Reproducible wheel files: the same content always gives the same bytes.

The archive of a build backend depends on the umask, on times, on the order of directories and on the version of zlib.
Some backends (maturin) add a list of parts (PEP 770) that names the directory of the build. A normalised wheel
depends on none of them.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
from typing import TYPE_CHECKING
from urllib.parse import quote

from vllm_plugins.core.errors import BuildError, DiskError
from vllm_plugins.core.hashes import record_form
from vllm_plugins.packages import archives, metadata
from vllm_plugins.packages.metadata import RecordEntry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["normalise"]

_CHUNK = 1 << 20  # bytes
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest of a zip file
# Signatures of the RECORD that is replaced here. PEP 427 says that nobody may depend on them.
_DROPPED = ("RECORD", "RECORD.jws", "RECORD.p7s")
_BUILT_IN = b"/build"  # in place of the directory of a build
_LONGEST_SBOM = 1 << 26  # bytes


def normalise(wheel: Path, *, project: Path | None = None) -> None:
    """Rewrite a wheel in place: entries sorted, stored without compression, of one date, with modes 0644 or 0755.

    RECORD is written again, from the content, and comes last (PEP 427). ``project`` is the directory in which the
    wheel was built, if the place of that directory means nothing.

    Raises:
        BuildError: it is not a wheel, or a path leads out of it.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = {item.filename: item for item in archive.infolist() if not item.is_dir()}
            info = archives.dist_info(members)
            for name, item in members.items():
                is_link = stat.S_ISLNK(item.external_attr >> 16)
                if name.startswith("/") or ".." in name.split("/") or "\\" in name or is_link:
                    raise _malformed(wheel, f"it contains {name!r}, which leads out of it or is a link")
            for dropped in _DROPPED:
                members.pop(f"{info}/{dropped}", None)
            temporary = wheel.with_suffix(".tmp")
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as rewritten:
                _copy(archive, members, info, rewritten, _place(project))
    except archives.UNREADABLE as error:
        if isinstance(error, OSError) and DiskError.from_os_error(error) is not None:
            raise  # the disk takes no more
        raise _malformed(wheel, str(error)) from error
    os.replace(temporary, wheel)


def _place(project: Path | None) -> re.Pattern[bytes] | None:
    """What names the directory of a build: that of the whole repository, as some of its projects use others there."""
    if project is None:
        return None
    top = next((place for place in (project, *project.parents) if (place / ".git").is_dir()), project)
    paths = (os.fsencode(top), os.path.realpath(os.fsencode(top)))
    forms = {form for path in paths for form in (path, quote(path).encode())}
    return re.compile(b"|".join(map(re.escape, sorted(forms, key=len, reverse=True))))


def _copy(
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    info: str,
    into: zipfile.ZipFile,
    place: re.Pattern[bytes] | None,
) -> None:
    """Copy the members and write RECORD. None but lists of parts is read into memory as a whole."""
    rows = []
    # The metadata comes last, so that reading the end of the file is enough (PEP 427).
    for name in sorted(members, key=lambda name: (name.startswith(f"{info}/"), name)):
        item, digest = members[name], hashlib.sha256()
        entry = _entry(name, executable=bool(item.external_attr >> 16 & 0o111))
        entry.file_size = item.file_size
        is_list = place is not None and name.startswith(f"{info}/sboms/") and item.file_size < _LONGEST_SBOM
        with archive.open(item) as source, into.open(entry, "w") as target:
            while chunk := source.read(_LONGEST_SBOM if is_list else _CHUNK):
                kept = place.sub(_BUILT_IN, chunk) if place is not None and is_list else chunk
                digest.update(kept)
                target.write(kept)
        rows.append(RecordEntry(name, record_form(digest.digest()), str(entry.file_size)))
    text = metadata.format_record([*sorted(rows), RecordEntry(f"{info}/RECORD")])
    into.writestr(_entry(f"{info}/RECORD", executable=False), text)


def _entry(name: str, *, executable: bool) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.create_system = 3  # Unix: the mode counts
    entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
    return entry


def _malformed(wheel: Path, found: str) -> BuildError:
    return BuildError(
        "the build backend made an invalid wheel",
        where=wheel.name,
        found=found,
        next_step="report it to the author of the plugin",
    )
