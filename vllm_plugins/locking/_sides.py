"""The part of a lock with merge conflicts that all of its sides agree on."""

from __future__ import annotations

import re
import tomllib
from functools import reduce
from typing import TYPE_CHECKING, Any

from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from vllm_plugins.core.errors import LockInvalid
from vllm_plugins.documents import lock_reader, merge_conflicts
from vllm_plugins.documents.lock import Lock, Package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["agreed"]

_PACKAGE = re.compile(r"^\[\[packages\]\]\n(?:(?!\[).*\n)*", re.MULTILINE)
_FIELD = re.compile(r'^(name|version)\s*=\s*"([^"\n]{1,255})"\s*$', re.MULTILINE)


def agreed(text: str, path: Path) -> Lock | None:
    """The packages and plugins that are the same on every side; ``None`` where nothing can be read."""
    try:
        return reduce(_common, (_side(side, path) for side in merge_conflicts.sides(text)))
    except RecursionError:  # conflicts inside of conflicts, a thousand deep
        return None


def _common(one: Lock, other: Lock) -> Lock:
    packages = tuple(
        package
        for package in one.packages
        if (there := other.package(package.name)) is not None and there.version == package.version
    )
    names = {package.name for package in packages}
    plugins = tuple(
        plugin for plugin in one.plugins if plugin.package in names and other.plugin(plugin.name) == plugin
    )
    return one.replace(packages=packages, plugins=plugins)


def _side(text: str, path: Path) -> Lock:
    """One side as a lock. Lines that merged without a conflict can make it incomplete, so it is repaired first."""
    try:
        return lock_reader.parse(_repaired(text), path, edited=True)
    except (LockInvalid, ValueError, KeyError, TypeError, AttributeError):
        packages = tuple(_pins(text))
        return Lock(manifest_sha256="", packages=packages, plugins=(), targets=())


def _repaired(text: str) -> bytes:
    """The text without plugins whose package is missing and without packages that are there twice."""
    import tomlkit

    document: dict[str, Any] = tomllib.loads(text)
    packages = {package["name"]: package for package in document["packages"]}
    document["packages"] = [package for package in document["packages"] if packages[package["name"]] is package]
    tool = document["tool"][lock_reader.TOOL]
    tool["plugins"] = [plugin for plugin in tool["plugins"] if plugin["package"] in packages]
    return tomlkit.dumps(document).encode()


def _pins(text: str) -> Iterator[Package]:
    """Name and version of each package, from the lines of a text that is not TOML any more."""
    found: dict[str, str] = {}
    for match in _PACKAGE.finditer(text):
        fields = dict(_FIELD.findall(match[0]))
        try:
            name, version = canonicalize_name(fields["name"], validate=True), str(Version(fields["version"]))
        except (KeyError, InvalidName, InvalidVersion):
            continue
        if found.setdefault(name, version) == version:
            yield Package(name=name, version=version)
