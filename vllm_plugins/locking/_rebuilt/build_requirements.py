"""Compare locked build requirements with the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.locking._check.derived_edges import Difference
from vllm_plugins.packages import simple_api

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_plugins.documents.lock import BuildRequirement, Lock, Wheel
    from vllm_plugins.packages.index import File, Index

__all__ = ["differences", "file_differences"]


def differences(lock: Lock, item: BuildRequirement, *, index: Index, unchecked: list[str]) -> list[Difference]:
    """Compare the files of a build requirement with those of the index. What is not compared is added to a list.

    Raises:
        SourceError: the index can't be read.
    """
    package = next(package.name for package in lock.packages if item.pin in package.built_with)
    found = [file for file in index.files(item.name) if _has_version(file, item)]
    names = {wheel.filename for wheel in item.wheels}
    files = [index.complete(file) if file.filename in names else file for file in found]
    if not files and item.index is not None and item.index not in index.places_of(item.name):
        unchecked.append(f"the build requirement {item.pin}: {item.index} is not configured here")
        return []
    reasons = [reason for wheel in item.wheels for reason in file_differences(wheel, files)]
    return [Difference(package=package, what=f"its build requirement {item.pin}: {reason}") for reason in reasons]


def file_differences(wheel: Wheel, files: list[File]) -> Iterator[str]:
    """A locked wheel against the files of that name."""
    named = [file for file in files if file.filename == wheel.filename]
    if not named:
        yield f"{wheel.filename} is not at the index"
    elif (wheel.sha256, wheel.size) not in [(file.sha256, file.size) for file in named]:
        there = ", ".join(f"sha256 {file.sha256}, {file.size} bytes" for file in named)
        yield f"{wheel.filename} is another file at the index: {there}; the lock has sha256 {wheel.sha256}"


def _has_version(file: File, item: BuildRequirement) -> bool:
    return str(simple_api.version(file.filename, item.name)) == item.version
