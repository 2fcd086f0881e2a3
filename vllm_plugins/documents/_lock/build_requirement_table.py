"""The form of the build requirements in a lock: ``[[tool.vllm-plugins.build-requirements]]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from vllm_plugins.core.fields import FieldError, convert, get, items
from vllm_plugins.documents import versions
from vllm_plugins.documents._lock import values
from vllm_plugins.documents.lock import FILENAME, BuildRequirement, Wheel

if TYPE_CHECKING:
    from packaging.utils import NormalizedName
    from packaging.version import Version

__all__ = ["fields", "read"]


def read(item: Any, here: str) -> BuildRequirement:
    """Read a table.

    Raises:
        FieldError: it is not valid.
    """
    name = get(item, here, "name", str)
    if canonicalize_name(name) != name:
        raise FieldError(f"{here}.name: expected {canonicalize_name(name)}, found {name!r}")
    text = get(item, here, "version", str)
    version = convert(text, f"{here}.version", versions.version, expected="a version")
    wheels = tuple(
        _wheel(wheel, f"{here}.wheels[{i}]", name=canonicalize_name(name), version=version)
        for i, wheel in enumerate(items(item, here, "wheels"))
    )
    if not wheels:
        raise FieldError(f"{here}.wheels: expected at least one")
    index = get(item, here, "index", str, default=None)
    return BuildRequirement(name=canonicalize_name(name), version=str(version), wheels=wheels, index=index)


def _wheel(table: Any, here: str, *, name: NormalizedName, version: Version) -> Wheel:
    filename = get(table, here, "name", str)
    found = convert(filename, f"{here}.name", versions.wheel_name, expected="the name of a wheel")
    if found[:2] != (name, version) or not FILENAME.fullmatch(filename):
        raise FieldError(f"{here}.name: expected a wheel of {name} {version}, found {filename!r}")
    size = get(table, here, "size", int)
    if size < 0:
        raise FieldError(f"{here}.size: expected a number of bytes from 0, found {size!r}")
    url = get(table, here, "url", str, default=None)
    if url is not None and not url.startswith(("https://", "http://")):
        raise FieldError(f"{here}.url: expected an https URL, found {url!r}")
    hashes = get(table, here, "hashes", dict)
    digest = values.sha256(get(hashes, f"{here}.hashes", "sha256", str), f"{here}.hashes.sha256")
    return Wheel(filename=filename, sha256=digest, size=size, url=url)


def fields(requirement: BuildRequirement) -> dict[str, Any]:
    """The keys of a table, as they are written."""
    return {
        "name": requirement.name,
        "version": requirement.version,
        "index": requirement.index,
        "wheels": [
            {
                "name": wheel.filename,
                **({} if wheel.url is None else {"url": wheel.url}),
                "size": wheel.size,
                "hashes": {"sha256": wheel.sha256},
            }
            for wheel in requirement.wheels
        ],
    }
