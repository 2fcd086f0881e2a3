"""What of a lock this machine installs, as lines of a hashed requirements file.

The hash makes the place a file comes from irrelevant: a wheel that lies in ``plugins.wheels/`` is taken from
there, whatever the lock says of its address.
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

__all__ = ["Requirement", "Selected", "local", "select"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """One distribution to install: exactly one file, by its sha256, from ``path`` or (``None``) from an index."""

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
    """What to install here: wheels, and the directories of editable sources, as the manifest writes them."""

    wheels: tuple[Requirement, ...]
    editable: tuple[tuple[NormalizedName, str], ...]


def select(data: bytes, settings: Settings) -> Selected:
    """Select from the bytes of a valid lock, by the rules of PEP 751.

    Raises:
        BaseMismatch: a package has no wheel for this machine.
        InstallError: a wheel that must lie in ``plugins.wheels/`` is not there, or is needed and there is no index.
        HashMismatch: a wheel there is not the locked one.
    """
    wheels: list[Requirement] = []
    editable: list[tuple[NormalizedName, str]] = []
    absent: list[str] = []
    try:
        chosen = list(Pylock.from_dict(tomllib.loads(data.decode("utf-8"))).select())
    except PylockSelectError as error:
        raise BaseMismatch(
            "the lock has nothing for this machine",
            where=str(settings.lock),
            found=str(error),
            next_step="run vllm-plugins lock on a machine of this kind",
        ) from error
    for package, item in chosen:
        if isinstance(item, PackageDirectory):
            editable.append((package.name, item.path))
            continue
        assert isinstance(item, PackageWheel)
        digest = item.hashes["sha256"]
        path = local(settings.wheels / item.filename, digest)
        if path is None and (item.path is not None or settings.offline):
            absent.append(item.filename)
        wheels.append(Requirement(name=package.name, version=str(package.version), sha256=digest, path=path))
    if absent:
        raise InstallError(
            f"{count(len(absent), 'locked wheel')} missing in {settings.wheels.name}/",
            where=str(settings.wheels),
            details=absent,
            next_step="take them from version control, or run this where the index can be reached: "
            "VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle",
        )
    return Selected(wheels=tuple(wheels), editable=tuple(editable))


def local(path: Path, sha256: str) -> Path | None:
    """The path, if a file with that hash is there; ``None`` where there is no file.

    Raises:
        HashMismatch: there is another file.
    """
    try:
        with open(path, "rb") as file:
            found = hashes.of_stream(file)
    except FileNotFoundError:
        return None
    if found != sha256:
        raise HashMismatch(
            f"the wheel {path.name} is not the one that the lock names",
            where=str(path),
            expected=f"sha256 {sha256}",
            found=f"sha256 {found}",
            next_step="take the wheel from where the lock was made; if the source changed, run vllm-plugins lock",
        )
    return path
