"""Select the packages of a lock for this machine, as lines of a requirements file with hashes.

The hash makes the origin of a file irrelevant. So a wheel in ``plugins.wheels/`` is used, even if the lock has a URL.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.pylock import PackageDirectory, PackageWheel, Pylock, PylockSelectError

from vllm_plugins.core import hashes
from vllm_plugins.core.errors import BaseMismatch, HashMismatch, InstallError
from vllm_plugins.core.humanize import count

if TYPE_CHECKING:
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.startup.settings import Settings

__all__ = ["Requirement", "Selected", "find_wheel", "select"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """One distribution to install: the file with this sha256, from ``path``, or from an index if that is ``None``."""

    name: NormalizedName
    version: str | None
    sha256: str
    path: Path | None

    @property
    def line(self) -> str:
        """The line of a requirements file (``--require-hashes`` form)."""
        place = f"=={self.version}" if self.path is None else f" @ {self.path.as_uri()}"
        return f"{self.name}{place} --hash=sha256:{self.sha256}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """The packages for this machine: wheels, and the directories of editable sources as in the manifest."""

    wheels: tuple[Requirement, ...]
    editable: tuple[tuple[NormalizedName, str], ...]


def select(data: bytes, settings: Settings) -> Selected:
    """Select from the bytes of a valid lock, by the rules of PEP 751.

    Raises:
        BaseMismatch: a package has no wheel for this machine.
        InstallError: a wheel is missing from ``plugins.wheels/`` and no index has it, or no index may be used.
        HashMismatch: a wheel there is not the locked one.
    """
    wheels: list[Requirement] = []
    editable: list[tuple[NormalizedName, str]] = []
    missing: list[str] = []
    try:
        chosen = list(Pylock.from_dict(tomllib.loads(data.decode("utf-8"))).select())
    except PylockSelectError as error:
        raise BaseMismatch(
            "the lock has no wheels for this machine",
            where=str(settings.lock),
            found=str(error),
            next_step="vllm-plugins lock, in this environment",
        ) from error
    for package, item in chosen:
        if isinstance(item, PackageDirectory):
            editable.append((package.name, item.path))
            continue
        assert isinstance(item, PackageWheel)
        digest = item.hashes["sha256"]
        path = find_wheel(settings.wheels / item.filename, digest)
        if path is None and (item.path is not None or settings.offline):
            missing.append(item.filename)
        wheels.append(Requirement(name=package.name, version=str(package.version), sha256=digest, path=path))
    if missing:
        raise InstallError(
            f"{count(len(missing), 'locked wheel')} missing in {settings.wheels.name}/",
            where=str(settings.wheels),
            details=missing,
            next_step="take them from version control, or run this where the index can be reached: "
            "VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle",
        )
    return Selected(wheels=tuple(wheels), editable=tuple(editable))


def find_wheel(path: Path, sha256: str) -> Path | None:
    """The path if the file with that hash is there; ``None`` if the file is missing.

    Raises:
        HashMismatch: the file has another hash.
    """
    try:
        with open(path, "rb") as file:
            found = hashes.of_stream(file)
    except FileNotFoundError:
        return None
    if found != sha256:
        raise HashMismatch(
            f"the wheel {path.name} is not the locked one",
            where=str(path),
            expected=f"sha256 {sha256}",
            found=f"sha256 {found}",
            next_step=f"remove {path.name}, then: vllm-plugins sync",
        )
    return path
