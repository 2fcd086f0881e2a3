"""The form of the packages in a lock: ``[[packages]]`` (PEP 751), and what our own table says of each."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from vllm_plugins.core.fields import FieldError, get, strings
from vllm_plugins.documents._lock import values
from vllm_plugins.documents.lock import FILENAME, TOOL, Package, Wheel
from vllm_plugins.startup.settings import WHEELS

if TYPE_CHECKING:
    from vllm_plugins.documents._lock import pylock

__all__ = ["fields", "own_fields", "read"]


def read(package: pylock.Package, here: str) -> Package:
    """Read a package under the rules of this lock, which are stricter than those of PEP 751.

    Raises:
        FieldError: it is not valid.
    """
    tool, place = package.tool.get(TOOL, {}), f"{here}.tool.{TOOL}"
    if not isinstance(tool, dict):
        raise FieldError(f"{place}: expected a table")
    return Package(
        name=package.name,
        version=str(package.version),
        marker=None if package.marker is None else str(package.marker),
        wheels=tuple(_read_wheel(wheel, f"{here}.wheels[{i}]") for i, wheel in enumerate(package.wheels)),
        directory=package.directory,
        index=package.index,
        requires_python=None if package.requires_python is None else str(package.requires_python),
        dependencies=package.dependencies,
        built_with=strings(tool, place, "built-with"),
        sdist_url=get(tool, place, "sdist-url", str, default=None),
        sdist_sha256=values.optional_sha256(tool, place, "sdist-sha256"),
        find_links=get(tool, place, "find-links", bool, default=False),
        identities=package.identities,
    )


def _read_wheel(wheel: pylock.Wheel, here: str) -> Wheel:
    digest = wheel.hashes.get("sha256")
    if not isinstance(digest, str):
        raise FieldError(f"{here}.hashes: expected a sha256, found none")
    if not FILENAME.fullmatch(wheel.filename):
        raise FieldError(f"{here}.name: expected the name of a file, found {wheel.filename!r}")
    if wheel.path is not None and wheel.url is not None:
        raise FieldError(f"{here}: expected a path or a URL, found both")
    if wheel.path is not None and PurePosixPath(wheel.path) != PurePosixPath(WHEELS, wheel.filename):
        raise FieldError(f"{here}.path: expected {WHEELS}/{wheel.filename}, found {wheel.path!r}")
    if wheel.path is None and not values.URL.fullmatch(str(wheel.url)):
        raise FieldError(f"{here}.url: expected an https URL, found {wheel.url!r}")
    return Wheel(
        filename=wheel.filename,
        sha256=values.sha256(digest, f"{here}.hashes.sha256"),
        size=wheel.size,
        url=wheel.url if wheel.path is None else None,
    )


def fields(package: Package, *, marker: str | None) -> dict[str, Any]:
    """The keys of a package with this marker, as they are written, without our own table."""
    directory = None if package.directory is None else {"path": package.directory, "editable": True}
    return {
        "name": package.name,
        "version": package.version,
        "marker": marker,
        "requires-python": package.requires_python,
        "dependencies": [{"name": name} for name in package.dependencies],
        "index": package.index,
        "attestation-identities": [dict(identity) for identity in package.identities],
        "wheels": [_wheel_fields(wheel) for wheel in package.wheels],
        "directory": directory,
    }


def own_fields(package: Package) -> dict[str, Any]:
    """The keys of our own table in a package, as they are written."""
    return {
        "sdist-url": package.sdist_url,
        "sdist-sha256": package.sdist_sha256,
        "built-with": list(package.built_with),
        "find-links": package.find_links,
    }


def _wheel_fields(wheel: Wheel) -> dict[str, Any]:
    place = {"path": f"{WHEELS}/{wheel.filename}"} if wheel.url is None else {"url": wheel.url}
    return {"name": wheel.filename, **place, "size": wheel.size, "hashes": {"sha256": wheel.sha256}}
