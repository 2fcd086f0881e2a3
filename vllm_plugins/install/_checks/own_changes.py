"""Plugins that change their own files: after the load check, an overlay must be what was published.

A plugin that writes next to itself when it is imported would fail every start with ``VLLM_PLUGIN_VERIFY=1``, and a
new installation would not help.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import LoadError, PluginsError
from vllm_plugins.core.humanize import count, shortened
from vllm_plugins.documents.lock import in_words
from vllm_plugins.packages import metadata
from vllm_plugins.startup import integrity, overlay

if TYPE_CHECKING:
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.startup.marker import Marker

__all__ = ["differences", "error_of"]


def differences(store: Path, marker: Marker) -> tuple[str, ...]:
    """What differs between an overlay and its list of files, one text for each file."""
    try:
        return integrity.compare(store, marker).problems
    except PluginsError as error:
        return (error.what,)


def error_of(store: Path, marker: Marker, lock: Lock, changed: tuple[str, ...]) -> LoadError:
    """The error for files that changed while the plugins of a new overlay were loaded."""
    site = overlay.directory(store, marker.key) / overlay.SITE
    owners = _owners(site)
    names = sorted({name for text in changed for name in _plugins(text.partition(": ")[2], owners, lock)})
    who = " or ".join(in_words(name) for name in names) or "a plugin"
    return LoadError(
        f"{who} changes files of the overlay while it is loaded: {count(len(changed), 'file')}",
        where=str(site),
        details=shortened(changed, 10),
        next_step=f"ask the authors of {who} to write to a cache directory, or set `enabled: false` for it in "
        "plugins.yaml and run vllm-plugins lock",
    )


def _plugins(path: str, owners: dict[str, NormalizedName], lock: Lock) -> tuple[str, ...]:
    """The plugins that need the distribution of a file, or that of the directory in which it is new."""
    parts = path.split("/")
    for length in range(len(parts), 0, -1):
        owner = owners.get("/".join(parts[:length]))
        if owner is not None:
            return tuple(lock.plugins_needing(owner))
    return ()


def _owners(site: Path) -> dict[str, NormalizedName]:
    """The distribution of each file and directory; a directory that several share belongs to the first."""
    owners: dict[str, NormalizedName] = {}
    for info in sorted(site.glob("*.dist-info")):
        with contextlib.suppress(OSError, ValueError, PluginsError):  # these files may be what was changed
            name = metadata.parse((info / "METADATA").read_bytes(), b"", where=info.name).name
            for row in metadata.parse_record((info / "RECORD").read_bytes().decode("utf-8")):
                parts = row.path.split("/")
                for length in range(1, len(parts) + 1):
                    owners.setdefault("/".join(parts[:length]), name)
    return owners
