"""A release: one version of a distribution at an index, with its files and its metadata."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_plugins.core import hashes
from vllm_plugins.core.errors import DiskError, InstallError, NoResolution, SourceError, archive_errors
from vllm_plugins.documents import selection, versions
from vllm_plugins.packages import archives, cache, metadata, simple_api
from vllm_plugins.packages.index import WHOLE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from packaging.tags import Tag
    from packaging.utils import NormalizedName

    from vllm_plugins.documents.lock import Package
    from vllm_plugins.packages.index import File, Index
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["Pin", "Release", "download", "kept", "read", "read_metadata", "read_requirements"]

_FORM = 2  # entry points as Python itself reads them
_MEMBERS = ("METADATA", "entry_points.txt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """A distribution at one version. ``url`` is the ``file:`` URL of a local wheel or stub, else ``None``."""

    name: NormalizedName
    version: str
    extras: frozenset[NormalizedName]
    url: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """The files of a pin: all ``wheels``, the ``fitting`` one for the machine, and its ``metadata``.

    Where no wheel fits, ``sdist`` is the source to build one from.
    """

    pin: Pin
    wheels: tuple[File, ...]
    fitting: File | None = None
    metadata: Metadata | None = None
    sdist: File | None = None


def read(
    pin: Pin, index: Index, *, tags: Collection[Tag], caches: Path | None, locked: Package | None = None
) -> Release:
    """Read the files of a pin from the index, with their hashes, and the metadata of the wheel that fits best.

    ``tags`` are those of the machine that the lock is for, the best first, or their ranks. Metadata is cached in
    ``caches``. ``locked`` is the package of a lock whose files are kept.

    Raises:
        NoResolution: there is neither a wheel for that machine nor an sdist.
        SourceError: the index can't be read.
    """
    version = Version(pin.version)
    every = [file for file in index.files(pin.name) if simple_api.version(file.filename, pin.name) == version]
    files = [file for file in every if not file.too_young]
    if locked is not None and Version(locked.version) == version:
        files = kept(files, locked, index, tags=tags) or files
    wheels = tuple(index.complete(file) for file in _unique(files) if _is_wheel(file))
    fitting = selection.best_wheel(wheels, tags)
    if fitting is not None:
        return Release(pin=pin, wheels=wheels, fitting=fitting, metadata=read_metadata(fitting, index, caches))
    sdist = next((file for file in files if not file.filename.endswith(simple_api.WHEEL)), None)
    if sdist is None:
        raise NoResolution(
            f"{pin.name} {pin.version} has no wheel for that machine and no sdist to build one from",
            found=", ".join(file.filename for file in wheels)
            or next((f"{file.filename} {file.too_young}" for file in every), "no file of that version"),
            next_step="choose another version of it in plugins.yaml",
        )
    return Release(pin=pin, wheels=wheels, sdist=index.complete(sdist))


def kept(files: Iterable[File], locked: Package, index: Index, *, tags: Collection[Tag]) -> list[File]:
    """Of the files of a locked version, those that the lock has: an index may get more of them later.

    No file is kept where none of the lock's can be used for ``tags``.
    """
    hashes_of = {wheel.sha256 for wheel in locked.wheels}
    names = {wheel.filename for wheel in locked.wheels}

    def is_locked(file: File) -> bool:
        if file.is_local:
            file = index.complete(file)
        return file.filename in names if file.sha256 is None else file.sha256 in hashes_of

    listed = list(files)
    sdists = [file for file in listed if not file.filename.endswith(simple_api.WHEEL)]
    wheels = [file for file in listed if _is_wheel(file) and is_locked(file)]
    is_built = locked.sdist_sha256 is not None and bool(sdists)
    return [*wheels, *sdists] if is_built or selection.best_wheel(wheels, tags) is not None else []


def download(sdist: File, index: Index, into: Path) -> Path:
    """Download an sdist, unpack it, and return the project's directory.

    Raises:
        HashMismatch: the file does not match the hash of the index.
        SourceError: it can't be read, leads out of its directory, or would fill the disk.
    """
    import tarfile

    into.mkdir(parents=True, exist_ok=True)
    archive = index.download(sdist, into)
    unpacked = into / "source"
    try:
        archives.unpack(archive, unpacked)
    except archive_errors(tarfile.TarError) as error:
        if isinstance(error, OSError) and DiskError.from_os_error(error) is not None:
            raise  # the disk takes no more, which is not the author's fault
        raise SourceError(
            "the sdist can't be unpacked",
            where=sdist.url,
            found=f"{type(error).__name__}: {error}",
            next_step="report it to its author, and remove the plugin that needs it from plugins.yaml",
        ) from error
    directories = [entry for entry in unpacked.iterdir() if entry.is_dir()]
    return directories[0] if len(directories) == 1 else unpacked


def read_metadata(file: File, index: Index, caches: Path | None) -> Metadata:
    """Return the metadata of a wheel in normal form. It must agree with the wheel's file name.

    Raises:
        InstallError: it is not valid.
        NoResolution: it does not: pip refuses such a wheel, and uv installs another version than it has locked.
    """
    found = _cached(file, caches)
    if found is None:
        members, pointers = index.members_and_pointers(file, _MEMBERS)
        found = replace(_parsed(members, file), pointers=pointers)
        if caches is not None:
            cache.write(_place(caches, file), found.to_json())
    return _normal(found, file)


def read_requirements(file: File, index: Index, caches: Path | None, *, entry_points: bool = False) -> Metadata:
    """Return the same with as few requests as the index allows, maybe without what a lock needs of a release.

    Pointers of Git LFS are not looked for. The METADATA that an index has apart from a wheel (PEP 658) is enough
    unless ``entry_points`` are needed. Where that is missing or wrong, pip and uv can't read the release, and the
    result ``is_odd``. Raises as :func:`read_metadata`.
    """
    if not entry_points and file.core_metadata is not None and not file.is_local:
        return _separate(file, index, caches) or replace(_of_wheel(file, index, caches), is_odd=True)
    return _of_wheel(file, index, caches)


def _of_wheel(file: File, index: Index, caches: Path | None) -> Metadata:
    if (known := _cached(file, caches)) is not None:
        return _normal(known, file)
    if file.is_local or (file.size is not None and file.size <= WHOLE):
        return read_metadata(index.complete(file), index, caches)  # all of it is read anyway
    return _normal(_parsed(index.members(file, _MEMBERS), file), file)


def _separate(file: File, index: Index, caches: Path | None) -> Metadata | None:
    """The METADATA that the index has apart from a wheel; ``None`` where that can't be read or is wrong."""
    apart = f"{file.url}.metadata"
    place = caches and caches / "metadata" / hashes.sha256(f"{file.core_metadata} {file.sha256} {apart}".encode())
    try:
        found = _known(place)
        if found is None:
            content = index.small(apart, index=file.index)
            if file.core_metadata not in ("", hashes.sha256(content)):
                return None
            found = _parsed({"METADATA": content}, file)
            if place is not None:
                cache.write(place, found.to_json())
        return _normal(found, file)
    except (InstallError, NoResolution, SourceError):
        return None


def _normal(found: Metadata, file: File) -> Metadata:
    name, version, _, _ = versions.wheel_name(file.filename)
    if (found.name, found.version) != (name, version):
        raise NoResolution(
            f"the file name of the wheel {file.filename} does not agree with its metadata",
            where=file.url,
            expected=f"{name} {version} (its file name)",
            found=f"{found.name} {found.version} (its METADATA)",
            next_step="report it to whoever published the wheel, and choose another version in plugins.yaml",
        )
    return metadata.normal_form(found, where=file.filename)


def _parsed(members: Mapping[str, bytes], file: File) -> Metadata:
    return metadata.parse(members.get("METADATA", b""), members.get("entry_points.txt"), where=file.filename)


def _place(caches: Path, file: File) -> Path:
    """Where the cache has the metadata of a wheel: below its hash and URL, and how we read it."""
    return caches / "metadata" / hashes.sha256(f"{_FORM} {file.sha256} {file.url}".encode())


def _cached(file: File, caches: Path | None) -> Metadata | None:
    return None if caches is None else _known(_place(caches, file))


def _known(place: Path | None) -> Metadata | None:
    with contextlib.suppress(ValueError, KeyError, TypeError):  # written by another version of this program
        if place is not None and (text := cache.read(place)) is not None:
            return metadata.from_json(text)
    return None


def _is_wheel(file: File) -> bool:
    return file.filename.endswith(simple_api.WHEEL) and simple_api.is_plain(file.filename)


def _unique(files: Iterable[File]) -> Iterable[File]:
    """Each file name once. Of several places, the first that is not a path of this machine is used."""
    chosen: dict[str, File] = {}
    for file in files:
        known = chosen.get(file.filename)
        if known is None or (known.is_local and not file.is_local):
            chosen[file.filename] = file
    return (chosen[name] for name in sorted(chosen))
