"""The bundle: a directory with each wheel of a lock, for the targets of the lock.

It may also have the wheels with which locked wheels were built, to build them again without an index. With a bundle,
an installation needs no index, and gives the same result: a wheel is identified by its sha256 alone.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic, progress
from vllm_plugins.core.errors import InstallError, PluginsError, StoreError
from vllm_plugins.core.humanize import count, size
from vllm_plugins.documents import selection, versions
from vllm_plugins.documents.lock import BuildRequirement, Package, Wheel, in_words
from vllm_plugins.packages import downloads, simple_api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from packaging.tags import Tag

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.lock import Lock, Target
    from vllm_plugins.packages.index import Index

__all__ = ["Bundle", "make", "wanted", "wanted_by_builds"]

_ARCHITECTURES = ("x86_64", "aarch64", "ppc64le", "s390x", "riscv64", "armv7l", "i686")
_INTERPRETER = re.compile(r"(py|cp)3([0-9]{0,3})")
_LOCK = "vllm-plugins lock --upgrade-package"
_THREADS = 8
_Pair = tuple[Package | BuildRequirement, Wheel]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """The result: sorted file names, and the ``size`` in bytes of all wheels that the lock names.

    ``kept`` were there already, ``stale`` are wheels that the lock does not name.
    """

    directory: Path
    fetched: tuple[str, ...]
    kept: tuple[str, ...]
    stale: tuple[str, ...]
    size: int


def wanted(lock: Lock) -> tuple[tuple[Package, Wheel], ...]:
    """The wheels of a lock that one of its targets could install, each with its package.

    The lock doesn't say which C library a target has, so each wheel that may fit is included.
    """
    return tuple(
        (package, wheel)
        for package in lock.packages
        for wheel in package.wheels
        if any(_fits(tag, target) for tag in versions.wheel_name(wheel.filename)[3] for target in lock.targets)
    )


def wanted_by_builds(lock: Lock) -> tuple[tuple[BuildRequirement, Wheel], ...]:
    """The wheels of an index with which one of the targets builds the locked wheels, each with its requirement."""
    return tuple(
        (item, wheel)
        for item in lock.build_requirements
        for wheel in item.wheels
        if wheel.url is not None
        and any(_fits(tag, target) for tag in versions.wheel_name(wheel.filename)[3] for target in lock.targets)
    )


def make(
    lock: Lock,
    directory: Path,
    *,
    built_wheels: Path,
    index: Callable[[], Index],
    prune: bool = False,
    builds: bool = False,
    others: Iterable[Lock] = (),
    reporter: Reporter,
) -> Bundle:
    """Fill a directory with the wheels of a lock. ``built_wheels`` is ``plugins.wheels/``.

    ``index`` is called only if something must be downloaded. With ``prune``, wheels that the lock does not name are
    removed. ``builds`` adds the wheels of build requirements. ``others`` are the locks of its other targets, whose
    wheels stay.

    Raises:
        HashMismatch: a wheel in the directory, or a downloaded one, is not the locked one.
        InstallError: a built wheel is missing.
        SourceError: a download failed. Wheels that were downloaded stay, and so does the part of a large
            one, and the next run continues from there.
        StoreError: the directory can't be written, or is ``built_wheels`` and a symbolic link.
    """
    pairs: list[_Pair] = [*wanted(lock), *(wanted_by_builds(lock) if builds else ())]
    names = {wheel.filename for _, wheel in pairs}
    try:
        absent = [pair for pair in pairs if not selection.find_wheel(directory / pair[1].filename, pair[1].sha256)]
        (atomic.make_own_directory if directory == built_wheels else atomic.make_directory)(directory)
        built = [(package, wheel) for package, wheel in absent if wheel.url is None and isinstance(package, Package)]
        _copy_built(built, lock, directory, built_wheels)
        remote = [(package, wheel) for package, wheel in absent if wheel.url is not None]
        if remote:
            whole = sum(wheel.size for _, wheel in remote)
            text = f"Downloading {count(len(remote), 'wheel')}, {size(whole)}"
            with reporter.step(text, total=len(remote)) as step, index() as opened:
                _fetch(remote, lock, directory, opened, step)
        downloads.sweep(directory, frozenset(wheel.sha256 for _, wheel in absent))
        every = (pair for one in (lock, *others) for pair in (*wanted(one), *wanted_by_builds(one)))
        known = {wheel.filename for _, wheel in every}
        stale = sorted(path for path in directory.glob("*.whl") if path.name not in known)
        if prune:
            for path in stale:
                path.unlink()
    except OSError as error:
        raise StoreError(
            "the bundle can't be written",
            where=str(error.filename or directory),
            found=error.strerror or str(error),
            next_step="choose a directory that this user can write: vllm-plugins bundle -o DIRECTORY",
        ) from error
    fetched = sorted(wheel.filename for _, wheel in absent)
    return Bundle(
        directory=directory,
        fetched=tuple(fetched),
        kept=tuple(sorted(names - set(fetched))),
        stale=tuple(path.name for path in stale),
        size=sum(wheel.size for _, wheel in pairs),
    )


def _copy_built(built: Iterable[tuple[Package, Wheel]], lock: Lock, directory: Path, built_wheels: Path) -> None:
    missing = []
    for package, wheel in built:
        path = (
            selection.find_wheel(built_wheels / wheel.filename, wheel.sha256) if directory != built_wheels else None
        )
        if path is None:
            missing.append(f"{wheel.filename}, of {_required_by(lock, package)}")
            continue
        atomic.copy(path, directory / wheel.filename)
    if missing:
        raise InstallError(
            f"{count(len(missing), 'built wheel')} missing in {built_wheels.name}/",
            where=str(built_wheels),
            details=missing,
            next_step="take them from version control, or build them: VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle",
        )


def _fetch(
    remote: Iterable[_Pair],
    lock: Lock,
    directory: Path,
    index: Index,
    step: progress.Step,
) -> None:
    def fetch(pair: _Pair) -> None:
        package, wheel = pair
        file = simple_api.locked(wheel, package.index)
        try:
            index.download(file, directory, durable=True)
            step.advance()
        except PluginsError as error:
            error.required_by = _required_by(lock, package)
            if isinstance(package, Package):
                again = f"{_LOCK} {package.name}"
                error.next_step = (
                    f"{error.next_step}; if its file was removed or replaced there, lock it again: {again}"
                )
            raise

    pool = ThreadPoolExecutor(max_workers=_THREADS)
    try:
        for future in [pool.submit(fetch, pair) for pair in remote]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _required_by(lock: Lock, package: Package | BuildRequirement) -> str:
    if isinstance(package, BuildRequirement):
        users = ", ".join(item.name for item in lock.packages if package.pin in item.built_with)
        return f"{package.name} {package.version}, with which {users} is built"
    names = ", ".join(map(in_words, lock.plugins_needing(package.name)))
    return f"{package.name} {package.version} for {names}"


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
        return True  # an unknown architecture: one wheel too many does no harm
    musl = "musl" in target.platform
    return tag.platform.endswith(f"_{architecture}") and ("musl" in tag.platform) == musl and "linux" in tag.platform
