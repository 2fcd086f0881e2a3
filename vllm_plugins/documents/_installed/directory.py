"""The distributions in a directory of the import path, by the metadata that is there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_plugins.core import regular_file
from vllm_plugins.documents._installed import headers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packaging.utils import NormalizedName

    from vllm_plugins.documents._installed.headers import Headers

__all__ = ["METADATA", "distributions", "file_names", "is_damaged", "metadata_files", "owner_of_vllm"]

METADATA = (".dist-info", ".egg-info")


def distributions(entry: str) -> Iterable[Headers]:
    """The distributions of one path entry. Of a doubled one, that whose files are there, or else the newest."""
    found: dict[NormalizedName, list[tuple[str, Headers]]] = {}
    for path, item in metadata_files(entry):
        if item is not None:
            found.setdefault(item.name, []).append((path, item))
    for every in found.values():
        yield (
            max(every, key=lambda one: (headers.intact(one[0]), Version(one[1].version)))[1]
            if every[1:]
            else every[0][1]
        )


def metadata_files(entry: str) -> Iterable[tuple[str, Headers | None]]:
    """The place of each distribution, and the headers of its metadata; ``None`` if they can't be read."""
    if entry.endswith(".egg"):
        yield entry, headers.of_egg(entry)
    else:
        yield from headers.in_archive(entry)
    for name in file_names(entry):
        path = os.path.join(entry, name)
        if name.startswith("~") or not name.endswith(METADATA):
            continue
        if name.endswith(".dist-info"):
            yield path, headers.of_file(os.path.join(path, "METADATA")) or headers.of_directory(path)
        else:
            yield path, headers.of_file(os.path.join(path, "PKG-INFO") if os.path.isdir(path) else path)


def is_damaged(path: str) -> bool:
    """Whether the metadata of an installed distribution is missing or invalid, though its modules are there."""
    return (
        path.endswith(".dist-info")
        and os.path.isdir(path)
        and headers.of_file(os.path.join(path, "METADATA")) is None
    )


def file_names(entry: str) -> list[str]:
    """The names in a directory, sorted; none where it can't be read."""
    try:
        return sorted(os.listdir(entry))
    except OSError:
        return []


def owner_of_vllm(entries: Iterable[str]) -> NormalizedName | None:
    """The distribution whose RECORD has the module ``vllm``, if none has that name."""
    for entry in entries:
        if not os.path.isfile(os.path.join(entry, "vllm", "__init__.py")):
            continue
        records = [path for path in Path(entry).glob("*.dist-info") if (path / "RECORD").is_file()]
        for path in sorted(records, key=lambda path: "vllm" not in path.name):
            with contextlib.suppress(OSError):
                if "\nvllm/__init__.py," in "\n" + regular_file.read_text(path / "RECORD", errors="replace"):
                    return canonicalize_name(path.name.split("-")[0])
        return None
    return None
