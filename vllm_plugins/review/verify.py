"""Verifying a published overlay: its files against the wheels' RECORD, the lock, and the wheels that are at hand.

What was written down while publishing lies in the store beside what it describes. A wheel in ``plugins.wheels/`` does
not, and its hash is in the lock: with it, the chain from the lock to the file is whole.
"""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.tags import sys_tags
from packaging.utils import NormalizedName, canonicalize_name, parse_wheel_filename

from vllm_plugins.core import bytecode, workers
from vllm_plugins.core.hashes import record_form
from vllm_plugins.documents import selection
from vllm_plugins.packages import archives, metadata
from vllm_plugins.startup import integrity, overlay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from vllm_plugins.documents.lock import Lock, Package
    from vllm_plugins.startup.marker import Marker

__all__ = ["Report", "run"]

_NATIVE = (".so", ".dylib", ".pyd", ".dll")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was found. ``problems`` are differences; ``notes`` what is as locked, and what an audit must know.

    ``anchored`` are the distributions that were compared with their own wheels, ``unanchored`` the others.
    ``size`` is in bytes.
    """

    key: str
    files: int
    size: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    anchored: tuple[str, ...]
    unanchored: tuple[str, ...]


def run(store: Path, marker: Marker, *, lock: Lock, wheels: Path, base_paths: Sequence[str]) -> Report:
    """Verify the overlay of a marker. ``wheels`` is the directory of the wheels that are at hand.

    Raises:
        HashMismatch: a wheel there is not the locked one, or the overlay's own list of files is another.
    """
    root = overlay.directory(store, marker.key)
    site = root / overlay.SITE
    found = integrity.compare(store, marker)
    digests = integrity.listed(root, marker)
    records = {info: dict(_rows(site / info / "RECORD")) for info in _infos(site)}
    problems = [*found.problems, *_against_records(digests, records), *_against_lock(records, lock)]
    anchored = []
    for info, rows in records.items():
        package = lock.package(_name(info))
        wheel = _wheel(package, wheels) if package is not None else None
        if wheel is not None:
            anchored.append(_name(info))
            problems += _against_wheel(wheel, rows)
    unlike = {problem.partition(": ")[2] for problem in problems}
    problems += _against_source(site, [path for path in sorted(digests) if bytecode.source(path) not in unlike])
    return Report(
        key=marker.key,
        files=found.files,
        size=found.size,
        problems=tuple(dict.fromkeys(problems)),
        notes=tuple(_notes(site, sorted(integrity.files(site)), base_paths)),
        anchored=tuple(sorted(anchored)),
        unanchored=tuple(sorted({_name(info) for info in records} - set(anchored))),
    )


def _infos(site: Path) -> list[str]:
    return sorted(path.name for path in site.glob("*.dist-info"))


def _name(info: str) -> NormalizedName:
    return canonicalize_name(info.partition("-")[0])


def _rows(record: Path) -> Iterator[tuple[str, str]]:
    try:
        text = record.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return  # it is missing, which is a problem that was named already
    with contextlib.suppress(ValueError):  # an invalid RECORD owns nothing, and every file becomes a problem
        yield from _normal(metadata.parse_record(text))


def _normal(entries: Iterable[metadata.RecordEntry]) -> Iterator[tuple[str, str]]:
    return ((os.path.normpath(entry.path), entry.digest) for entry in entries)


def _against_records(digests: Mapping[str, str], records: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    owned: dict[str, str] = {}
    for rows in records.values():
        owned.update(rows)
    for path, digest in digests.items():
        if path.endswith(".pyc") and bytecode.source(path) in owned:
            continue  # compiled while publishing, and compared with its source
        if path not in owned:
            yield f"in no RECORD: {path}"
        elif owned[path].startswith("sha256=") and owned[path] != _record_hash(digest):
            yield f"not as its RECORD says: {path}"
    yield from (f"missing: {path}" for path in owned.keys() - digests.keys())


def _record_hash(digest: str) -> str:
    return record_form(bytes.fromhex(digest))


def _against_lock(records: Iterable[str], lock: Lock) -> Iterator[str]:
    there = {_name(info): info.removesuffix(".dist-info").partition("-")[2] for info in records}
    for name, version in sorted(there.items()):
        package = lock.package(name)
        if package is None:
            yield f"not in the lock: {name} {version}"
        elif package.directory is None and package.version != version:
            yield f"another version than the lock's: {name} {version}, locked is {package.version}"


def _wheel(package: Package, wheels: Path) -> Path | None:
    """The wheel of a package that this interpreter would install, if it lies in the directory."""
    tags = set(sys_tags())
    for wheel in package.wheels:
        if not tags.isdisjoint(parse_wheel_filename(wheel.filename)[3]):
            path = selection.find_wheel(wheels / wheel.filename, wheel.sha256)
            if path is not None:
                return path
    return None


def _against_wheel(wheel: Path, rows: Mapping[str, str]) -> Iterator[str]:
    with zipfile.ZipFile(wheel) as archive:
        record = f"{archives.dist_info(archive.namelist())}/RECORD"
        wanted = dict(_normal(metadata.record(archive)))
    spread = False
    for path, digest in wanted.items():
        head, _, rest = path.partition("/")
        if head.endswith(".data"):
            spread = True  # where its scripts and data lie, the installer decides
            scheme, _, path = rest.partition("/")  # noqa: PLW2901 - the place of the same file
            if scheme not in ("purelib", "platlib"):
                continue
        if path != record and digest and rows.get(path) != digest:
            yield f"not as its wheel has it: {path}"
    if not spread:
        yield from (
            f"not in its wheel: {path}" for path in rows.keys() - wanted.keys() if not path.startswith("bin/")
        )


def _against_source(site: Path, paths: Sequence[str]) -> list[str]:
    """Bytecode that is not what its source compiles to; it is what runs."""
    compiled = [path for path in paths if path.endswith(".pyc")]
    return workers.in_processes(_differing, compiled, str(site))


def _differing(paths: Sequence[str], site: str) -> list[str]:
    problems = []
    for path in paths:
        source = bytecode.source(path)
        try:
            same = bytecode.is_of(Path(site, path).read_bytes(), Path(site, source).read_bytes(), source)
        except OSError:
            same = False
        if not same:
            problems.append(f"not what its source compiles to: {path}")
    return problems


def _notes(site: Path, paths: Sequence[str], base_paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path.endswith(".pth") and "/" not in path:
            text = (site / path).read_text(encoding="utf-8", errors="replace")
            runs = any(line.startswith(("import ", "import\t")) for line in text.splitlines())
            yield f"{path} {'runs code' if runs else 'adds paths'} when the overlay is made active"
    native = [path for path in paths if path.endswith(_NATIVE) or ".so." in path]
    if native:
        yield f"native libraries: {', '.join(integrity.shown(native, 10))}"
    base = {name: kind for entry in reversed(base_paths) for name, kind in _top_level(entry).items()}
    for name, kind in sorted(_top_level(str(site)).items()):
        if name in sys.stdlib_module_names:
            yield f"the standard library has a module {name}, too; the overlay's is never imported"
        elif base.get(name) == "namespace" and kind == "package":
            yield f"the base has a namespace package {name}, too; the overlay's takes its place"
        elif name in base and (base[name], kind) != ("namespace", "namespace"):
            yield f"the base has {name}, too; the overlay's is never imported"


def _top_level(directory: str) -> dict[str, str]:
    """The importable names of a path entry: each a ``package``, a ``namespace`` package or a ``module``."""
    found = {}
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return {}
    for entry in entries:
        name = entry.name.partition(".")[0]
        if entry.name.endswith((".dist-info", ".egg-info", ".pth")) or not name.isidentifier():
            continue
        if entry.name == name and entry.is_dir() and name != "__pycache__":
            here = os.path.exists(os.path.join(entry.path, "__init__.py"))
            found[name] = "package" if here else "namespace"
        elif entry.name.endswith((".py", ".so")):
            found[name] = "module"
    return found
