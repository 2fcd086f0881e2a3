"""The bundle: every wheel that a lock names, for the machines that it was made for, beside the lock.

With it, an installation needs no index. Hashes make it the same one: a wheel counts by its sha256 alone.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import parse_wheel_filename

from vllm_plugins.core import atomic
from vllm_plugins.core.errors import InstallError, PluginsError, StoreError
from vllm_plugins.core.humanize import count, size
from vllm_plugins.documents import selection
from vllm_plugins.packages.index import File

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from packaging.tags import Tag

    from vllm_plugins.documents.lock import Lock, Package, Target, Wheel
    from vllm_plugins.packages.index import Index

__all__ = ["Bundle", "make", "wanted"]

_ARCHITECTURES = ("x86_64", "aarch64", "ppc64le", "s390x", "riscv64", "armv7l", "i686")
_INTERPRETER = re.compile(r"(py|cp)3([0-9]{0,3})")
_THREADS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """What a directory of wheels has come to: sorted file names, and the bytes of all that the lock names."""

    directory: Path
    fetched: tuple[str, ...]
    kept: tuple[str, ...]
    stale: tuple[str, ...]
    size: int


def wanted(lock: Lock) -> tuple[tuple[Package, Wheel], ...]:
    """The wheels of a lock that one of its targets could install, each with its package.

    How old a C library the target has, the lock does not say: then each that may fit is there.
    """
    return tuple(
        (package, wheel)
        for package in lock.packages
        for wheel in package.wheels
        if any(_fits(tag, target) for tag in parse_wheel_filename(wheel.filename)[3] for target in lock.targets)
    )


def make(
    lock: Lock,
    directory: Path,
    *,
    beside: Path,
    index: Callable[[], Index],
    prune: bool = False,
    report: Callable[[str], None],
) -> Bundle:
    """Fill a directory with the wheels of a lock. ``beside`` is ``plugins.wheels/``, where built wheels lie.

    ``index`` is asked for only where something is to be fetched. With ``prune``, wheels that the lock does not name
    are removed.

    Raises:
        HashMismatch: a wheel there, or one that was fetched, is not the locked one.
        InstallError: a built wheel is not there.
        SourceError: a wheel can't be fetched; those that were stay, and the next run goes on from there.
        StoreError: the directory can't be written.
    """
    pairs = wanted(lock)
    absent = [pair for pair in pairs if not selection.find_wheel(directory / pair[1].filename, pair[1].sha256)]
    names = {wheel.filename for _, wheel in pairs}
    try:
        atomic.make_directory(directory)
        built = [(package, wheel) for package, wheel in absent if wheel.url is None]
        _copy_built(built, lock, directory, beside)
        remote = [(package, wheel) for package, wheel in absent if wheel.url is not None]
        if remote:
            report(f"Fetching {count(len(remote), 'wheel')}, {size(sum(wheel.size for _, wheel in remote))}")
            with index() as opened:
                _fetch(remote, lock, directory, opened)
        stale = sorted(path for path in directory.glob("*.whl") if path.name not in names)
        if prune:
            for path in stale:
                path.unlink()
    except OSError as error:
        raise StoreError(
            "the bundle can't be written",
            where=str(error.filename or directory),
            found=error.strerror or str(error),
            next_step="name a directory that this user can write, with -o",
        ) from error
    fetched = sorted(wheel.filename for _, wheel in absent)
    return Bundle(
        directory=directory,
        fetched=tuple(fetched),
        kept=tuple(sorted(names - set(fetched))),
        stale=tuple(path.name for path in stale),
        size=sum(wheel.size for _, wheel in pairs),
    )


def _copy_built(built: Iterable[tuple[Package, Wheel]], lock: Lock, directory: Path, beside: Path) -> None:
    missing = []
    for package, wheel in built:
        path = selection.find_wheel(beside / wheel.filename, wheel.sha256) if directory != beside else None
        if path is None:
            missing.append(f"{wheel.filename}, of {_askers(lock, package)}")
            continue
        atomic.write(directory / wheel.filename, path.read_bytes())
    if missing:
        raise InstallError(
            f"{beside.name}/ lacks {count(len(missing), 'built wheel')}",
            where=str(beside),
            details=missing,
            next_step="take them from version control, or run vllm-plugins lock, which builds what is missing",
        )


def _fetch(remote: Iterable[tuple[Package, Wheel]], lock: Lock, directory: Path, index: Index) -> None:
    def fetch(pair: tuple[Package, Wheel]) -> None:
        package, wheel = pair
        assert wheel.url is not None
        file = File(filename=wheel.filename, url=wheel.url, sha256=wheel.sha256, size=wheel.size)
        try:
            index.download(file, directory).chmod(0o644)
        except PluginsError as error:
            error.required_by = _askers(lock, package)
            raise

    pool = ThreadPoolExecutor(max_workers=_THREADS)
    try:
        for future in [pool.submit(fetch, pair) for pair in remote]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _askers(lock: Lock, package: Package) -> str:
    names = ", ".join(map(repr, lock.plugins_needing(package.name)))
    return f"{package.name} {package.version} for plugin {names}"


def _fits(tag: Tag, target: Target) -> bool:
    return _fits_python(tag, target) and _fits_platform(tag, target)


def _fits_python(tag: Tag, target: Target) -> bool:
    minor = int(target.python.partition(".")[2])
    match = _INTERPRETER.fullmatch(tag.interpreter)
    if match is None:
        return False
    number = int(match[2] or 0)
    if match[1] == "py":
        return number <= minor
    return number == minor or (tag.abi in ("abi3", "none") and number <= minor)


def _fits_platform(tag: Tag, target: Target) -> bool:
    if tag.platform == "any":
        return True
    architecture = next((name for name in _ARCHITECTURES if target.platform.endswith(name)), None)
    if architecture is None:
        return True  # a kind that is not known here: rather one too many
    musl = "musl" in target.platform
    return tag.platform.endswith(f"_{architecture}") and ("musl" in tag.platform) == musl and "linux" in tag.platform
