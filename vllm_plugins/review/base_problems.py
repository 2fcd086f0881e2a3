"""Problems of the base: distributions that count differently than users may expect, or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.core import regular_file
from vllm_plugins.documents import base
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from packaging.utils import NormalizedName

__all__ = ["problems"]


def problems(paths: Sequence[str] | None = None) -> tuple[str, ...]:
    """The problems of the base: leftovers, distributions without valid metadata, and doubled ones."""
    found = []
    entries = overlay.base_paths() if paths is None else tuple(paths)
    for entry in entries:
        versions: dict[NormalizedName, list[str]] = {}
        for path, there in base.metadata_files(entry):
            if there is None:
                found.append(f"{path}: the metadata is missing or invalid; pip and the lock ignore this distribution")
            else:
                if base.is_damaged(path):
                    found.append(
                        f"{path}: the metadata is missing or invalid, and the modules are there: "
                        f"it counts as {there.name} {there.version}, without its extras"
                    )
                versions.setdefault(there.name, []).append(there.version)
        found += [
            f"{entry}: {name} is installed {len(every)} times: {', '.join(sorted(every))}"
            for name, every in versions.items()
            if len(every) > 1
        ]
        found += _dead_links(entry, entries)
        found += [
            f"{os.path.join(entry, name)}: left over from an interrupted uninstallation; you can remove it"
            for name in base.file_names(entry)
            if name.startswith("~") and name.endswith(base.METADATA)
        ]
    return tuple(found)


def _dead_links(entry: str, entries: Sequence[str]) -> Iterable[str]:
    """The ``.egg-link`` files of ``setup.py develop`` whose checkout is gone, or is not imported.

    A checkout counts as installed where its directory is on the path, as ``easy-install.pth`` puts it there.
    """
    for name in base.file_names(entry):
        if not name.endswith(".egg-link"):
            continue
        path = os.path.join(entry, name)
        try:
            first = regular_file.read_text(path, errors="replace").partition("\n")[0]
        except OSError as error:
            yield f"{path}: can't be read: {error.strerror}"
            continue
        target = os.path.normpath(os.path.join(entry, first.strip()))
        if not any(there is not None for _, there in base.metadata_files(target)):
            yield f"{path}: {target} has no distribution; pip and the lock ignore the link"
        elif os.path.realpath(target) not in map(os.path.realpath, entries):
            yield f"{path}: {target} is not on the path, so it is not imported; the lock ignores it"
