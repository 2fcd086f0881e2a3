"""Select the packages of a lock for this machine, as lines of a requirements file with hashes.

The hash makes the origin of a file irrelevant. So a wheel in ``plugins.wheels/`` is used, even if the lock has a URL.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.pylock import PackageDirectory, PackageWheel, Pylock, PylockSelectError
from packaging.utils import canonicalize_name, parse_wheel_filename

from vllm_plugins.core import hashes
from vllm_plugins.core.errors import BaseMismatch, HashMismatch, InstallError
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.core.humanize import count

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.startup.settings import Settings

__all__ = ["Requirement", "Selected", "build_number", "find_wheel", "select"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """One distribution to install: the file with this sha256, from ``path``, or from an index if that is ``None``.

    ``file_version`` is the version in the file name, which is not always written as that of the lock.
    """

    name: NormalizedName
    version: str | None
    sha256: Sha256
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
    """The packages for this machine: wheels, and the directories of editable sources as in the manifest."""

    wheels: tuple[Requirement, ...]
    editable: tuple[tuple[NormalizedName, str], ...]


def select(data: bytes, settings: Settings) -> Selected:
    """Select from the bytes of a valid lock, by the rules of PEP 751.

    Raises:
        BaseMismatch: a package has no wheel for this machine.
        InstallError: a wheel is missing from ``plugins.wheels/`` and no index has it, or no index may be used; or the
            package of a plugin is not for this machine.
        HashMismatch: a wheel there is not the locked one.
    """
    wheels: list[Requirement] = []
    editable: list[tuple[NormalizedName, str]] = []
    missing: list[str] = []
    document = tomllib.loads(data.decode("utf-8"))
    try:
        chosen = list(Pylock.from_dict(_best_first(document)).select())
    except PylockSelectError as error:
        raise BaseMismatch(
            "the lock has no wheels for this machine",
            where=str(settings.lock),
            found=str(error),
            next_step="vllm-plugins lock, in this environment",
        ) from error
    _require_plugins(document, {package.name for package, _ in chosen}, settings)
    for package, item in chosen:
        if isinstance(item, PackageDirectory):
            editable.append((package.name, item.path))
            continue
        assert isinstance(item, PackageWheel)
        digest = Sha256(item.hashes["sha256"])  # checked by lock_reader
        path = find_wheel(settings.wheels / item.filename, digest)
        if path is None and (item.path is not None or settings.offline):
            missing.append(item.filename)
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
    if missing:
        raise InstallError(
            f"{count(len(missing), 'locked wheel')} missing in {settings.wheels.name}/",
            where=str(settings.wheels),
            details=missing,
            next_step="take them from version control, or run this where the index can be reached: "
            "VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle",
        )
    return Selected(wheels=tuple(wheels), editable=tuple(editable))


def _require_plugins(document: Mapping[str, Any], chosen: Collection[str], settings: Settings) -> None:
    """Refuse a selection without the package of a plugin: it would be reported as installed."""
    plugins = document["tool"]["vllm-plugins"].get("plugins", [])
    absent = [plugin for plugin in plugins if canonicalize_name(plugin["package"]) not in chosen]
    if absent:
        raise InstallError(
            "the lock installs a plugin's package only elsewhere, and not on this machine",
            where=str(settings.lock),
            details=[f"plugin {plugin['name']!r}: {plugin['package']}" for plugin in absent],
            next_step="vllm-plugins lock, in this environment",
        )


def build_number(filename: str) -> tuple[int, str]:
    """The build tag of a wheel for sorting: of two wheels with equal tags, pip and uv take the higher one."""
    return parse_wheel_filename(filename)[2] or (-1, "")


def _best_first(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a lock with the wheels of each package in the order of their build tags, the highest first."""
    for package in document["packages"]:
        if "wheels" in package:
            package["wheels"].sort(key=lambda wheel: build_number(wheel["name"]), reverse=True)
    return document


def find_wheel(path: Path, sha256: Sha256) -> Path | None:
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
            next_step=f"remove {path.name}, then run vllm-plugins sync",
        )
    return path
