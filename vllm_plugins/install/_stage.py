"""The stage: an overlay before it is published. It is cleaned, checked against the lock, and compiled.

Installers' caches can contain edited files, and two wheels can bring the same file. Only what the lock and the RECORD
files of the wheels say is published.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic, bytecode, hashes, workers
from vllm_plugins.core.errors import HashMismatch, InstallError
from vllm_plugins.core.humanize import shortened
from vllm_plugins.documents import versions
from vllm_plugins.install._checks import import_path, owners, record_rows
from vllm_plugins.install._checks.owners import BAD_WHEEL, title
from vllm_plugins.packages import metadata, unpacked
from vllm_plugins.packages.metadata import RecordEntry
from vllm_plugins.startup import integrity, overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from io import BufferedReader
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.core.hashes import Sha256
    from vllm_plugins.install._checks.owners import Owner, Rows

__all__ = ["Contents", "Distribution", "check", "check_depth", "clean", "seal"]

_DEEPEST = 100
_PIP_HEADERS = re.compile(r"^include/site/python3\.\d+/")
_OTHER_INSTALLER = "try the other installer: vllm-plugins sync --installer pip, or --installer uv"

_NOBODY: Owner = ("", "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """One distribution in the stage; ``entry_points`` are ``(group, name, value)`` in vLLM's groups."""

    name: NormalizedName
    version: str
    entry_points: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """The distributions in the stage, sorted by name, and the owner of each file.

    ``owners`` has, for each path, the ``.dist-info`` of its distribution and its hash in RECORD: ``sha256=…``, or ""
    for RECORD itself.
    """

    distributions: tuple[Distribution, ...]
    owners: Mapping[str, Owner]


def clean(site: Path) -> Mapping[Path, Rows]:
    """Remove what installers add, and write each RECORD again without it.

    Installers add notes about themselves, and scripts that name this interpreter and are on no PATH. Returns the rows
    of RECORD of each ``.dist-info``, with paths relative to ``site``.

    Raises:
        InstallError: a RECORD can't be read, or names a file outside of ``site``, or one in front of the base that
            may not be there.
    """
    front = site / overlay.FRONT
    found = {info: _clean(site, info) for info in sorted(site.glob("*.dist-info"))}
    for info, rows in found.items():
        import_path.check_plugin(title(info.name), [row.path for row in rows])
    for info in sorted(front.glob("*.dist-info")):
        rows = _clean(front, info)
        import_path.check_override(title(info.name), [row.path for row in rows])
        found[info] = tuple(row._replace(path=f"{overlay.FRONT}/{row.path}") for row in rows)
    import_path.refuse_path_files(front)
    return found


def check(
    site: Path,
    records: Mapping[Path, Rows],
    expected: Mapping[NormalizedName, str | None],
    requirers: Callable[[NormalizedName], Sequence[str]] = lambda _: (),
) -> Contents:
    """Check a cleaned installation against the lock. Nothing is changed; :func:`seal` checks the files' contents.

    ``records`` come from :func:`clean`. ``expected`` is the version of each distribution that must be there; ``None``
    accepts any version (an editable distribution). ``requirers`` gives the plugins that require a distribution.

    Raises:
        InstallError: a distribution is missing, unexpected or of another version; a file is missing, belongs to two
            distributions, or to none.
    """
    owned = owners.of_files(records, requirers)
    found: dict[NormalizedName, Distribution] = {}
    for info, rows in records.items():
        _check_rows(site, info, rows)
        core = metadata.parse(_bytes(info / "METADATA"), _bytes(info / "entry_points.txt"), where=info.name)
        if core.name not in expected or expected[core.name] is not None:  # an editable one names its project
            import_path.check_path_files(title(info.name), site, [row.path for row in rows])
        version = versions.as_written(core.version, expected.get(core.name))
        found[core.name] = Distribution(name=core.name, version=version, entry_points=core.entry_points)
    if differences := sorted(_differences(expected, found)):
        raise InstallError(
            "the installed distributions are not those of the lock", details=differences, next_step=_OTHER_INSTALLER
        )
    if stray := sorted(set(integrity.files(site)) - owned.keys()):
        raise InstallError(
            "the installer left files that belong to no distribution",
            details=shortened(stray, 10),
            next_step=_OTHER_INSTALLER,
        )
    import_path.check_declarations(site, records)
    return Contents(distributions=tuple(found[name] for name in sorted(found)), owners=owned)


def check_depth(site: Path) -> None:
    """Refuse directories in one another without an end: what walks through them may need Python's stack for each.

    Raises:
        InstallError: there are some.
    """
    level = [str(site)]
    for _ in range(_DEEPEST):
        level = [entry.path for place in level for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False)]
        if not level:
            return
    raise InstallError(
        f"a distribution has more than {_DEEPEST} directories in one another",
        where=f"{os.path.relpath(level[0], site)[:80]}…",
        next_step=BAD_WHEEL,
    )


def seal(site: Path, owners: Mapping[str, Owner]) -> str:
    """Check each file against RECORD, compile bytecode, set modes, and write the list of files next to ``site``.

    Returns the sha256 of that list.

    Raises:
        HashMismatch: a file is not the one in its distribution's RECORD.
    """
    there = set(integrity.files(site))
    names = sorted(there - {bytecode.place(name) for name in there if name.endswith(".py")})
    items = [(name, owners.get(name, _NOBODY), owners.get(bytecode.place(name), _NOBODY)) for name in names]
    listed = sorted(workers.in_processes(_seal, items, str(site)))
    for directory, _, _ in os.walk(site.parent):
        os.chmod(directory, 0o755)  # noqa: S103 - vLLM may run as another user, who must be able to read it
    data = (json.dumps(listed, separators=(",", ":")) + "\n").encode()
    atomic.write(site.parent / integrity.FILES, data, durable=False)  # _publish flushes all of the stage at once
    return hashes.sha256(data)


def _seal(items: Iterable[tuple[str, Owner, Owner]], site: str) -> list[tuple[str, Sha256, int]]:
    """Check and compile some files. Returns path, sha256 and size of each and of its bytecode."""
    listed = []
    for name, owner, bytecode_owner in items:
        with open(os.path.join(site, name), "rb") as file:
            source = file.read() if name.endswith(".py") else None
            digest = hashes.of_stream(file) if source is None else hashes.sha256(source)
            _check_hash(file, name, digest, *owner)
            status = os.fstat(file.fileno())
            mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            if stat.S_IMODE(status.st_mode) != mode:
                os.fchmod(file.fileno(), mode)
            listed.append((name, digest, status.st_size))
        if source is not None:
            listed += _compile(source, name, bytecode_owner, site)
    return listed


def _check_hash(file: BufferedReader, name: str, sha256: str, owner: str, expected: str) -> None:
    """Compare an open file, whose sha256 is known, with its hash in RECORD."""
    if not expected:  # RECORD itself, and signatures
        return
    algorithm = expected.partition("=")[0]
    digest = bytes.fromhex(sha256)
    if algorithm != "sha256":
        file.seek(0)
        digest = hashlib.file_digest(file, algorithm).digest()
    found = hashes.record_form(digest, algorithm)
    if found != expected:
        raise HashMismatch(
            f"a file of {title(owner)} is not the one in its wheel",
            where=name,
            expected=expected,
            found=found,
            next_step="vllm-plugins sync --installer pip, which keeps no unpacked files that can be edited; "
            "if it finds the same file, report it to the wheel's author",
        )


def _compile(source: bytes, name: str, owner: Owner, site: str) -> list[tuple[str, Sha256, int]]:
    """Write the bytecode of a source. Returns path, sha256 and size of the bytecode that is there afterwards.

    It replaces bytecode that the wheel brings, which nothing ties to its source. Where the source can't be compiled,
    the wheel's bytecode stays.
    """
    target = bytecode.place(name)
    path = os.path.join(site, target)
    data = bytecode.compiled(source, name)
    if data is None:
        return _seal([(target, owner, _NOBODY)], site) if os.path.isfile(path) else []
    if not bytecode.write(path, data):
        return []  # the wheel has something else at this path
    return [(target, hashes.sha256(data), len(data))]


def _differences(
    expected: Mapping[NormalizedName, str | None], found: Mapping[NormalizedName, Distribution]
) -> Iterable[str]:
    for name in expected.keys() - found.keys():
        yield f"missing: {name}"
    for name in found.keys() - expected.keys():
        yield f"not in the lock: {name} {found[name].version}"
    for name in expected.keys() & found.keys():
        version = expected[name]
        if version is not None and version != found[name].version:
            yield f"{name}: expected {version}, found {found[name].version}"


def _clean(site: Path, info: Path) -> Rows:
    kept: list[RecordEntry] = []
    data, rows = _record(info)
    _check_names(info, rows)
    notes = {f"{info.name}/{name}" for name in metadata.INSTALLER_NOTES}
    is_package = any(row.path == "bin/__init__.py" for row in rows)  # then bin/ is no directory of scripts
    placed = (row._replace(path=_path(site, row.path, info)) for row in rows)
    for row in record_rows.merged(placed, f"{info.name}/RECORD"):
        path = row.path
        if not row.digest and (site / path).is_dir() and not (site / path).is_symlink():
            continue  # some tools list directories, too
        is_script = path.startswith("bin/") and not is_package
        if is_script or path in notes:
            (site / path).unlink(missing_ok=True)
            continue
        kept.append(row)
    if not is_package and (site / "bin").is_dir():
        with contextlib.suppress(OSError):  # it still contains scripts of another distribution
            (site / "bin").rmdir()
    kept.sort()
    cleaned = metadata.format_record(kept).encode()
    if cleaned != data:
        (info / "RECORD").write_bytes(cleaned)
    return tuple(kept)


def _check_names(info: Path, rows: Rows) -> None:
    """Refuse a name with a line break and without quotes: it is two lines of RECORD, one of them without a name."""
    for before, row in itertools.pairwise((RecordEntry(""), *rows)):
        if row.digest and not row.path:
            raise InstallError(
                f"RECORD of {title(info.name)} has a line without the name of a file",
                where=f"{info.name}/RECORD",
                expected="each name that contains a line break in quotes (CSV)",
                found=f"a line with a hash alone, after {before.path!r}",
                next_step=BAD_WHEEL,
            )


def _check_rows(site: Path, info: Path, rows: Rows) -> None:
    """Check that each file in a RECORD is a plain file, with a hash that is strong enough."""
    if info.relative_to(site).joinpath("METADATA").as_posix() not in {path for path, *_ in rows}:
        raise InstallError(
            f"RECORD of {title(info.name)} is not complete",
            where=f"{info.name}/RECORD",
            expected="each file of the distribution, including METADATA",
            found=f"{len(rows)} files",
            next_step="check that the disk is not full (not every installer reports it), then run vllm-plugins sync",
        )
    for path, digest, _ in rows:
        if not _is_plain(os.path.join(site, path)):
            raise InstallError(
                f"a file of {title(info.name)} is not installed as a plain file",
                where=path,
                next_step=_OTHER_INSTALLER,
            )
        algorithm = digest.partition("=")[0]
        if algorithm not in ("", "sha256", "sha384", "sha512"):
            raise InstallError(
                f"RECORD of {title(info.name)} has a hash that is too weak",
                where=path,
                expected="sha256, sha384 or sha512 (PEP 427)",
                found=algorithm,
                next_step=BAD_WHEEL,
            )


def _record(info: Path) -> tuple[bytes, Rows]:
    """The content of RECORD, and its rows."""
    try:
        # Bytes, because reading text would turn "\r\n" into "\n" inside of names, too.
        data = (info / "RECORD").read_bytes()
        return data, metadata.parse_record(data.decode("utf-8"))
    except (OSError, ValueError) as error:
        raise InstallError(
            f"RECORD of {title(info.name)} is missing or can't be read",
            where=str(info / "RECORD"),
            found=str(error),
            next_step=BAD_WHEEL,
        ) from error


def _path(site: Path, path: str, info: Path) -> str:
    return _same_place(site, _relative(unpacked.slashed(site, _relative(path, info)), info))


def _same_place(site: Path, path: str) -> str:
    """The place of a file with either installer: pip puts headers into a directory for its Python."""
    place = _PIP_HEADERS.sub("include/", path)
    if place != path:
        with contextlib.suppress(FileNotFoundError):  # reported as a file that was not installed
            os.renames(site / path, site / place)
    return place


def _relative(path: str, info: Path) -> str:
    """A path of RECORD relative to ``site``."""
    normal = os.path.normpath(metadata.from_target(path))
    if os.path.isabs(normal) or normal.startswith("..") or "\0" in normal:
        raise InstallError(
            f"{title(info.name)} installs a file outside of the overlay", found=path, next_step=BAD_WHEEL
        )
    return normal


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _is_plain(file: str) -> bool:
    return not os.path.islink(file) and os.path.isfile(file)
