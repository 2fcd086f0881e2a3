"""What of a lock this machine installs, as lines of a hashed requirements file.

The hash makes the place a file comes from irrelevant: a wheel that lies in ``plugins.wheels/`` is taken from
there, whatever the lock says of its address.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.pylock import PackageDirectory, PackageWheel, Pylock, PylockSelectError
from packaging.utils import parse_wheel_filename

from vllm_plugins.core import hashes
from vllm_plugins.core.errors import BaseMismatch, HashMismatch, InstallError
from vllm_plugins.core.humanize import count

if TYPE_CHECKING:
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.startup.settings import Settings

__all__ = ["Requirement", "Selected", "build_number", "local", "select"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """One distribution to install: exactly one file, by its sha256, from ``path`` or (``None``) from an index.

    ``file_version`` is the version in the file name, which is not always written as that of the lock.
    """

    name: NormalizedName
    version: str | None
    sha256: str
    path: Path | None
    file_version: str | None = None

    @property
    def line(self) -> str:
        """The line of a requirements file (``--require-hashes`` form)."""
        # "==1.0" would also match 1.0+cu129, which an index may get later, and uv would choose that.
        place = f"==={self.file_version or self.version}" if self.path is None else f" @ {self.path.as_uri()}"
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
        chosen = list(Pylock.from_dict(_best_first(tomllib.loads(data.decode("utf-8")))).select())
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
        file_version = str(parse_wheel_filename(item.filename)[1])
        wheels.append(
            Requirement(
                name=package.name,
                version=str(package.version),
                sha256=digest,
                path=path,
                file_version=file_version,
            )
        )
    if absent:
        raise InstallError(
            f"{count(len(absent), 'locked wheel')} missing in {settings.wheels.name}/",
            where=str(settings.wheels),
            details=absent,
            next_step="take them from version control, or run this where the index can be reached: "
            "VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle",
        )
    return Selected(wheels=tuple(wheels), editable=tuple(editable))


def build_number(filename: str) -> tuple[int, str]:
    """The build tag of a wheel for sorting: of two wheels with equal tags, pip and uv take the higher one."""
    return parse_wheel_filename(filename)[2] or (-1, "")


def _best_first(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a lock with the wheels of each package in the order of their build tags, the highest first."""
    for package in document["packages"]:
        if "wheels" in package:
            package["wheels"].sort(key=lambda wheel: build_number(wheel["name"]), reverse=True)
    return document


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
