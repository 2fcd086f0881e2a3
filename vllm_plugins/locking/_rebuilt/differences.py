"""What differs between a locked wheel and the one that was built again."""

from __future__ import annotations

import difflib
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING

from vllm_plugins.core import regular_file
from vllm_plugins.core.humanize import shortened
from vllm_plugins.packages import metadata
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from vllm_plugins.documents.lock import Package, Wheel

__all__ = ["digests", "installed", "is_of", "members"]

_SHOWN = 12  # members, and lines of a text, that an error shows


def installed(wheel: Wheel, store: Path) -> Path | None:
    """The files of an overlay that the locked wheel was installed into."""
    with suppress(OSError):
        for directory in sorted((store / overlay.OVERLAYS).iterdir()):
            with suppress(OSError):
                if wheel.sha256 in regular_file.read_text(directory / "plugins.lock"):
                    return directory / overlay.SITE
    return None


def members(built: Path, locked: Mapping[str, str], read: Callable[[str], bytes]) -> Iterator[str]:
    """What differs between a wheel and the digests of the locked one, whose files ``read`` returns."""
    with zipfile.ZipFile(built) as archive:
        now = digests(metadata.record(archive))
        changed = sorted(name for name in now.keys() & locked.keys() if now[name] != locked[name])
        lines = [f"differs: {name}" for name in changed]
        lines += [f"only in the new wheel: {name}" for name in sorted(now.keys() - locked.keys())]
        lines += [f"only in the locked wheel: {name}" for name in sorted(locked.keys() - now.keys())]
        yield from shortened(lines, _SHOWN)
        for name in changed[:1]:
            yield from _text(name, read(name), archive.read(name))


def _text(name: str, old: bytes, new: bytes) -> Iterator[str]:
    """The first lines of a difference between two texts."""
    with suppress(UnicodeDecodeError):
        lines = difflib.unified_diff(
            old.decode("utf-8").splitlines(),
            new.decode("utf-8").splitlines(),
            fromfile=f"{name} (locked)",
            tofile=f"{name} (now)",
            n=0,
            lineterm="",
        )
        yield from list(lines)[:_SHOWN]


def digests(entries: Iterable[metadata.RecordEntry]) -> dict[str, str]:
    """The digest of each file, without RECORD itself and files whose place the installer chooses."""
    return {
        entry.path: entry.digest
        for entry in entries
        if not entry.path.endswith(".dist-info/RECORD") and ".data/" not in entry.path
    }


def is_of(info: Path, package: Package) -> bool:
    """Whether a ``.dist-info`` directory is of a package."""
    name, _, version = info.name.removesuffix(".dist-info").partition("-")
    return name.lower().replace("_", "-").replace(".", "-") == package.name and version == package.version
