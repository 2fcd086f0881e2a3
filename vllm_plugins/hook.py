"""What vLLM calls, in ``vllm.platform_plugins`` and ``vllm.general_plugins``.

vLLM lists a group's entry points, loads them all, and only then calls the functions (``vllm.plugins``,
``load_plugins_by_group``). So the call that puts the overlay on the path comes too late for that listing, and
runs itself what the listing missed, in that group only. Later groups, and child processes that inherit the path,
find the overlay's plugins without help; there the hook looks after what vLLM would not (:mod:`vllm_plugins.guard`).

In step, a call costs one read of the lock, the manifest and the marker, and a listing of the base. Otherwise one
child process, ``python -m vllm_plugins sync --startup``, makes the store equal to the lock.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from . import logs, overlay, trust
from .logs import logger
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from .errors import PluginsError
    from .overlay import EntryPoint, Marker

__all__ = ["GENERAL", "PLATFORM", "activate", "general", "platform"]

_frame = sys._getframe  # noqa: SLF001 - what vLLM has listed, it hands to nobody

PLATFORM = "vllm.platform_plugins"
GENERAL = "vllm.general_plugins"


class _Process:
    """What has happened in this process.

    ``ran`` is the group whose plugins we ran, ``names`` are theirs, ``busy`` stops re-entry, ``told`` says that there
    is nothing to do was said.
    """

    __slots__ = ("answer", "asked", "busy", "failure", "names", "ran", "told")

    def __init__(self) -> None:
        self.told = False
        self.busy = False
        self.asked = False
        self.answer: str | None = None
        self.failure: Exception | None = None
        self.ran: str | None = None
        self.names: frozenset[str] = frozenset()


_process = _Process()


def platform() -> str | None:
    """The hook in ``vllm.platform_plugins``: the class name that a locked platform plugin answers, or ``None``.

    vLLM asks a winner twice; the answer is kept. It swallows exceptions here, so a failure is kept as well, for
    :func:`general` to raise.

    Raises:
        PluginsError: with ``VLLM_PLUGIN_ON_ERROR=fail``, whatever keeps the lock from being active.
    """
    if _process.busy:
        return None
    if not _process.asked:
        try:
            _process.answer = _start(PLATFORM, _frame(1))
        except Exception as error:  # noqa: BLE001 - vLLM would drop it; it is raised below, and by general()
            _process.failure = error
            logger.error("%s", error)
        finally:
            _process.asked = True
    if _process.failure is not None:
        raise _process.failure
    if _process.answer is not None and _is_listed(_frame(1)):
        return None
    return _process.answer


def general() -> None:
    """The hook in ``vllm.general_plugins``.

    Raises:
        PluginsError: with ``VLLM_PLUGIN_ON_ERROR=fail``, whatever keeps the lock from being active; vLLM stops.
    """
    if _process.busy:
        return
    if _process.failure is not None:
        raise _process.failure
    _start(GENERAL, _frame(1))


def activate() -> None:
    """Make the lock's overlay active in this process, without running any plugin.

    Raises:
        PluginsError: as :func:`general`.
    """
    settings = Settings.from_environment()
    if settings.disabled:
        return
    logs.prepare()
    inherited = overlay.active_key()
    if inherited is not None:
        _follow(settings, inherited)
        _marker(settings, inherited)
    elif (marker := _secured(settings)) is not None:
        overlay.activate(settings.store, marker.key)


def _start(group: str, vllm: FrameType) -> str | None:
    """Activate where that is still to be done, and run what the listing missed; else look after what vLLM does."""
    if os.environ.get("VLLM_PLUGIN_DISABLE") == "1":
        if os.environ.get(overlay.INSTEAD) == "":
            from . import recovery

            recovery.go_without(vllm)
        return None
    settings = Settings.from_environment()
    logs.prepare()
    _process.busy = True
    try:
        inherited = overlay.active_key()
        if inherited is None:
            return _first(settings, group)
        _follow(settings, inherited)
        if _process.ran != group:
            _look_after(settings, group, inherited, vllm)
    except Exception as error:
        from .errors import PluginsError

        if isinstance(error, PluginsError):
            return _fall_back(settings, group, error, vllm)
        raise
    finally:
        _process.busy = False
    return None


def _first(settings: Settings, group: str) -> str | None:
    """The overlay goes on the path in this call."""
    marker = _secured(settings)
    if marker is None:
        return None
    return _activate_and_run(settings, marker, group)


def _follow(settings: Settings, inherited: str) -> None:
    """The overlay was on the path before we were asked, as that of a parent process, or by ``sync --bake``."""
    if overlay.settled(inherited):
        overlay.hold(settings.store, inherited)
    else:
        _settle(settings, inherited)


def _settle(settings: Settings, linked: str) -> None:
    """Find out whether an overlay that is linked into the interpreter is the one to use."""
    marker = _secured(settings)
    found = None if marker is None else marker.key
    if found != linked:
        from .errors import LockStale

        raise LockStale(
            "another overlay is linked into the interpreter than the lock's",
            where=str(settings.lock),
            expected=f"overlay {found[:12]}" if found else "no overlay, as there is no lock",
            found=f"overlay {linked[:12]}",
            next_step="vllm-plugins sync --bake, or vllm-plugins sync --unbake",
        )
    if not overlay.is_on_path(settings.store, linked):
        from .errors import LockStale

        raise LockStale(
            "the overlay that is linked into the interpreter lies in another store",
            where=str(settings.lock),
            expected=f"overlay {linked[:12]} in {settings.store}",
            found=", ".join(entry for entry in sys.path if linked in entry),
            next_step="vllm-plugins sync --bake, or vllm-plugins sync --unbake",
        )
    overlay.settle(linked)


def _fall_back(settings: Settings, group: str, error: PluginsError, vllm: FrameType) -> str | None:
    """Go on with what ``VLLM_PLUGIN_ON_ERROR`` says."""
    from . import recovery

    try:
        marker = recovery.instead(settings, error, vllm, secure=lambda found: _hold(settings, found))
        return None if marker is None else _activate_and_run(settings, marker, group)
    except Exception as final:
        _process.failure = final  # what a platform plugin raises, vLLM drops
        raise


def _activate_and_run(settings: Settings, marker: Marker, group: str) -> str | None:
    overlay.activate(settings.store, marker.key)
    overlay.mirror(settings.store, marker)
    logger.info("Overlay %s is active: %s", marker.key[:12], ", ".join(marker.plugins) or "no plugins")
    _process.ran = group
    points = _allowed(settings, marker, group)
    if not points:
        return None
    from . import loading

    _process.names = frozenset(point.name for point in points)
    answers = loading.run(points)
    return loading.platform(answers) if group == PLATFORM else None


def _look_after(settings: Settings, group: str, key: str, vllm: FrameType) -> None:
    """The overlay was there when vLLM listed this group: what it is about to call says whose error it was."""
    marker = _marker(settings, key)
    points = _allowed(settings, marker, group) if marker is not None else ()
    if not points:
        return
    from . import guard, loading

    def call(point: EntryPoint, function: Callable[[], Any]) -> object:
        from .errors import LoadError

        try:
            return loading.call(point, function)
        except LoadError as error:
            return _fall_back(settings, group, error, vllm)

    guard.lay(points, guard.listed(vllm), call)


def _marker(settings: Settings, key: str) -> Marker | None:
    """The marker of an overlay that is on the path. Its ``.pth`` files are obeyed, if they run code."""
    marker = overlay.read_marker(settings.store, key)
    if marker is not None and marker.import_lines:
        overlay.activate(settings.store, key)
    return marker


def _is_listed(vllm: FrameType) -> bool:
    """Whether vLLM has listed what we have run, which happens where it looks for its platform once more."""
    from . import guard

    return not _process.names.isdisjoint(guard.listed(vllm))


def _allowed(settings: Settings, marker: Marker, group: str) -> list[EntryPoint]:
    return [point for point in marker.group(group) if settings.lets_through(point.group, point.name)]


def _secured(settings: Settings, tries: int = 3) -> Marker | None:
    """The overlay that is in step, trusted and held; one that is pruned before it can be held is installed again."""
    try:
        marker = _ensure(settings)
        if marker is not None:
            _hold(settings, marker)
    except Exception as error:
        from .errors import OverlayGone

        if tries == 1 or not isinstance(error, OverlayGone):
            raise
    else:
        return marker
    logger.info("The overlay was pruned before it could be used; once more")
    return _secured(settings, tries - 1)


def _ensure(settings: Settings) -> Marker | None:
    """The marker of an overlay that is in step with lock, manifest and base; installed first where it is not.

    ``None`` when there is neither manifest nor lock.
    """
    manifest, lock = _read(settings.manifest), _read(settings.lock)
    if lock is None and manifest is None:
        if settings.manifest_named and not _process.told:
            _process.told = True
            logger.info("No plugins: neither %s nor %s is there", settings.manifest, settings.lock)
        return None
    if lock is None and not settings.auto_lock:
        from .errors import LockMissing

        raise LockMissing(
            "there is a manifest and no lock: nothing is installed unlocked",
            where=str(settings.lock),
            next_step=f"vllm-plugins lock --config {settings.manifest}",
        )
    trust.check(settings)
    paths = overlay.base_paths()
    base = overlay.fingerprint(paths)
    wanted = None if manifest is None else overlay.sha256(manifest)
    if lock is not None:
        marker = overlay.read_marker(settings.store, overlay.key_of(lock))
        if marker is not None and marker.in_step(wanted, base) and not settings.refuses(marker, base):
            return marker
    from . import recovery

    if (given := recovery.given(settings, base)) is not None:
        return given
    logger.info("Plugins are not in step with %s: %s", settings.lock, "frozen" if settings.frozen else "installing")
    return recovery.synchronise(settings, paths)


def _hold(settings: Settings, marker: Marker) -> None:
    """Hold an overlay, so that it is not pruned meanwhile, and check that nobody else can have changed it.

    With ``VLLM_PLUGIN_VERIFY=1``, that nobody has.
    """
    overlay.hold(settings.store, marker.key)
    trust.check_overlay(settings, overlay.directory(settings.store, marker.key))
    if settings.verify:
        import time

        from . import integrity
        from .amounts import count, size

        started = time.perf_counter()
        found = integrity.check(settings.store, marker)
        took = (time.perf_counter() - started) * 1000
        logger.info("Verified %s, %s, in %.0f ms", count(found.files, "file"), size(found.size), took)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        from .errors import StoreError

        raise StoreError(
            f"{path.name} can't be read",
            where=str(path),
            found=error.strerror or str(error),
            next_step="make it a file that this user can read",
        ) from error
