"""Verify a published overlay: its files against RECORD, the lock, and the wheels in ``plugins.wheels/``.

The list of files and RECORD are in the store, next to the files that they describe. A wheel in ``plugins.wheels/`` is
not, and its hash is in the lock. With the wheel, the chain from the lock to each file is complete, and its last link
is bytecode: no wheel has its hash, so it is compiled again. Without the wheel, whoever could change bytecode and the
list of files could change the source, too, and compiling it would prove nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.markers import default_environment
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from vllm_plugins.core import bytecode, hashes, regular_file, workers
from vllm_plugins.core.errors import InstallError, NotTrusted
from vllm_plugins.core.hashes import record_form
from vllm_plugins.core.humanize import shortened
from vllm_plugins.documents import markers, selection, versions
from vllm_plugins.packages import archives, metadata
from vllm_plugins.review import _modules
from vllm_plugins.startup import integrity, overlay

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from vllm_plugins.documents.lock import Lock, Package
    from vllm_plugins.startup.marker import Marker

__all__ = ["Report", "refuse_importable", "run"]

_NATIVE = (".so", ".dylib", ".pyd", ".dll")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The result. ``problems`` are differences; ``notes`` are facts about the locked files that a reviewer must know.

    ``anchored`` are the distributions that were compared with their wheels, ``unanchored`` the others. ``size`` is in
    bytes.
    """

    key: str
    files: int
    size: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    anchored: tuple[str, ...]
    unanchored: tuple[str, ...]


def refuse_importable() -> None:
    """Refuse to examine overlays from a process that can import from one: what is examined could run in it.

    Raises:
        NotTrusted: an overlay is on the path of this process, and not only by its guarded name.
    """
    plain = (entry for entry in overlay.entries() if overlay.real(entry) == entry)
    found = next((entry for entry in plain if overlay.key_in(entry) or overlay.front_in(entry)), None)
    if found is not None:
        path = os.environ.get("PYTHONPATH", "")
        named = found in path.split(os.pathsep)
        raise NotTrusted(
            "an overlay is on the path of this command, so its files could decide what the command says about them",
            where=found,
            next_step=f"take {found} out of PYTHONPATH, then run vllm-plugins verify again"
            if named
            else "replace the link, which an earlier release has written: vllm-plugins sync --bake; or remove it: "
            "vllm-plugins sync --unbake",
        )


def run(
    store: Path, marker: Marker, *, lock: Lock, wheels: Path, base_paths: Sequence[str], recompile: bool = False
) -> Report:
    """Verify the overlay of a marker. ``wheels`` is the directory ``plugins.wheels/``.

    With ``recompile``, bytecode of distributions without a wheel there is compared with its source, too.

    Raises:
        HashMismatch: a wheel in that directory is not the locked one, or the overlay's list of files has changed.
    """
    root = overlay.directory(store, marker.key)
    site = root / overlay.SITE
    found = integrity.compare(store, marker)
    digests = integrity.listed(root, marker)
    records = {info: _record(site, info) for info in _infos(site)}
    there = {info: _identity(site, info) for info in records}
    problems = [*found.problems, *_against_records(site, digests, records), *_against_lock(there.values(), lock)]
    anchored = []
    for info, rows in records.items():
        package = lock.package(there[info][0])
        wheel = _wheel(package, wheels) if package is not None else None
        if wheel is not None:
            anchored.append(info)
            place = f"{overlay.FRONT}/" if info.startswith(overlay.FRONT) else ""
            problems += _against_wheel(wheel, _without(place, rows), _without(place, digests))
    # Bytecode of a source that has changed is not a second problem.
    left_out = {problem.partition(": ")[2] for problem in problems}
    left_out |= set() if recompile else _unanchored(records, anchored)
    alone = _without_source(records)
    compiled = [path for path in sorted(digests) if bytecode.source(path) not in left_out and path not in alone]
    problems += _against_source(site, compiled)
    names = {there[info][0] for info in anchored}
    return Report(
        key=marker.key,
        files=found.files,
        size=found.size,
        problems=tuple(dict.fromkeys(problems)),
        notes=tuple(_notes(site, sorted(integrity.files(site)), base_paths, sorted(alone))),
        anchored=tuple(sorted(names)),
        unanchored=tuple(sorted({name for name, _ in there.values()} - names)),
    )


def _infos(site: Path) -> list[str]:
    """The metadata directories of the overlay, also of what overrides packages of the base, relative to ``site``."""
    places = (site, site / overlay.FRONT)
    return sorted(path.relative_to(site).as_posix() for place in places for path in place.glob("*.dist-info"))


def _identity(site: Path, info: str) -> tuple[NormalizedName, str]:
    """Name and version in METADATA; where that is missing or invalid, those in the name of its directory.

    Not every wheel writes that name in normal form: ``my-helper-2024.07.04``, ``helper-1.0_cu12``.
    """
    try:
        found = metadata.parse(regular_file.read_bytes(site / info / "METADATA"), None, where=info)
    except (OSError, InstallError):
        name, _, version = info.rpartition("/")[2].removesuffix(".dist-info").rpartition("-")
        return canonicalize_name(name), version
    return found.name, str(found.version)


def _record(site: Path, info: str) -> dict[str, str]:
    """The hashes in a RECORD, by the path relative to ``site``."""
    place = info.rpartition("/")[0]
    return {os.path.join(place, path): digest for path, digest in _rows(site / info / "RECORD")}


def _rows(record: Path) -> Iterator[tuple[str, str]]:
    try:
        text = regular_file.read_bytes(record).decode("utf-8", "replace")
    except OSError:
        return  # a missing RECORD is reported as a missing file
    with contextlib.suppress(ValueError):  # files of an unreadable RECORD are reported as "in no RECORD"
        yield from _normal(metadata.parse_record(text))


def _normal(entries: Iterable[metadata.RecordEntry]) -> Iterator[tuple[str, str]]:
    return ((os.path.normpath(entry.path), entry.digest) for entry in entries)


def _unanchored(records: Mapping[str, Mapping[str, str]], anchored: Collection[str]) -> set[str]:
    """The files of distributions that were not compared with their wheels, and of no other."""
    found = {path for info, rows in records.items() if info not in anchored for path in rows}
    return found.difference(*(records[info] for info in anchored))


def _without_source(records: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Bytecode that is all there is of a module: the RECORD of its wheel has its hash, and no source."""
    recorded = {path: digest for rows in records.values() for path, digest in rows.items()}
    compiled = (path for path, digest in recorded.items() if digest and path.endswith(".pyc"))
    return {path for path in compiled if bytecode.source(path) not in recorded}


def _against_records(
    site: Path, digests: Mapping[str, str], records: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    # Several RECORD files may name one file. It must be what each says: only one of them may have a wheel at hand.
    owned: dict[str, set[str]] = {}
    for rows in records.values():
        for path, expected in rows.items():
            owned.setdefault(path, set()).add(expected)
    for path, digest in digests.items():
        if path.endswith(".pyc") and bytecode.source(path) in owned:
            continue  # compiled while publishing; see _against_source
        if path not in owned:
            yield f"in no RECORD: {path}"
        elif not all(_agrees(site / path, digest, expected) for expected in owned[path]):
            yield f"differs from RECORD: {path}"
    yield from (f"missing: {path}" for path in owned.keys() - digests.keys())


def _agrees(path: Path, digest: str, expected: str) -> bool:
    """Whether a file, whose sha256 is known, has the hash of a RECORD; RECORD itself and signatures have none."""
    algorithm = expected.partition("=")[0]
    if algorithm in ("", "sha256"):
        return not expected or expected == _record_hash(digest)
    try:
        found = hashlib.new(algorithm, regular_file.read_bytes(path), usedforsecurity=False).digest()
    except (OSError, ValueError):  # the algorithm is unknown
        return False
    return expected == record_form(found, algorithm)


def _record_hash(digest: str) -> str:
    return record_form(bytes.fromhex(digest))


def _against_lock(found: Iterable[tuple[NormalizedName, str]], lock: Lock) -> Iterator[str]:
    there = dict(found)
    for name, version in sorted(there.items()):
        package = lock.package(name)
        if package is None:
            yield f"not in the lock: {name} {version}"
        elif package.directory is None and not _is_same_version(package.version, version):
            yield f"{name}: expected {package.version} (the lock), found {version}"
    environment = {name: str(value) for name, value in default_environment().items()}
    for package in lock.packages:  # its files may be in the RECORD of another one, which has no wheel at hand
        if package.name not in there and markers.applies(package.marker, environment):
            yield f"not installed: {package.name} {package.version}"


def _is_same_version(locked: str, installed: str) -> bool:
    try:
        return Version(locked) == Version(installed)
    except ValueError:
        return locked == installed


def _wheel(package: Package, wheels: Path) -> Path | None:
    """The wheel of a package that this interpreter would install, if the directory contains it."""
    tags = selection.ranks_here().keys()
    for wheel in package.wheels:
        if not tags.isdisjoint(versions.wheel_name(wheel.filename)[3]):
            path = selection.find_wheel(wheels / wheel.filename, wheel.sha256)
            if path is not None:
                return path
    return None


def _without(place: str, values: Mapping[str, str]) -> Mapping[str, str]:
    return {path.removeprefix(place): value for path, value in values.items()} if place else values


def _against_wheel(wheel: Path, rows: Mapping[str, str], digests: Mapping[str, str]) -> Iterator[str]:
    with zipfile.ZipFile(wheel) as archive:
        info = archives.dist_info(archive.namelist())
        recorded = dict(_normal(metadata.record(archive)))
        bare = [path for path in archive.namelist() if recorded.get(path) == ""]
        recorded |= {path: _record_hash(hashes.sha256(archives.member(archive, path))) for path in bare}
    expected, headers, has_scripts = _installed(recorded, info)
    rewritten = {f"{info}/{name}" for name in ("RECORD", *metadata.INSTALLER_NOTES)}
    # Left out where another distribution has another document of that name.
    rewritten |= {path for path in expected.keys() - rows.keys() if metadata.is_stray_document(path)}
    # What RECORD has no hash of is hashed.
    found = {path: row or _record_hash(digests.get(path, "")) for path, row in rows.items()}
    for path, digest in expected.items():
        if path not in rewritten and digest and found.get(path) != digest:
            yield f"differs from its wheel: {path}"
    for path in rows.keys() - expected.keys():
        is_header = path.startswith("include/") and rows[path] in headers
        if not is_header and not (has_scripts and path.startswith("bin/")):
            yield f"not in its wheel: {path}"


def _installed(wanted: Mapping[str, str], info: str) -> tuple[dict[str, str], set[str], bool]:
    """The files of a wheel that the stage keeps, by their place in ``site``, and their hashes.

    The second value has the hashes of headers, whose directory depends on the installer. The third is whether the
    overlay has scripts: in a package that is called ``bin``, they can't be distinguished from its modules.
    """
    data = f"{info.removesuffix('.dist-info')}.data/"
    expected: dict[str, str] = {}
    headers: set[str] = set()
    for path, digest in wanted.items():
        scheme, _, place = path.removeprefix(data).partition("/")
        if not path.startswith(data):
            expected[path] = digest
        elif scheme == "headers":
            headers.add(digest)
        elif scheme != "scripts":
            expected[place] = digest
    has_scripts = "bin/__init__.py" in expected
    if not has_scripts:
        expected = {path: digest for path, digest in expected.items() if not path.startswith("bin/")}
    return expected, headers, has_scripts


def _against_source(site: Path, paths: Sequence[str]) -> list[str]:
    """Bytecode that was not compiled from its source. Bytecode is what runs."""
    compiled = [path for path in paths if path.endswith(".pyc")]
    return workers.in_processes(_not_compiled, compiled, str(site))


def _not_compiled(paths: Sequence[str], site: str) -> list[str]:
    problems = []
    for path in paths:
        source = bytecode.source(path)
        try:
            same = bytecode.is_of(
                regular_file.read_bytes(Path(site, path)), regular_file.read_bytes(Path(site, source)), source
            )
        except OSError:
            same = False
        if not same:
            problems.append(f"not compiled from its source: {path}")
    return problems


def _notes(site: Path, paths: Sequence[str], base_paths: Sequence[str], alone: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path.endswith(".pth") and "/" not in path:
            does = "runs code" if metadata.runs_code(site / path) else "adds paths"
            yield f"{path} {does} when the overlay is activated"
    native = [path for path in paths if path.endswith(_NATIVE) or ".so." in path]
    if native:
        yield f"native libraries: {', '.join(shortened(native, 10))}"
    if alone:
        yield f"bytecode without a source: {', '.join(shortened(alone, 10))}"
    for clash in _modules.clashes(str(site), base_paths):
        if clash.hides:
            owner = "base" if clash.path else "standard library"
            yield f"module {clash.name} is never imported: the {owner} has a module of that name"
        else:
            yield f"package {clash.name} replaces the namespace package of that name in the base"
