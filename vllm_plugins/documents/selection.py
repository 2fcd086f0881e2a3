"""Select the packages of a lock for this machine, as lines of a requirements file with hashes.

The hash makes the origin of a file irrelevant. So a wheel in ``plugins.wheels/`` is used, even if the lock has a URL.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from packaging.markers import default_environment
from packaging.tags import sys_tags

from vllm_plugins.core import hashes
from vllm_plugins.core.errors import BaseMismatch, HashMismatch, InstallError
from vllm_plugins.core.humanize import count
from vllm_plugins.documents import markers, versions
from vllm_plugins.documents.base import satisfies

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from packaging.tags import Tag
    from packaging.utils import NormalizedName

    from vllm_plugins.core.hashes import Sha256
    from vllm_plugins.documents.lock import Lock, Package
    from vllm_plugins.startup.settings import Settings

__all__ = ["Requirement", "Selected", "best_wheel", "build_number", "find_wheel", "ranks_here", "select"]

# What can't be read as a wheel: a directory, a pipe or device, a link to itself, or another user's file.
_NO_FILE = (errno.EISDIR, errno.EINVAL, errno.ENXIO, errno.ELOOP, errno.EACCES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """One distribution to install: the file with this sha256, from ``path``, or from an index if that is ``None``.

    ``file_version`` is the version in the file name, which is not always written as that of the lock. ``in_front``:
    it overrides a package of the base.
    """

    name: NormalizedName
    version: str | None
    sha256: Sha256
    path: Path | None
    file_version: str | None = None
    in_front: bool = False

    @property
    def line(self) -> str:
        """The line of a requirements file (``--require-hashes`` form)."""
        # "==1.0" would also match 1.0+cu129, which an index may get later, and uv would choose that.
        place = f"==={self.file_version or self.version}" if self.path is None else f" @ {self.path.as_uri()}"
        return f"{self.name}{place} --hash=sha256:{self.sha256}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """The packages for this machine: wheels, and the directories of editable sources as in the manifest."""

    wheels: tuple[Requirement, ...]
    editable: tuple[tuple[NormalizedName, str], ...]


def select(lock: Lock, settings: Settings) -> Selected:
    """Select the packages that this interpreter installs, by the rules of PEP 751.

    Raises:
        BaseMismatch: a package has no wheel for this machine.
        InstallError: a wheel is missing from ``plugins.wheels/`` and no index has it, or no index may be used; or the
            package of a plugin is not for this machine.
        HashMismatch: a wheel there is not the locked one.
    """
    environment = {name: str(value) for name, value in default_environment().items()}
    tags = ranks_here()
    if lock.environments and not any(markers.applies(marker, environment) for marker in lock.environments):
        raise _no_wheels(settings, f"the lock is for environments with {' or '.join(lock.environments)}")
    wheels: list[Requirement] = []
    editable: list[tuple[NormalizedName, str]] = []
    missing: list[str] = []
    chosen = [package for package in lock.packages if markers.applies(package.marker, environment)]
    for package in chosen:
        _check_python(package, environment["python_full_version"], settings)
        if package.directory is not None:
            editable.append((package.name, package.directory))
            continue
        wheel = best_wheel(package.wheels, tags)
        if wheel is None:
            kinds = f"only {', '.join(wheel.filename for wheel in package.wheels)}; this is {next(iter(tags))}"
            raise _no_wheels(settings, f"{package.name} {package.version} has {kinds}")
        path = find_wheel(settings.wheels / wheel.filename, wheel.sha256)
        if path is None and (wheel.url is None or settings.offline):
            missing.append(wheel.filename)
        file_version = str(versions.wheel_name(wheel.filename)[1])
        wheels.append(
            Requirement(
                name=package.name,
                version=package.version,
                sha256=wheel.sha256,
                path=path,
                file_version=file_version,
                in_front=package.name in lock.overridden,
            )
        )
    _require_plugins(lock, {package.name for package in chosen}, settings)
    if missing:
        raise InstallError(
            f"{count(len(missing), 'locked wheel')} missing in {settings.wheels.name}/",
            where=str(settings.wheels),
            details=missing,
            next_step="take them from version control, or run this where the index can be reached: "
            "VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle",
        )
    return Selected(wheels=tuple(wheels), editable=tuple(editable))


def _check_python(package: Package, python: str, settings: Settings) -> None:
    if package.requires_python is None or satisfies(python.removesuffix("+"), package.requires_python):
        return
    raise _no_wheels(
        settings, f"{package.name} {package.version} requires Python {package.requires_python}; this is {python}"
    )


def _no_wheels(settings: Settings, found: str) -> BaseMismatch:
    return BaseMismatch(
        "the lock has no wheels for this machine",
        where=str(settings.lock),
        found=found,
        next_step="vllm-plugins lock, in this environment",
    )


class _Named(Protocol):
    @property
    def filename(self) -> str: ...


_W = TypeVar("_W", bound=_Named)


@functools.cache
def ranks_here() -> Mapping[Tag, int]:
    """The ranks of this interpreter's tags, the best first."""
    return versions.ranks(sys_tags())


def best_wheel(wheels: Iterable[_W], tags: Iterable[Tag] | Mapping[Tag, int]) -> _W | None:
    """The wheel that fits these tags best, as pip and uv choose; ``tags`` are the best first, or their ranks.

    Of two wheels with equal tags, they take the one with the higher build tag.
    """
    ranking = tags if isinstance(tags, Mapping) else versions.ranks(tags)
    best, chosen = len(ranking), None
    for wheel in sorted(wheels, key=lambda wheel: build_number(wheel.filename), reverse=True):
        rank = min((ranking[tag] for tag in versions.wheel_name(wheel.filename)[3] if tag in ranking), default=best)
        if rank < best:
            best, chosen = rank, wheel
    return chosen


def _require_plugins(lock: Lock, chosen: Collection[str], settings: Settings) -> None:
    """Refuse a selection without the package of a plugin: it would be reported as installed."""
    absent = [plugin for plugin in lock.plugins if not plugin.provided and plugin.package not in chosen]
    if absent:
        raise InstallError(
            "the lock installs a plugin's package only elsewhere, and not on this machine",
            where=str(settings.lock),
            details=[f"plugin {plugin.name!r}: {plugin.package}" for plugin in absent],
            next_step="vllm-plugins lock, in this environment",
        )


def build_number(filename: str) -> tuple[int, str]:
    """The build tag of a wheel for sorting: of two wheels with equal tags, pip and uv take the higher one."""
    return versions.wheel_name(filename)[2] or (-1, "")


def find_wheel(path: Path, sha256: Sha256) -> Path | None:
    """The path if the file with that hash is there; ``None`` if the file is missing.

    Raises:
        HashMismatch: the file has another hash, is a directory, a pipe or the like, or may not be read.
    """
    try:
        found = f"sha256 {hashes.of_file(path)}"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        found = error.strerror or str(error)
    if found != f"sha256 {sha256}":
        raise HashMismatch(
            f"the wheel {path.name} is not the locked one",
            where=str(path),
            expected=f"sha256 {sha256}",
            found=found,
            next_step=f"remove {path.name}, then run vllm-plugins sync",
        )
    return path
