"""The functions that vLLM calls, in ``vllm.platform_plugins`` and ``vllm.general_plugins``.

vLLM lists the entry points of a group, loads them all, and only then calls the functions (``vllm.plugins``,
``load_plugins_by_group``). The call that puts the overlay on the path therefore comes too late for that listing, and
runs what the listing missed. In child processes that inherit the path, vLLM has listed the plugins itself: they are
withdrawn (``_vllm_listing``) and run in the same way. Plugins of all other groups are found by vLLM.

A call in a process that is up to date reads the lock, the manifest and the marker, and lists the directories of the
base. Otherwise one child process, ``python -m vllm_plugins sync --startup``, makes the store equal to the lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.startup import _trust, activation, logger, overlay, prepare_logging
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from vllm_plugins.core.errors import PluginsError
    from vllm_plugins.startup.overlay import EntryPoint, Marker

__all__ = ["GENERAL", "PLATFORM", "activate", "general", "platform"]

PLATFORM = "vllm.platform_plugins"
GENERAL = "vllm.general_plugins"


class _Process:
    """The state of this process.

    ``has_run_platform`` says that :func:`platform` was called before, and ``platform_class`` and ``failure`` are its
    result. ``busy`` stops re-entry: an installation or a plugin may import vLLM, which calls the hook again.
    ``active`` is the store and the marker of the overlay on the path. They stay what was checked when it was put
    there, whatever another process does to the store meanwhile. ``base`` is the base as text (``overlay.listing``),
    and the fingerprint of that.
    """

    def __init__(self) -> None:
        self.base: tuple[str, str] | None = None
        self.has_said_nothing_to_do = False
        self.active: tuple[Path, Marker] | None = None
        self.busy = False
        self.has_run_platform = False
        self.platform_class: str | None = None
        self.failure: Exception | None = None


_process = _Process()


def platform() -> str | None:
    """The hook in ``vllm.platform_plugins``: the class name that a locked platform plugin returns, or ``None``.

    vLLM calls the plugin that wins twice, and may resolve its platform again, so the result is kept. vLLM drops
    exceptions here, so a failure is kept too, and :func:`general` raises it.

    Raises:
        PluginsError: with ``VLLM_PLUGIN_ON_ERROR=fail``, the reason why the lock can't be active.
    """
    variables.register()
    if _process.busy or activation.is_disabled_by_user():
        return None
    if activation.active_key() is not None:
        from vllm_plugins.startup import _vllm_listing

        vllm = _vllm_listing.caller()
        if _vllm_listing.is_nested(vllm, platform):
            return None
        if _process.has_run_platform:
            _vllm_listing.withdraw(_vllm_listing.on_path(PLATFORM), vllm, platform)
    if not _process.has_run_platform:
        try:
            _process.platform_class = _start(PLATFORM)
        except Exception as error:  # noqa: BLE001 - vLLM would drop it; it is raised below, and by general()
            _process.failure = error
            logger.error("%s", error)
        finally:
            _process.has_run_platform = True
    if _process.failure is not None:
        raise _process.failure
    return _process.platform_class


def general() -> None:
    """The hook in ``vllm.general_plugins``. It raises the errors of :func:`platform`, with which vLLM stops."""
    variables.register()
    if _process.busy or activation.is_disabled_by_user():
        return
    if _process.failure is not None:
        raise _process.failure
    _start(GENERAL)
    activation.finish(_process.active)


_HOOKS: dict[str, Callable[[], object]] = {PLATFORM: platform, GENERAL: general}


def activate() -> None:
    """Make the lock's overlay active in this process, without running any plugin.

    Raises:
        PluginsError: as :func:`general`.
    """
    if variables.is_disabled():
        if not activation.is_disabled_by_user():
            activation.deactivate(forget_modules=True)
        return
    settings = Settings.from_environment()
    prepare_logging(settings.log_level)
    key = activation.active_key()
    if key is not None:
        _follow(settings, key)
        _active_marker(settings, key)
    elif (marker := _held_marker(settings)) is not None:
        _activate(settings, marker)
    activation.finish(_process.active)


def _leave(group: str) -> None:
    """Take the overlay off the path, and what vLLM has listed of it."""
    if activation.active_key() is not None:
        from vllm_plugins.startup import _vllm_listing

        _vllm_listing.withdraw(_vllm_listing.on_path(group), _vllm_listing.caller(), _HOOKS[group])
    activation.deactivate(forget_modules=True)


def _start(group: str) -> str | None:
    """Make the overlay active unless it is, and run the group's plugins in place of vLLM."""
    if variables.is_disabled():  # this process, or its parent process, goes on without plugins
        _leave(group)
        return None
    settings = Settings.from_environment()
    prepare_logging(settings.log_level)
    _process.busy = True
    try:
        key = activation.active_key()
        if key is None:
            marker = _held_marker(settings)
            return None if marker is None else _activate_and_run(settings, marker, group)
        _follow(settings, key)
        marker = _active_marker(settings, key)
        if marker is None or not (points := marker.group(group)):
            return None
        from vllm_plugins.startup import _vllm_listing

        # Where they can't be withdrawn, vLLM calls them.
        is_withdrawn = _vllm_listing.withdraw(points, _vllm_listing.caller(), _HOOKS[group])
        return _run(settings, points, group) if is_withdrawn else None
    except Exception as error:
        from vllm_plugins.core.errors import PluginsError

        if isinstance(error, PluginsError):
            return _fall_back(settings, group, error)
        raise
    finally:
        _process.busy = False


def _follow(settings: Settings, key: str) -> None:
    """Use an overlay that was on the path before: a parent process put it there, or ``sync --bake`` did."""
    if not activation.is_expected(key):
        activation.expect(settings, overlay.read_marker(settings.store, key), *_base())
    if not activation.is_confirmed(key):
        _confirm(settings, key)
    activation.hold(settings.store, key)
    if settings.verify:
        from vllm_plugins.startup import guard

        guard.follow(settings, key)


def _confirm(settings: Settings, linked: str) -> None:
    """Check that an overlay which is linked into the interpreter is the lock's."""
    marker = _up_to_date_marker(settings)
    if marker is None or marker.key != linked or not activation.is_on_path(settings.store, linked):
        from vllm_plugins.startup import _recovery

        raise _recovery.wrong_link(settings, linked, None if marker is None else marker.key)
    _hold(settings, marker)
    activation.confirm(linked)


def _fall_back(settings: Settings, group: str, error: PluginsError) -> str | None:
    """Do what ``VLLM_PLUGIN_ON_ERROR`` says."""
    from vllm_plugins.startup import _recovery

    def secure(candidate: Marker) -> None:
        _trust.check_store(settings)
        _hold(settings, candidate)

    marker = _recovery.fall_back(settings, error, leave=lambda: _leave(group), secure=secure)
    return None if marker is None else _activate_and_run(settings, marker, group, is_fallback=True)


def _activate_and_run(settings: Settings, marker: Marker, group: str, *, is_fallback: bool = False) -> str | None:
    _activate(settings, marker)
    overlay.mirror(settings.store, marker, settings.lock)
    logger.info("Overlay %s is active: %s", marker.key[:12], ", ".join(marker.plugins) or "no plugins")
    is_late = _process.has_run_platform or any(marker.group(ignored) for ignored, _ in settings.ignored)
    if group == GENERAL and is_late and not is_fallback:
        from vllm_plugins.startup.environment import _missed

        _missed.check(settings, marker, has_platform=_process.has_run_platform)
    result = _run(settings, marker.group(group), group)
    if not is_fallback and overlay.has_failure_note(settings.store, settings.lock):
        from vllm_plugins.startup import last_failure

        last_failure.clear(settings)
    return result


def _activate(settings: Settings, marker: Marker) -> None:
    activation.put_in_front(settings.store, marker)
    activation.activate(settings.store, marker.key, guarded=settings.verify, path_files=marker.path_files)
    _process.active = settings.store, marker
    _check_origins(settings, marker)


def _check_origins(settings: Settings, marker: Marker) -> None:
    """Check that plugins are imported from the overlay, also those that vLLM loads itself."""
    if marker.editable:
        from vllm_plugins.startup import integrity

        for error in integrity.editable_code(settings.store, marker):
            raise error
    if activation.may_be_shadowed(marker):
        from vllm_plugins.startup._path import origins

        origins.check(point for point in marker.entry_points if settings.lets_through(point.group, point.name))


def _run(settings: Settings, points: Iterable[EntryPoint], group: str) -> str | None:
    allowed = [point for point in points if settings.lets_through(point.group, point.name)]
    if not allowed:
        return None
    from vllm_plugins.startup import entry_points

    results = entry_points.run(allowed)
    return entry_points.platform(results) if group == PLATFORM else None


def _active_marker(settings: Settings, key: str) -> Marker | None:
    """The marker of an overlay that is on the path. If its ``.pth`` files run code, they are run in this process."""
    store, marker = _process.active or (None, None)
    if marker is None or marker.key != key or store != settings.store:
        marker = overlay.read_marker(settings.store, key)
        if marker is None:
            return None
        activation.put_in_front(settings.store, marker)
        if marker.import_lines:
            activation.activate(settings.store, key, guarded=settings.verify)
        _process.active = settings.store, marker
    _check_origins(settings, marker)
    return marker


def _held_marker(settings: Settings, tries: int = 3) -> Marker | None:
    """The overlay that is up to date, trusted and held. If it is pruned before that, it is installed again."""
    try:
        marker = _up_to_date_marker(settings)
        if marker is not None:
            _hold(settings, marker)
    except Exception as error:
        from vllm_plugins.core.errors import OverlayGone

        if tries == 1 or not isinstance(error, OverlayGone):
            raise
    else:
        return marker
    logger.info("The overlay was pruned before it could be used; trying again")
    return _held_marker(settings, tries - 1)


def _up_to_date_marker(settings: Settings) -> Marker | None:
    """The overlay that is up to date with lock, manifest and base, installed first if necessary.

    ``None`` where there is neither manifest nor lock, and none is expected.
    """
    manifest, lock = overlay.read_file(settings.manifest), overlay.read_file(settings.lock)
    if variables.inherited(variables.FALLBACK):
        from vllm_plugins.startup import _recovery

        if (marker := _recovery.inherited(settings, lock)) is not None:
            _trust.check(settings)
            return marker
    if lock is None and manifest is None:
        if not _process.has_said_nothing_to_do:  # a forgotten mount must not start a server without plugins
            from vllm_plugins.startup import _recovery

            _recovery.check_named_files(settings)
            _process.has_said_nothing_to_do = True
        activation.expect(settings, None, "", "")
        return None
    if manifest is None and settings.manifest_named and not settings.optional:
        from vllm_plugins.startup import named_files

        named_files.check_manifest(settings)
    if lock is None and not settings.auto_lock:
        from vllm_plugins.startup import named_files

        raise named_files.no_lock(settings)
    _trust.check(settings)
    paths = overlay.base_paths()
    _, base = _process.base = _base(paths)
    manifest_sha256 = None if manifest is None else overlay.sha256(manifest)
    if lock is not None:
        marker = overlay.read_marker(settings.store, overlay.key_of(lock))
        if marker is not None and marker.is_up_to_date(manifest_sha256, base) and not settings.refuses(marker, base):
            return marker
    from vllm_plugins.startup import _recovery

    return _recovery.synchronise(settings, paths)


def _base(paths: tuple[str, ...] | None = None) -> tuple[str, str]:
    """The base as text, and its fingerprint."""
    listing = overlay.listing(paths)
    return listing, overlay.fingerprint_of(listing)


def _hold(settings: Settings, marker: Marker) -> None:
    """Hold an overlay, so that it can't be pruned, and check that no other user can have changed it.

    With ``VLLM_PLUGIN_VERIFY=1`` also check that nobody has, once in each process. It is held first: what is checked
    can't be replaced then.
    """
    activation.hold(settings.store, marker.key)
    try:
        _trust.check_overlay(settings, overlay.directory(settings.store, marker.key))
        if settings.verify:
            from vllm_plugins.startup import guard

            guard.check(settings, marker)
        activation.expect(settings, marker, *(_process.base or _base()))
    except Exception:
        activation.release(marker.key)
        raise
