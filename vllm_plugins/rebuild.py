"""A built wheel that is not there any more is built again: from the locked source, in the locked build environment.

It must come out with the locked hash. If it doesn't, the error says what differs inside of it, as far as that can be
known: an overlay of the store may hold what the locked wheel held.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import installers, overlay, pipconfig, plugins, selection, sources
from . import store as stores
from .errors import HashMismatch, StoreError
from .manifest import GitSource, LocalSource
from .refs import CommitSha
from .wheels import Builder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .lock import Lock, Package, Plugin, Wheel
    from .manifest import Manifest
    from .pipconfig import PipConfig
    from .settings import Settings
    from .sources import Checkout
    from .wheels import BuiltWheel

__all__ = ["missing", "run"]

_SHOWN = 12  # members, and lines of a text, that an error shows


def missing(lock: Lock, settings: Settings) -> tuple[tuple[Plugin, Package, Wheel], ...]:
    """The git and local plugins whose wheel does not lie beside the lock.

    Raises:
        HashMismatch: another wheel lies there.
    """
    return tuple(
        (plugin, package, wheel)
        for plugin in lock.plugins
        if (package := lock.package(plugin.package)) is not None and (plugin.commit or plugin.tree_sha256)
        for wheel in package.wheels
        if wheel.url is None and selection.local(settings.wheels / wheel.filename, wheel.sha256) is None
    )


def run(
    lock: Lock,
    settings: Settings,
    manifest: Manifest | None,
    *,
    report: Callable[[str], None],
    detail: Callable[[str], None],
    config: Callable[[], PipConfig] = pipconfig.read,
) -> tuple[str, ...]:
    """Build what is missing and lay it beside the lock; returns the names of those plugins.

    The manifest, where it is there, knows how to reach a repository, and where a local directory is.

    Raises:
        SourceError: the commit is not to be had any more.
        BuildError: it can't be built.
        HashMismatch: source or wheel are not the locked ones.
        StoreError: the wheel can't be written.
    """
    absent = missing(lock, settings)
    if not absent:
        return ()
    done = []
    with tempfile.TemporaryDirectory(prefix="vllm-plugins-") as directory:
        scratch = Path(directory)
        cache = settings.cache or scratch
        installer = installers.choose(settings.installer, config=config(), cache=cache / "uv")
        with Builder(installer=installer, base_site=overlay.base_paths()) as builder:
            for plugin, package, wheel in absent:
                report(f"Building {plugin.name!r} again: {wheel.filename} is not in {settings.wheels.name}/")
                checkout = _checkout(plugin, manifest, scratch / f"source-{plugin.name}")
                if checkout is None:
                    continue  # whoever needs the wheel says that it is not there
                into = scratch / f"wheel-{plugin.name}"
                pins = package.built_with
                built = builder.wheel(checkout.project, into, plugin=plugin.name, on_line=detail, pins=pins)
                if built.sha256 != wheel.sha256:
                    raise _differs(plugin, package, wheel, built, settings)
                _keep(built.path, settings.wheels / wheel.filename)
                done.append(plugin.name)
    return tuple(done)


def _checkout(plugin: Plugin, manifest: Manifest | None, into: Path) -> Checkout | None:
    """The locked source; ``None`` for a directory of another machine."""
    asked = next((item for item in manifest.plugins if item.name == plugin.name), None) if manifest else None
    source = asked.source if asked is not None else None
    if plugin.commit is not None:
        if not isinstance(source, GitSource) or plugins.public_url(source.url) != plugin.url:
            source = GitSource(url=plugin.url or "")
        source = replace(source, subdirectory=plugin.subdirectory)
        checkout = sources.checkout(source, CommitSha(plugin.commit), into, environ=os.environ, plugin=plugin.name)
    elif manifest is not None and isinstance(source, LocalSource):
        checkout = sources.export_local(manifest.local_directory(source), into, plugin=plugin.name)
    else:
        return None
    if checkout.tree_sha256 != plugin.tree_sha256:
        raise HashMismatch(
            "the source is not the one that was locked",
            where=plugin.url or plugin.requested,
            expected=f"tree-sha256 {plugin.tree_sha256}",
            found=f"tree-sha256 {checkout.tree_sha256}",
            required_by=f"plugin {plugin.name!r}",
            next_step="find out who changed it; if the change is meant, run vllm-plugins lock, and review it",
        )
    return checkout


def _keep(wheel: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        overlay.write_atomically(target, wheel.read_bytes())
    except OSError as error:
        raise StoreError(
            "a wheel that was built again can't be laid beside the lock",
            where=str(error.filename or target),
            found=error.strerror or str(error),
            next_step="give this user write access to that directory",
        ) from error


def _differs(plugin: Plugin, package: Package, wheel: Wheel, built: BuiltWheel, settings: Settings) -> HashMismatch:
    details = []
    if set(package.built_with) != set(built.built_with):
        details += [f"only in the locked build environment: {pin}" for pin in package.built_with]
        details += [f"only in this build environment: {pin}" for pin in built.built_with]
        common = set(package.built_with) & set(built.built_with)
        details = [line for line in details if line.rpartition(": ")[2] not in common]
    site = _installed(wheel, settings.store)
    if site is not None:
        details += _members(built.path, site, package)
    else:
        details.append("what the locked wheel held is not at hand: no overlay of the store has it installed")
    return HashMismatch(
        "the wheel came out otherwise when it was built again",
        where=wheel.filename,
        expected=f"sha256 {wheel.sha256}, {wheel.size} bytes",
        found=f"sha256 {built.sha256}, {built.size} bytes",
        details=details,
        required_by=f"plugin {plugin.name!r}",
        next_step="take the wheel from version control; what differs at each build is built once, and kept",
    )


def _installed(wheel: Wheel, store: Path) -> Path | None:
    """The files of an overlay that the locked wheel was installed into."""
    with suppress(OSError):
        for directory in sorted((store / stores.OVERLAYS).iterdir()):
            with suppress(OSError):
                if wheel.sha256 in (directory / "plugins.lock").read_text(encoding="utf-8"):
                    return directory / overlay.SITE
    return None


def _members(built: Path, site: Path, package: Package) -> Iterator[str]:
    info = next((path for path in site.glob("*.dist-info") if _is_of(path, package)), None)
    if info is None:
        return
    locked = dict(_rows((info / "RECORD").read_text(encoding="utf-8")))
    with zipfile.ZipFile(built) as archive:
        record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        now = dict(_rows(archive.read(record).decode("utf-8")))
        changed = sorted(name for name in now.keys() & locked.keys() if now[name] != locked[name])
        lines = [f"differs: {name}" for name in changed]
        lines += [f"only in the new wheel: {name}" for name in sorted(now.keys() - locked.keys())]
        yield from lines[:_SHOWN]
        if len(lines) > _SHOWN:
            yield f"and {len(lines) - _SHOWN} more"
        for name in changed[:1]:
            yield from _text(name, (site / name).read_bytes(), archive.read(name))


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


def _rows(text: str) -> Iterator[tuple[str, str]]:
    for row in csv.reader(io.StringIO(text)):
        if row and not row[0].endswith(".dist-info/RECORD") and ".data/" not in row[0]:
            yield row[0], row[1] if len(row) > 1 else ""


def _is_of(info: Path, package: Package) -> bool:
    name, _, version = info.name.removesuffix(".dist-info").partition("-")
    return name.lower().replace("_", "-").replace(".", "-") == package.name and version == package.version
