"""Resolve requirements against a base into exact versions.

Every distribution of the base is a constraint that names a metadata-only stub (``stub_wheels``), so the
resolver can use the base and can't change it. The resolver pins; the index says which files a pin has.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, NormalizedName, canonicalize_name
from packaging.version import InvalidVersion, Version

from vllm_plugins.core import foreign_json, hashes, regular_file
from vllm_plugins.core.errors import CommandFailed, DiskError, SourceError
from vllm_plugins.core.redact import redact
from vllm_plugins.documents import versions
from vllm_plugins.documents.base import VLLM
from vllm_plugins.locking import _conflicts
from vllm_plugins.packages import cache, requirement_lines, stub_wheels
from vllm_plugins.packages.releases import Pin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.locking._resolvers import Resolver
    from vllm_plugins.locking.request import PluginRequirement

__all__ = ["compile_pins", "constraints", "read_pins"]


_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?===?([^\s=]+)", re.MULTILINE)
_STUBS = 1  # the form of stubs
_LOCAL_VERSIONS = 5  # runs of a resolver; an index has few local versions of one release


def constraints(base: Base, directory: Path) -> dict[NormalizedName, str]:
    """A line for each distribution of the base, which names its stub in a directory.

    The directory also keeps which stubs a base has, and their hashes: making them takes longer than all else that a
    resolver's run needs.

    Raises:
        OSError: a stub can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    known = [(item.name, item.version, item.extras, item.requires) for item in base.distributions]
    place = directory / f"{hashes.sha256(repr((_STUBS, known)).encode())[:32]}.list"
    stubs = _listed(place, directory)
    if stubs is None:
        stubs = _write_stubs(base, directory)
        listed = {name: (stub.name, hashes.of_file(stub)) for name, stub in stubs.items()}
        cache.write(place, json.dumps(listed))
    return {name: f"{name} @ {stub.as_uri()}" for name, stub in stubs.items()}


def _listed(place: Path, directory: Path) -> dict[NormalizedName, Path] | None:
    """The stubs in a list, if they all are as they were written."""
    text = cache.read(place)
    if text is None:
        return None
    try:
        listed: Mapping[NormalizedName, tuple[str, str]] = foreign_json.read(text)
        intact = all(hashes.of_file(directory / name) == digest for name, digest in listed.values())
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return {name: directory / file for name, (file, _) in listed.items()} if intact else None


def _write_stubs(base: Base, directory: Path) -> dict[NormalizedName, Path]:
    stubs = {
        distribution.name: stub_wheels.write(
            directory,
            name=distribution.name,
            version=distribution.version,
            extras=distribution.extras,
            requires=requirement_lines.valid(distribution.requires),
        )
        for distribution in base.distributions
    }
    if base.vllm is None:
        # A plugin that requires vllm meets this stub; else the resolver walks through gigabytes of vLLM releases.
        stubs[VLLM] = stub_wheels.write(directory, name=VLLM, version="0")
    return stubs


def compile_pins(
    requirements: Iterable[PluginRequirement],
    *,
    base: Base,
    stubs: Mapping[NormalizedName, str],
    preferred: Mapping[NormalizedName, str],
    excluded: Iterable[str] = (),
    resolver: Resolver,
    scratch: Path,
    wheels: Path,
    alone: bool = False,
) -> tuple[Pin, ...]:
    """Pin everything that the requirements need, sorted by name, with the base's packages among it as stubs.

    ``stubs`` are the base's :func:`constraints`. ``preferred`` versions are taken if they satisfy every requirement.
    ``excluded`` are constraints such as ``name!=1.0``. ``scratch`` is an empty directory, ``wheels`` has what was
    built from sdists; ``alone``: it has everything, and no index is asked.

    Raises:
        CommandFailed: the resolver found no set of versions, or failed in another way.
        DiskError: the disk is full or broken.
    """
    lines = tuple(requirements)
    (scratch / "requirements.in").write_text("".join(f"{line.requirement}\n" for line in lines), encoding="utf-8")
    own = {line.name for line in lines if not line.provided}
    constrained = (f"{line}\n" for line in (*(line for name, line in stubs.items() if name not in own), *excluded))
    (scratch / "constraints.txt").write_text("".join(constrained), encoding="utf-8")
    output = scratch / "requirements.txt"
    try:
        _compile(scratch, base, preferred=preferred, resolver=resolver, wheels=wheels, alone=alone)
    except CommandFailed as error:
        if (full := DiskError.from_output(error.stderr, details=error.details)) is not None:
            raise full from error
        raise
    text = output.read_text(encoding="utf-8")
    urls = (item.partition(" @ ")[2] for item in (*stubs.values(), *(line.requirement for line in lines)))
    resolved = tuple(read_pins(text, local={_path(url) for url in urls}))
    if unanswered := own - {pin.name for pin in resolved}:
        raise SourceError(
            f"{resolver.name} ended without an error and without pinning every plugin",
            expected=", ".join(sorted(own)),
            found=f"no pin of {', '.join(sorted(unanswered))}",
            next_step="use the other resolver: vllm-plugins lock --resolver uv, or --resolver pip-compile",
        )
    if base.vllm is None and any(pin.name == VLLM for pin in resolved):
        names = {pin.name for pin in resolved}
        raise _conflicts.missing_vllm(base, [name for name in _conflicts.parents(text, VLLM) if name in names])
    return resolved


def _compile(
    scratch: Path,
    base: Base,
    *,
    preferred: Mapping[NormalizedName, str],
    resolver: Resolver,
    wheels: Path,
    alone: bool,
) -> None:
    """Run the resolver; of a preferred version, another local version is not taken in its place.

    An index may get ``1.0+cu129`` after ``1.0`` was locked. ``==1.0`` matches both, and the local version is higher.
    pip keeps ``===1.0``. uv takes the local version whatever it is given, so that is excluded, and uv runs again.

    Raises:
        CommandFailed: the resolver failed at its first run.
    """
    output, constraints_file = scratch / "requirements.txt", scratch / "constraints.txt"
    exactly = "===" if resolver.name == "pip-compile" else "=="
    pins = "".join(f"{name}{exactly}{version}\n" for name, version in sorted(preferred.items()))
    output.write_text(pins, encoding="utf-8")
    resolver.compile(scratch, base, wheels=wheels, alone=alone)
    for _ in range(_LOCAL_VERSIONS):
        text = output.read_text(encoding="utf-8")
        excluded = [
            f"{name}!={version}\n"
            for name, version in _PIN.findall(text)
            if "+" in version and version.partition("+")[0] == preferred.get(canonicalize_name(name))
        ]
        if not excluded:
            return
        with open(constraints_file, "a", encoding="utf-8") as file:
            file.writelines(excluded)
        output.write_text(pins, encoding="utf-8")
        try:
            resolver.compile(scratch, base, wheels=wheels, alone=alone)
        except CommandFailed:  # something requires the local version
            output.write_text(text, encoding="utf-8")
            return


def read_pins(text: str, *, local: Collection[str | None] = ()) -> Iterable[Pin]:
    """The pins of a requirements file that a resolver has written; ``local`` are paths of the wheels it was given.

    Raises:
        NoResolution: a line names a URL instead of a version.
        SourceError: a line is not a pin.
    """
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith(("#", "--")):
            continue
        try:
            requirement = Requirement(line.strip())
            if requirement.url is not None and _path(requirement.url) not in local:
                raise _conflicts.url_dependency(requirement, text)
            yield _pin(requirement)
        except (InvalidRequirement, InvalidWheelFilename, InvalidVersion, ValueError) as error:
            raise SourceError(
                "the resolver's output has a line that is not a pin",
                expected="a version, or the file: URL of a wheel, for each name",
                found=redact(line.strip()[:200]),
                next_step="use the other resolver: vllm-plugins lock --resolver uv",
            ) from error


def _path(url: str) -> str | None:
    """The path of a ``file:`` URL; each resolver quotes it in its own way."""
    return regular_file.of_url(url) if urlsplit(url).scheme == "file" else None


def _pin(requirement: Requirement) -> Pin:
    name = canonicalize_name(requirement.name)
    extras = requirement_lines.extras(requirement)
    if requirement.url is not None:
        version = str(versions.wheel_name(unquote(urlsplit(requirement.url).path).rpartition("/")[2])[1])
        return Pin(name=name, version=version, extras=extras, url=requirement.url)
    (specifier,) = requirement.specifier
    # pip-compile writes === where somebody requires the version so.
    if specifier.operator not in ("==", "==="):
        raise ValueError(f"{specifier} is not an exact version")
    Version(specifier.version)
    return Pin(name=name, version=specifier.version, extras=extras, url=None)
