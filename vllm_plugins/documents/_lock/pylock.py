"""Read what a lock has of PEP 751: its packages with their wheels, and its environments.

``packaging.pylock`` does this too, from packaging 26.1 on. Environments of older vLLM releases have an older one,
which must stay as it is. So this reader is used everywhere, and a lock means the same everywhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_plugins.core.fields import FieldError, convert, get, items
from vllm_plugins.documents import versions
from vllm_plugins.startup import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packaging.markers import Marker
    from packaging.specifiers import SpecifierSet
    from packaging.utils import NormalizedName

__all__ = ["NewerVersionError", "Package", "Wheel", "environments", "packages"]

_OTHER_SOURCES = ("vcs", "archive", "sdist")
_NEVER = re.compile(r"\b(extras?|dependency_groups)\b")


class NewerVersionError(Exception):
    """The document is of another major version of PEP 751's format."""


class Wheel(Record):
    """One wheel: at ``url`` or at ``path``."""

    filename: str
    url: str | None
    path: str | None
    size: int
    hashes: Mapping[str, str]


class Package(Record):
    """One package: ``wheels``, or the path of an editable ``directory``."""

    name: NormalizedName
    version: Version
    marker: Marker | None
    requires_python: SpecifierSet | None
    dependencies: tuple[NormalizedName, ...]
    directory: str | None
    index: str | None
    wheels: tuple[Wheel, ...]
    tool: Mapping[str, Any]
    identities: tuple[tuple[tuple[str, str], ...], ...]


def environments(document: Any) -> tuple[str, ...]:
    """The markers of the environments that a lock is for, each as ``packaging`` writes it; none for all.

    Raises:
        FieldError: the document is not valid; :func:`packages` raises it for the rest.
        NewerVersionError: this version can't read it.
    """
    found = get(document, "", "lock-version", str)
    version = convert(found, "lock-version", Version, expected="a version such as 1.0")
    if version.major != 1:
        raise NewerVersionError(found)
    get(document, "", "created-by", str)
    if "environments" not in document:
        return ()
    markers = items(document, "", "environments")
    if not markers:
        raise FieldError("environments: expected at least one marker")
    return tuple(str(_marker(marker, f"environments[{i}]")) for i, marker in enumerate(markers))


def packages(document: Any) -> tuple[Package, ...]:
    """The packages of a lock.

    Raises:
        FieldError: one of them is not valid.
    """
    return tuple(_package(table, f"packages[{i}]") for i, table in enumerate(get(document, "", "packages", list)))


def _package(table: Any, here: str) -> Package:
    name = get(table, here, "name", str)
    if canonicalize_name(name) != name:
        raise FieldError(f"{here}.name: expected {canonicalize_name(name)}, found {name!r}")
    if "version" not in table:
        raise FieldError(f"{here}.version: missing; only exact versions are installed")
    version = _version(get(table, here, "version", str), f"{here}.version")
    if any(key in table for key in _OTHER_SOURCES):
        raise FieldError(f"{here}: only wheels and editable directories are installed")
    wheels = tuple(
        _wheel(wheel, f"{here}.wheels[{i}]", name=canonicalize_name(name), version=version)
        for i, wheel in enumerate(items(table, here, "wheels"))
    )
    directory = _directory(table["directory"], f"{here}.directory") if "directory" in table else None
    if (directory is None) is (not wheels):
        raise FieldError(f"{here}: expected either wheels or a directory")
    marker = get(table, here, "marker", str, default=None)
    if marker is not None and _NEVER.search(marker):
        raise FieldError(f"{here}.marker: {marker} never holds: nobody chooses extras or groups")
    requires_python = get(table, here, "requires-python", str, default=None)
    return Package(
        name=canonicalize_name(name),
        version=version,
        marker=None if marker is None else _marker(marker, f"{here}.marker"),
        requires_python=None if requires_python is None else _specifiers(requires_python, f"{here}.requires-python"),
        dependencies=tuple(
            canonicalize_name(get(item, f"{here}.dependencies[{i}]", "name", str))
            for i, item in enumerate(items(table, here, "dependencies"))
        ),
        directory=directory,
        index=get(table, here, "index", str, default=None),
        wheels=wheels,
        tool=get(table, here, "tool", dict, default={}),
        identities=tuple(
            _identity(item, f"{here}.attestation-identities[{i}]")
            for i, item in enumerate(items(table, here, "attestation-identities"))
        ),
    )


def _identity(table: Any, here: str) -> tuple[tuple[str, str], ...]:
    """A publisher (PEP 740): its kind, then its other fields in order."""
    kind: str = get(table, here, "kind", str)
    others = sorted(key for key in table if key != "kind")
    return (("kind", kind), *((key, get(table, here, key, str)) for key in others))


def _directory(table: Any, here: str) -> str:
    path: str = get(table, here, "path", str)
    if get(table, here, "editable", bool, default=False) is not True:
        raise FieldError(f"{here}: expected editable = true; only editable directories may be without a hash")
    return path


def _wheel(table: Any, here: str, *, name: NormalizedName, version: Version) -> Wheel:
    filename = get(table, here, "name", str)
    found_name, found_version, _, _ = convert(
        filename, f"{here}.name", versions.wheel_name, expected="the name of a wheel"
    )
    if (found_name, found_version) != (name, version):
        raise FieldError(f"{here}.name: expected a wheel of {name} {version}, found {filename!r}")
    hashes = get(table, here, "hashes", dict)
    url = get(table, here, "url", str, default=None)
    path = get(table, here, "path", str, default=None)
    if not url and not path:
        raise FieldError(f"{here}: expected a url or a path")
    size = table.get("size")
    if type(size) is not int or size < 0:
        raise FieldError(f"{here}.size: expected a number of bytes from 0, found {size!r}")
    return Wheel(filename=filename, url=url, path=path, size=size, hashes=hashes)


def _marker(value: Any, here: str) -> Marker:
    if not isinstance(value, str):
        raise FieldError(f"{here}: expected str, found {value!r}")
    return convert(value, here, versions.marker, expected="an environment marker")


def _version(value: str, here: str) -> Version:
    return convert(value, here, versions.version, expected="a version")


def _specifiers(value: str, here: str) -> SpecifierSet:
    return convert(value, here, versions.specifiers, expected="a version specifier")
