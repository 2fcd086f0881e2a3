"""The stage: an overlay before it is published. What the installer left there is checked, cleaned and compiled.

Installers' caches can hold edited files, and two wheels can bring the same file; nothing is published that is not
what the wheels' own RECORD files and the lock say.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic, bytecode, hashes, workers
from vllm_plugins.core.errors import HashMismatch, InstallError
from vllm_plugins.packages import metadata
from vllm_plugins.startup import integrity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from io import BufferedReader
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.packages.metadata import RecordEntry

__all__ = ["Checked", "Installed", "check", "finish", "publish"]

# What installers write about themselves. It differs between them, and names paths of this machine.
_LEFTOVERS = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """One distribution in the stage; ``entry_points`` are ``(group, name, value)``, vLLM's groups only."""

    name: NormalizedName
    version: str
    entry_points: tuple[tuple[str, str, str], ...]


Owned = tuple[str, str]
_NOBODYS: Owned = ("", "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What is in the stage, sorted by name.

    ``owned`` has for each file its distribution's ``.dist-info``, and the hash that RECORD has for it: ``sha256=…``,
    or nothing for RECORD itself.
    """

    installed: tuple[Installed, ...]
    owned: Mapping[str, Owned]


def check(site: Path, expected: Mapping[NormalizedName, str | None]) -> Checked:
    """Check that a fresh installation is of what it must be of; :func:`finish`, which reads them, checks the files.

    ``expected`` has the version of every distribution that must be there; ``None`` accepts any (an editable one).

    Raises:
        InstallError: a distribution is missing, is another, or is there without having been asked for; a file
            is missing, belongs to two of them, or to none.
    """
    records = {info: _cleaned(site, info) for info in sorted(site.glob("*.dist-info"))}
    owned = _owned(records)
    found: dict[NormalizedName, Installed] = {}
    for info, rows in records.items():
        _check_rows(site, info, rows)
        told = metadata.parse(_bytes(info / "METADATA"), _bytes(info / "entry_points.txt"), where=info.name)
        found[told.name] = Installed(name=told.name, version=str(told.version), entry_points=told.entry_points)
    if wrong := sorted(_differing(expected, found)):
        raise InstallError(
            "what the installer left is not what the lock says",
            details=wrong,
            next_step="try another installer: VLLM_PLUGIN_INSTALLER=pip, or uv",
        )
    if stray := sorted(set(integrity.files(site)) - owned.keys()):
        raise InstallError(
            "the installer left files that belong to no distribution",
            details=stray[:10],
            next_step="try another installer: VLLM_PLUGIN_INSTALLER=pip, or uv",
        )
    return Checked(installed=tuple(found[name] for name in sorted(found)), owned=owned)


def finish(site: Path, owned: Mapping[str, Owned]) -> str:
    """Check every file against its hash, compile bytecode, make modes sane; write down every file beside ``site``.

    Returns the sha256 of that list.

    Raises:
        HashMismatch: a file is not the one in its distribution's RECORD.
    """
    there = set(integrity.files(site))
    names = sorted(there - {bytecode.place(name) for name in there if name.endswith(".py")})
    items = [(name, owned.get(name, _NOBODYS), owned.get(bytecode.place(name), _NOBODYS)) for name in names]
    listed = sorted(workers.in_processes(_finish, items, str(site)))
    for directory, _, _ in os.walk(site.parent):
        os.chmod(directory, 0o755)  # noqa: S103 - to be read by whichever user vLLM runs as
    data = (json.dumps(listed, separators=(",", ":")) + "\n").encode()
    atomic.write(site.parent / integrity.FILES, data)
    return hashes.sha256(data)


def _finish(items: Iterable[tuple[str, Owned, Owned]], site: str) -> list[tuple[str, str, int]]:
    """Check and compile some files; path, sha256 and size of them and of their bytecode."""
    found = []
    for name, owned, bytecode_owned in items:
        with open(os.path.join(site, name), "rb") as file:
            source = file.read() if name.endswith(".py") else None
            digest = hashes.of_stream(file) if source is None else hashes.sha256(source)
            _check(file, name, digest, *owned)
            os.fchmod(file.fileno(), 0o755 if os.fstat(file.fileno()).st_mode & stat.S_IXUSR else 0o644)
            found.append((name, digest, os.fstat(file.fileno()).st_size))
        if source is not None:
            found += _with_bytecode(source, name, bytecode_owned, site)
    return found


def _check(file: BufferedReader, name: str, sha256: str, owner: str, wanted: str) -> None:
    """Compare an open file, whose sha256 is known, with its hash in RECORD."""
    if not wanted:  # RECORD itself, and signatures
        return
    algorithm = wanted.partition("=")[0]
    digest = bytes.fromhex(sha256)
    if algorithm != "sha256":
        file.seek(0)
        digest = hashlib.file_digest(file, algorithm).digest()
    found = hashes.record_form(digest, algorithm)
    if found != wanted:
        raise HashMismatch(
            f"{owner}: a file is not the one that the wheel holds",
            where=name,
            expected=wanted,
            found=found,
            next_step="the installer's cache may hold an edited file: clear it (pip cache purge), then sync",
        )


def _with_bytecode(source: bytes, name: str, owned: Owned, site: str) -> list[tuple[str, str, int]]:
    """Write a source's bytecode, in place of a wheel's own, which is not believed; returns what there is then.

    A wheel's own stays where its source can't be compiled.
    """
    target = bytecode.place(name)
    path = os.path.join(site, target)
    data = bytecode.compiled(source, name)
    if data is None:
        return _finish([(target, owned, _NOBODYS)], site) if os.path.isfile(path) else []
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return []  # the wheel has something else in its place
    return [(target, hashes.sha256(data), len(data))]


def publish(new: Path, target: Path, *, aside: Path) -> None:
    """Put a complete overlay in its place: the commit point, one rename.

    One that is there already (it is to be installed again, or has no marker) changes places with the new one, which
    is at ``aside`` by then: whenever we are killed, what processes may hold lies where it is looked for.
    """
    try:
        os.rename(new, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        os.makedirs(aside.parent, exist_ok=True)
        os.rename(new, aside)
        _exchange(aside, target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, two: Path) -> None:
    """Let two directories change places in one step (renameat2(2)); in three where the system can't."""
    function = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if function is None or function(here, os.fsencode(one), here, os.fsencode(two), exchange) != 0:
        between = one.with_name(f"{one.name}.old")
        os.rename(two, between)
        os.rename(one, two)
        os.rename(between, one)


def _differing(expected: Mapping[NormalizedName, str | None], found: Mapping[NormalizedName, Installed]) -> set[str]:
    wrong = {f"missing: {name}" for name in expected.keys() - found.keys()}
    wrong |= {f"not in the lock: {name} {found[name].version}" for name in found.keys() - expected.keys()}
    for name in expected.keys() & found.keys():
        wanted = expected[name]
        if wanted is not None and wanted != found[name].version:
            wrong.add(f"{name}: expected {wanted}, found {found[name].version}")
    return wrong


def _cleaned(site: Path, info: Path) -> list[RecordEntry]:
    """The rows of a distribution's RECORD, with paths as they lie under ``site``.

    What installers add is taken out: their notes, and scripts, which name this interpreter and are on no PATH.
    """
    kept: list[RecordEntry] = []
    rows = _record(info)
    scripts = not any(row.path == "bin/__init__.py" for row in rows)
    for row in rows:
        path = _place(row.path, info)
        if (path.startswith("bin/") and scripts) or (
            path.startswith(f"{info.name}/") and path.rpartition("/")[2] in _LEFTOVERS
        ):
            (site / path).unlink(missing_ok=True)
            continue
        kept.append(row._replace(path=path))
    if scripts and (site / "bin").is_dir():
        with contextlib.suppress(OSError):  # another distribution's scripts are still in it
            (site / "bin").rmdir()
    return sorted(kept)


def _owned(records: Mapping[Path, list[RecordEntry]]) -> dict[str, Owned]:
    """Every file that a distribution has; two of them can't have one file with two contents."""
    owned: dict[str, Owned] = {}
    for info, rows in records.items():
        for path, digest, _ in rows:
            other, others_digest = owned.setdefault(path, (info.name, digest))
            # The same bytes twice do no harm: nvidia/__init__.py is in a dozen wheels.
            if digest == others_digest:
                continue
            if other == info.name:
                raise InstallError(
                    f"{info.name}: RECORD has two hashes for a file",
                    where=path,
                    next_step="report it to the plugin's author, and leave the plugin out",
                )
            raise InstallError(
                f"two distributions own the file {path}",
                found=f"{_stem(other)} and {_stem(info.name)}",
                next_step="leave one of the plugins that need them out of plugins.yaml",
            )
    return owned


def _stem(info: str) -> str:
    return info.removesuffix(".dist-info").replace("-", " ")


def _check_rows(site: Path, info: Path, rows: list[RecordEntry]) -> None:
    """Check that every file of a distribution is there, and has a hash that counts. RECORD is written anew."""
    if f"{info.name}/METADATA" not in {row.path for row in rows}:
        raise InstallError(
            f"{info.name}: its RECORD is not whole",
            where=f"{info.name}/RECORD",
            expected="every file of the distribution, METADATA among them",
            found=f"{len(rows)} files",
            next_step="look whether the disk is full, which not every installer says, and sync again",
        )
    for path, digest, _ in rows:
        if not _is_plain(os.path.join(site, path)):
            raise InstallError(
                f"{info.name}: a file of the wheel was not installed", where=path, next_step="vllm-plugins sync"
            )
        algorithm = digest.partition("=")[0]
        if algorithm not in ("", "sha256", "sha384", "sha512"):
            raise InstallError(
                f"{info.name}: RECORD has a hash that does not count",
                where=path,
                expected="sha256 or better (PEP 427)",
                found=algorithm,
                next_step="report it to the plugin's author, and leave the plugin out",
            )
    with open(info / "RECORD", "w", encoding="utf-8", newline="") as file:
        file.write(metadata.format_record(rows))


def _record(info: Path) -> tuple[RecordEntry, ...]:
    try:
        # Bytes, because reading text would turn "\r\n" into "\n" inside of names, too.
        return metadata.parse_record((info / "RECORD").read_bytes().decode("utf-8"))
    except (OSError, ValueError) as error:
        raise InstallError(
            f"{info.name} has no readable RECORD",
            where=str(info / "RECORD"),
            found=str(error),
            next_step="report it to the plugin's author: a wheel must have one (PEP 427)",
        ) from error


def _place(path: str, info: Path) -> str:
    """Where a file of RECORD lies under ``site``. pip writes paths as of its own temporary ``lib/python``."""
    normal = os.path.normpath(path.removeprefix("../../"))
    if os.path.isabs(normal) or normal.startswith("..") or "\0" in normal:
        raise InstallError(
            f"{info.name} installs a file outside of the overlay",
            found=path,
            next_step="report it to the plugin's author, and leave the plugin out",
        )
    return normal


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _is_plain(file: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(file).st_mode)
    except OSError:
        return False
