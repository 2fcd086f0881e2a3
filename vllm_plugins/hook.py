"""What vLLM calls, in ``vllm.platform_plugins`` and ``vllm.general_plugins``.

vLLM lists a group's entry points, loads them all, and only then calls the functions (``vllm.plugins``,
``load_plugins_by_group``). So the call that puts the overlay on the path comes too late for that listing, and
runs itself what the listing missed, in that group only. Later groups, and child processes that inherit the path,
find the overlay's plugins without help; there the hook looks after what vLLM would not: a plugin that it could not
load, and one that raises.

In step, a call costs one read of the lock, the manifest and the marker, and a listing of the base. Otherwise one
child process, ``python -m vllm_plugins sync --startup``, makes the store equal to the lock.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from . import logs, overlay, trust
from .logs import logger
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .errors import PluginsError
    from .overlay import EntryPoint, Marker

__all__ = ["GENERAL", "PLATFORM", "activate", "general", "platform"]

PLATFORM = "vllm.platform_plugins"
GENERAL = "vllm.general_plugins"


class _Process:
    """What has happened in this process.

    ``ran`` is the group whose plugins we ran, ``busy`` stops re-entry, ``abandoned`` is the key of an overlay that
    was given up, ``told`` says that there is nothing to do was said.
    """

    __slots__ = ("abandoned", "answer", "asked", "busy", "failure", "ran", "told")

    def __init__(self) -> None:
        self.abandoned: str | None = None
        self.told = False
        self.busy = False
        self.asked = False
        self.answer: str | None = None
        self.failure: Exception | None = None
        self.ran: str | None = None


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
            _process.answer = _start(PLATFORM)
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
    _start(GENERAL)


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
    if inherited is not None and not overlay.settled(inherited):
        _settle(settings, inherited)
    elif inherited is None and (marker := _secured(settings)) is not None:
        overlay.activate(settings.store, marker.key)


def _start(group: str) -> str | None:
    """Activate where that is still to be done, and run what the listing missed; else look after what vLLM does."""
    settings = Settings.from_environment()
    if settings.disabled:
        return None
    logs.prepare()
    _process.busy = True
    try:
        inherited = overlay.active_key()
        if inherited is None:
            return _first(settings, group)
        if not overlay.settled(inherited):
            _settle(settings, inherited)
        if _process.ran != group:
            _look_after(settings, group, inherited, _loaded_by_vllm(group))
    except Exception as error:
        from .errors import PluginsError

        if isinstance(error, PluginsError):
            return _fall_back(settings, group, error)
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


def _settle(settings: Settings, linked: str) -> None:
    """The overlay was on the path before we were asked: ``sync --bake`` has linked it into the interpreter."""
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


def _fall_back(settings: Settings, group: str, error: PluginsError) -> str | None:
    """Go on with what ``VLLM_PLUGIN_ON_ERROR`` says."""
    from . import recovery

    _process.abandoned = overlay.active_key()
    marker = recovery.instead(settings, error)
    if marker is None:
        return None
    _trust(settings, marker)
    return _activate_and_run(settings, marker, group)


def _activate_and_run(settings: Settings, marker: Marker, group: str) -> str | None:
    overlay.activate(settings.store, marker.key)
    overlay.mirror(settings.store, marker)
    logger.info("Overlay %s is active: %s", marker.key[:12], ", ".join(marker.plugins) or "no plugins")
    _process.ran = group
    points = _allowed(settings, marker, group)
    if not points:
        return None
    from . import loading

    answers = loading.run(points)
    return loading.platform(answers) if group == PLATFORM else None


def _look_after(settings: Settings, group: str, key: str, loaded: dict[str, Callable[[], Any]]) -> None:
    """The overlay was there when vLLM listed this group: vLLM logs a plugin that can't be loaded, and goes on.

    It then calls general plugins with no ``try``, after ours, which comes first on the path. So each of ``loaded``
    is replaced by one that says whose error it was.
    """
    marker = overlay.read_marker(settings.store, key)
    if marker is None:
        return
    if marker.import_lines:
        overlay.activate(settings.store, key)
    points = _allowed(settings, marker, group)
    if not points:
        return
    from . import loading

    for point in points:
        function = loading.load(point)
        if loaded.get(point.name) is function:
            loaded[point.name] = _guarded(settings, key, point, function)


def _loaded_by_vllm(group: str) -> dict[str, Callable[[], Any]]:
    """The functions that ``vllm.plugins.load_general_plugins`` is going through: the frame that has called us."""
    if group == GENERAL:
        found: object = sys._getframe(3).f_locals.get("plugins")  # noqa: SLF001 - vLLM hands it to nobody
        if isinstance(found, dict):
            return found
    return {}


def _guarded(settings: Settings, key: str, point: EntryPoint, function: Callable[[], Any]) -> Callable[[], object]:
    from . import loading
    from .errors import LoadError

    def call() -> object:
        if _process.abandoned == key:
            return None
        try:
            return loading.call(point, function)
        except LoadError as error:
            return _fall_back(settings, point.group, error)

    return call


def _allowed(settings: Settings, marker: Marker, group: str) -> list[EntryPoint]:
    return [point for point in marker.group(group) if settings.lets_through(point.group, point.name)]


def _secured(settings: Settings, tries: int = 3) -> Marker | None:
    """The overlay that is in step, trusted and held; one that is pruned before it can be held is installed again."""
    try:
        marker = _ensure(settings)
        if marker is not None:
            overlay.hold(settings.store, marker.key)
            _trust(settings, marker)
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

    logger.info("Plugins are not in step with %s: %s", settings.lock, "frozen" if settings.frozen else "installing")
    return recovery.synchronise(settings, paths)


def _trust(settings: Settings, marker: Marker) -> None:
    """Check that nobody else can have changed an overlay; with ``VLLM_PLUGIN_VERIFY=1``, that nobody has."""
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
