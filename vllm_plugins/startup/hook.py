"""What vLLM calls, in ``vllm.platform_plugins`` and ``vllm.general_plugins``.

vLLM lists a group's entry points, loads them all, and only then calls the functions (``vllm.plugins``,
``load_plugins_by_group``). So the call that puts the overlay on the path comes too late for that listing, and
runs itself what the listing missed. Where the path was there before, in child processes that inherit it, vLLM has
listed the plugins; they are withdrawn, and run in the same way (``_vllm_listing``). What groups other than
these two have, vLLM finds without help.

In step, a call costs one read of the lock, the manifest and the marker, and a listing of the base. Otherwise one
child process, ``python -m vllm_plugins sync --startup``, makes the store equal to the lock.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from vllm_plugins.startup import _trust, activation, logger, overlay, prepare_logging
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import FrameType

    from vllm_plugins.core.errors import PluginsError
    from vllm_plugins.startup.overlay import EntryPoint, Marker

__all__ = ["GENERAL", "PLATFORM", "activate", "general", "platform"]

_frame = sys._getframe  # noqa: SLF001 - what vLLM has listed, it hands to nobody

PLATFORM = "vllm.platform_plugins"
GENERAL = "vllm.general_plugins"


class _Process:
    """What has happened in this process.

    ``answer`` and ``failure`` are of :func:`platform`, ``busy`` stops re-entry, ``told`` says that it was said that
    there is nothing to do.
    """

    __slots__ = ("answer", "asked", "busy", "failure", "told")

    def __init__(self) -> None:
        self.told = False
        self.busy = False
        self.asked = False
        self.answer: str | None = None
        self.failure: Exception | None = None


_process = _Process()


def platform() -> str | None:
    """The hook in ``vllm.platform_plugins``: the class name that a locked platform plugin answers, or ``None``.

    vLLM asks a winner twice, and may look for its platform again; the answer is kept. It swallows exceptions here, so
    a failure is kept as well, for :func:`general` to raise.

    Raises:
        PluginsError: with ``VLLM_PLUGIN_ON_ERROR=fail``, whatever keeps the lock from being active.
    """
    if _process.busy:
        return None
    vllm = _frame(1)
    if _process.asked:
        if activation.active_key() is not None:
            from vllm_plugins.startup import _vllm_listing

            _vllm_listing.withdraw(_vllm_listing.on_path(PLATFORM), vllm, platform)
    else:
        try:
            _process.answer = _start(PLATFORM, vllm)
        except Exception as error:  # noqa: BLE001 - vLLM would drop it; it is raised below, and by general()
            _process.failure = error
            logger.error("%s", error)
        finally:
            _process.asked = True
    if _process.failure is not None:
        raise _process.failure
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


_HOOKS: dict[str, Callable[[], object]] = {PLATFORM: platform, GENERAL: general}


def activate() -> None:
    """Make the lock's overlay active in this process, without running any plugin.

    Raises:
        PluginsError: as :func:`general`.
    """
    if _is_disabled(lambda: activation.deactivate(forget_modules=True)):
        return
    settings = Settings.from_environment()
    prepare_logging()
    inherited = activation.active_key()
    if inherited is not None:
        _follow(settings, inherited)
        _marker(settings, inherited)
    elif (marker := _secured(settings)) is not None:
        activation.activate(settings.store, marker.key)


def _is_disabled(leave: Callable[[], None]) -> bool:
    """Whether there is nothing to do. As the process that started this one, it may have to go on without plugins."""
    if os.environ.get("VLLM_PLUGIN_DISABLE") != "1":
        return False
    if os.environ.get(activation.INSTEAD) == "":
        leave()
    return True


def _leave(group: str, vllm: FrameType) -> None:
    """Give up what is on the path: vLLM calls nothing of it any more."""
    if activation.active_key() is not None:
        from vllm_plugins.startup import _vllm_listing

        _vllm_listing.withdraw(_vllm_listing.on_path(group), vllm, _HOOKS[group])
    activation.deactivate(forget_modules=True)


def _start(group: str, vllm: FrameType) -> str | None:
    """Activate where that is still to be done, and run the group's plugins, of which vLLM then calls none itself."""
    if _is_disabled(lambda: _leave(group, vllm)):
        return None
    settings = Settings.from_environment()
    prepare_logging()
    _process.busy = True
    try:
        inherited = activation.active_key()
        if inherited is None:
            marker = _secured(settings)
            return None if marker is None else _activate_and_run(settings, marker, group)
        _follow(settings, inherited)
        marker = _marker(settings, inherited)
        if marker is None or not (points := marker.group(group)):
            return None
        from vllm_plugins.startup import _vllm_listing

        # Where that is not possible, vLLM calls them.
        return _run(settings, points, group) if _vllm_listing.withdraw(points, vllm, _HOOKS[group]) else None
    except Exception as error:
        from vllm_plugins.core.errors import PluginsError

        if isinstance(error, PluginsError):
            return _fall_back(settings, group, error, vllm)
        raise
    finally:
        _process.busy = False


def _follow(settings: Settings, inherited: str) -> None:
    """The overlay was on the path before we were asked, as that of a parent process, or by ``sync --bake``."""
    if activation.settled(inherited):
        activation.hold(settings.store, inherited)
    else:
        _settle(settings, inherited)


def _settle(settings: Settings, linked: str) -> None:
    """Find out whether an overlay that is linked into the interpreter is the one to use."""
    marker = _ensure(settings)
    found = None if marker is None else marker.key
    if marker is None or found != linked:
        from vllm_plugins.core.errors import LockStale

        raise LockStale(
            "another overlay is linked into the interpreter than the lock's",
            where=str(settings.lock),
            expected=f"overlay {found[:12]}" if found else "no overlay, as there is no lock",
            found=f"overlay {linked[:12]}",
            next_step="vllm-plugins sync --bake, or vllm-plugins sync --unbake",
        )
    if not activation.is_on_path(settings.store, linked):
        from vllm_plugins.core.errors import LockStale

        raise LockStale(
            "the overlay that is linked into the interpreter lies in another store",
            where=str(settings.lock),
            expected=f"overlay {linked[:12]} in {settings.store}",
            found=", ".join(entry for entry in sys.path if linked in entry),
            next_step="vllm-plugins sync --bake, or vllm-plugins sync --unbake",
        )
    _hold(settings, marker)
    activation.settle(linked)


def _fall_back(settings: Settings, group: str, error: PluginsError, vllm: FrameType) -> str | None:
    """Go on with what ``VLLM_PLUGIN_ON_ERROR`` says."""
    from vllm_plugins.startup import _recovery

    def secure(candidate: Marker) -> None:
        _trust.check_store(settings)
        _hold(settings, candidate)

    marker = _recovery.instead(settings, error, leave=lambda: _leave(group, vllm), secure=secure)
    return None if marker is None else _activate_and_run(settings, marker, group)


def _activate_and_run(settings: Settings, marker: Marker, group: str) -> str | None:
    activation.activate(settings.store, marker.key)
    overlay.mirror(settings.store, marker)
    logger.info("Overlay %s is active: %s", marker.key[:12], ", ".join(marker.plugins) or "no plugins")
    return _run(settings, marker.group(group), group)


def _run(settings: Settings, points: Iterable[EntryPoint], group: str) -> str | None:
    allowed = [point for point in points if settings.lets_through(point.group, point.name)]
    if not allowed:
        return None
    from vllm_plugins.startup import entry_points

    answers = entry_points.run(allowed)
    return entry_points.platform(answers) if group == PLATFORM else None


def _marker(settings: Settings, key: str) -> Marker | None:
    """The marker of an overlay that is on the path. Its ``.pth`` files are obeyed, if they run code."""
    marker = overlay.read_marker(settings.store, key)
    if marker is not None and marker.import_lines:
        activation.activate(settings.store, key)
    return marker


def _secured(settings: Settings, tries: int = 3) -> Marker | None:
    """The overlay that is in step, trusted and held; one that is pruned before it can be held is installed again."""
    try:
        marker = _ensure(settings)
        if marker is not None:
            _hold(settings, marker)
    except Exception as error:
        from vllm_plugins.core.errors import OverlayGone

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
    if os.environ.get(activation.INSTEAD):
        from vllm_plugins.startup import _recovery

        if (given := _recovery.given(settings, lock)) is not None:
            _trust.check(settings)
            return given
    if lock is None and manifest is None:
        if settings.manifest_named and not _process.told:
            _process.told = True
            logger.info("No plugins: neither %s nor %s is there", settings.manifest, settings.lock)
        return None
    if lock is None and not settings.auto_lock:
        from vllm_plugins.core.errors import LockMissing

        raise LockMissing(
            "there is a manifest and no lock: nothing is installed unlocked",
            where=str(settings.lock),
            next_step=f"vllm-plugins lock --config {settings.manifest}",
        )
    _trust.check(settings)
    paths = overlay.base_paths()
    base = overlay.fingerprint(paths)
    wanted = None if manifest is None else overlay.sha256(manifest)
    if lock is not None:
        marker = overlay.read_marker(settings.store, overlay.key_of(lock))
        if marker is not None and marker.in_step(wanted, base) and not settings.refuses(marker, base):
            return marker
    from vllm_plugins.startup import _recovery

    logger.info("Plugins are not in step with %s: %s", settings.lock, "frozen" if settings.frozen else "installing")
    return _recovery.synchronise(settings, paths)


def _hold(settings: Settings, marker: Marker) -> None:
    """Hold an overlay, so that it is not pruned meanwhile, and check that nobody else can have changed it.

    With ``VLLM_PLUGIN_VERIFY=1``, that nobody has.
    """
    activation.hold(settings.store, marker.key)
    try:
        _check(settings, marker)
    except Exception:
        activation.release(marker.key)
        raise


def _check(settings: Settings, marker: Marker) -> None:
    _trust.check_overlay(settings, overlay.directory(settings.store, marker.key))
    if settings.verify:
        import time

        from vllm_plugins.core.humanize import count, size
        from vllm_plugins.startup import integrity

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
        from vllm_plugins.core.errors import StoreError

        raise StoreError(
            f"{path.name} can't be read",
            where=str(path),
            found=error.strerror or str(error),
            next_step="make it a file that this user can read",
        ) from error
