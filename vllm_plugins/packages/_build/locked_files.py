"""The files of build requirements: which they are at the index, or in the lock, each with its hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core import hashes, regular_file
from vllm_plugins.core.errors import BuildError
from vllm_plugins.documents import selection, versions
from vllm_plugins.documents.lock import BuildRequirement, Wheel
from vllm_plugins.packages import simple_api

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from packaging.utils import NormalizedName

    from vllm_plugins.packages.index import Index
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.packages.simple_api import File

__all__ = ["Choice", "choose", "constraint", "near"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Lines of a hashed requirements file, and the build requirements that they install."""

    lines: tuple[str, ...]
    requirements: tuple[BuildRequirement, ...]


def near(locked: Iterable[BuildRequirement], directory: Path | None) -> dict[str, Path]:
    """The wheels of locked build requirements that are in a directory, by their pins.

    Raises:
        HashMismatch: one of them is not the locked one.
    """
    found = {}
    for item in locked if directory is not None else ():
        wheel = selection.best_wheel(item.wheels, selection.ranks_here())
        path = selection.find_wheel(directory / wheel.filename, wheel.sha256) if wheel and directory else None
        if path is not None:
            found[item.pin] = path
    return found


def constraint(pin: str, near: Mapping[str, Path]) -> str:
    """A pin, as the wheel in a directory if it is there: no index is then asked for it."""
    path = near.get(pin)
    return pin if path is None else f"{pin.partition('==')[0]} @ {path.as_uri()}"


def choose(
    resolved: Iterable[str],
    locked: Collection[BuildRequirement] | None,
    *,
    near: Mapping[str, Path],
    stubs: Path,
    config: PipConfig,
) -> Choice:
    """The file of each resolved requirement: a stub of the base in ``stubs``, the locked one, or one of the index.

    Raises:
        BuildError: the lock has none, or none for this machine.
        SourceError: the index can't be read.
    """
    lines, pins, paths = [], [], {path.resolve(): pin for pin, path in near.items()}
    for text in resolved:
        requirement = versions.requirement(text)
        name = canonicalize_name(requirement.name)
        if requirement.url is None:
            (specifier,) = requirement.specifier
            pins.append(f"{name}=={versions.version(specifier.version)}")
            continue
        path = Path(regular_file.of_url(requirement.url)).resolve()
        if path.parent == stubs.resolve():
            lines.append(f"{name} @ {path.as_uri()} --hash=sha256:{hashes.of_file(path)}")
        else:
            pins.append(paths[path])
    if locked is None:
        requirements = _at_index(pins, config) if pins else ()
    else:
        known = {item.pin: item for item in locked}
        requirements = tuple(known[pin] for pin in pins if pin in known)
        if unknown := sorted(set(pins) - known.keys()):
            raise BuildError("the lock has no hash of a package that the build requires", found=", ".join(unknown))
    lines += [_line(item, near.get(item.pin)) for item in requirements]
    return Choice(lines=tuple(lines), requirements=requirements)


def _line(item: BuildRequirement, path: Path | None) -> str:
    wheel = selection.best_wheel(item.wheels, selection.ranks_here())
    if wheel is None:
        raise BuildError(
            f"the locked build requirement {item.pin} has no wheel for this machine",
            found=", ".join(wheel.filename for wheel in item.wheels),
        )
    file_version = str(versions.wheel_name(wheel.filename)[1])
    return selection.Requirement(
        name=item.name, version=item.version, sha256=wheel.sha256, path=path, file_version=file_version
    ).line


def _at_index(pins: Iterable[str], config: PipConfig) -> tuple[BuildRequirement, ...]:
    from vllm_plugins.packages.index import Index  # and requests with it

    with Index(config) as index:
        return tuple(_requirement(pin, index) for pin in sorted(pins))


def _requirement(pin: str, index: Index) -> BuildRequirement:
    """A build requirement with each wheel whose hash the index reports, and with the best one for this machine."""
    name, _, version = pin.partition("==")
    package = canonicalize_name(name)
    files = [file for file in index.files(package) if _is_wheel(file, package, version)]
    best = selection.best_wheel(files, selection.ranks_here())
    if best is None:
        raise BuildError(
            f"the index has no wheel of the build requirement {pin} for this machine",
            where=", ".join(index.places_of(package)),
        )
    others = (file for file in files if file.sha256 is not None and file.size is not None and file != best)
    wheels = {file.filename: file for file in (*_remote(others), index.complete(best))}
    return BuildRequirement(
        name=package,
        version=version,
        wheels=tuple(map(_wheel, wheels.values())),
        index=next((file.index for file in (best, *_remote(files)) if file.index and not file.is_local), None),
    )


def _is_wheel(file: File, name: NormalizedName, version: str) -> bool:
    is_wheel = file.filename.endswith(simple_api.WHEEL) and simple_api.is_plain(file.filename)
    return is_wheel and str(simple_api.version(file.filename, name)) == version


def _remote(files: Iterable[File]) -> Iterable[File]:
    return (file for file in files if not file.is_local)


def _wheel(file: File) -> Wheel:
    assert file.sha256 is not None
    assert file.size is not None
    return Wheel(filename=file.filename, sha256=file.sha256, size=file.size, url=None if file.is_local else file.url)
