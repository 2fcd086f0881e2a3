"""The import path of a process: put an overlay on it, hold the overlay, and take it off again.

An overlay may also be on the path already: inherited from the parent process, or linked with ``sync --bake``.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import sys
import time
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import machine, overlay
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker
    from vllm_plugins.startup.settings import Settings

__all__ = [
    "activate",
    "active_key",
    "confirm",
    "deactivate",
    "expect",
    "finish",
    "fronts",
    "has_foreign_expectation",
    "hold",
    "is_confirmed",
    "is_disabled_by_user",
    "is_expected",
    "is_on_path",
    "is_site",
    "may_be_shadowed",
    "put_in_front",
    "release",
]

# What may_be_shadowed does not look into: the standard library, and where packages are installed.
_LIBRARY = os.path.dirname(os.__file__)
_IN_LIBRARY = os.path.join(_LIBRARY, "")
_ARCHIVE = os.path.join(os.path.dirname(_LIBRARY), f"python{sys.version_info[0]}{sys.version_info[1]}.zip")
_PACKAGES = ("/site-packages", "/dist-packages")

_FEW = 5  # names that are searched in all directories faster than the listings of these directories are read
HOLD_PATIENCE = 10.0  # seconds: a process that looks at an overlay, or prunes it, locks it for a moment

# The key of the overlay that this process has activated, and the path entries and finders that came with it.
_active: tuple[str, list[str], list[Any]] | None = None
_held: dict[str, int] = {}
# A value of VLLM_PLUGIN_EXPECT, and whose it is: one that was compared, or this process's own, passed on or not yet.
_COMPARED, _PASSED_ON, _OWN = "compared", "passed on", "own"
_expected: tuple[str, str] | None = None


def is_disabled_by_user() -> bool:
    """Whether this package must do nothing, even if an overlay is on the path: vLLM then handles plugins itself.

    A parent process that goes on without plugins disables its child processes, too, and passes on that it fell back.
    """
    return variables.is_disabled() and variables.inherited(variables.FALLBACK) != ""


def active_key() -> str | None:
    """The key of the overlay on the path, put there by this process, its parent process, or a link."""
    if _active is not None:
        return _active[0]
    return next((key for entry in overlay.entries() if (key := overlay.key_in(entry)) is not None), None)


def is_site(entry: object) -> bool:
    """Whether an entry of ``sys.path`` is an overlay."""
    return isinstance(entry, str) and overlay.key_in(entry) is not None


def fronts() -> list[str]:
    """The entries of the path that are in front of the base, of any overlay."""
    return [entry for entry in overlay.entries() if overlay.front_in(entry) is not None]


def put_in_front(store: Path, marker: Marker) -> None:
    """Put what overrides the base in front of it, in this process and its child processes.

    Raises:
        OverrideInactive: it is too late for that, or what is in front is another overlay's.
    """
    if marker.overrides or fronts():
        from vllm_plugins.startup._path import overrides

        overrides.put_in_front(store, marker)


def is_on_path(store: Path, key: str) -> bool:
    """Whether the overlay with this key on the path is the one in this store, and not in another."""
    ours = os.path.realpath(overlay.directory(store, key) / overlay.SITE)
    there = (overlay.real(entry) for entry in overlay.entries() if overlay.key_in(entry) == key)
    return all(os.path.realpath(entry) == ours for entry in there)


def may_be_shadowed(marker: Marker) -> bool:
    """Whether a module of an entry point may have been imported from elsewhere, or might be.

    A start that is up to date runs this, so it only looks for names. Installed packages are not looked at: the load
    check has met them, and ``load`` looks where a module would come from.
    """
    modules = marker.top_level
    if any(map(sys.modules.__contains__, modules)):
        return True
    before = itertools.takewhile(lambda entry: overlay.key_in(entry) is None, overlay.entries())
    path = [entry for entry in before if not _is_installed(entry)]
    if len(modules) > _FEW:
        return any(PathFinder.find_spec(name, [entry]) for entry in path for name in _listed(entry, modules))
    return any(PathFinder.find_spec(name, path) for name in modules)


def _is_installed(entry: str) -> bool:
    return entry.endswith(_PACKAGES) or entry in (_LIBRARY, _ARCHIVE) or entry.startswith(_IN_LIBRARY)


def _listed(entry: str, modules: frozenset[str]) -> frozenset[str]:
    """Those of the modules that a path entry may have. Archives and what other path hooks serve may have any."""
    try:
        listed = overlay.listed(entry or os.getcwd())
    except OSError:  # the working directory was deleted
        return frozenset()
    return modules if listed is None else modules.intersection(name.partition(".")[0] for name in listed)


def is_confirmed(key: str) -> bool:
    """Whether this process, or one before it on this node, has found an overlay to be the right one."""
    return variables.inherited(variables.CONFIRMED) == _confirmation(key)


def confirm(key: str) -> None:
    """Tell this process, and those that it starts, that an overlay is the right one: they don't check again."""
    variables.pass_on(variables.CONFIRMED, _confirmation(key))


def _confirmation(key: str) -> str:
    """The overlay, and the node on which it was checked: Ray copies variables to others, which have other files."""
    return f"{key}:{machine()}"


def is_expected(key: str) -> bool:
    """Whether ``VLLM_PLUGIN_EXPECT`` is missing, was compared before, or contains the key of an overlay."""
    value = variables.inherited(variables.EXPECT)  # Ray gives it after the platform was chosen: nothing was compared
    if value is None or _expected is None:
        return value is None or key in value
    return _expected[0] == value and _expected[1] != _OWN


def has_foreign_expectation() -> bool:
    """Whether ``VLLM_PLUGIN_EXPECT`` comes from a process of another node, or from the user."""
    value = variables.inherited(variables.EXPECT)
    if value is None or value == "any":
        return False
    if _expected is None:
        return not is_confirmed((variables.inherited(variables.CONFIRMED) or "").partition(":")[0])
    return _expected != (value, _PASSED_ON)


def expect(settings: Settings, marker: Marker | None, listing: str, base: str) -> None:
    """Compare an overlay (``None``: no plugins) and the base with what the first process of the server has.

    The base is given as text, and as its fingerprint.

    Raises:
        NodeMismatch: something differs.
        UsageError: the variable has an invalid value.
    """
    global _expected  # noqa: PLW0603
    value = variables.inherited(variables.EXPECT)
    found = None if marker is None else marker.expectation(listing, base)
    # An empty value is not valid: the command failed that should have given it.
    if value is not None and _expected != (value, _PASSED_ON):
        # A parent process on this node has compared more than the text; this one has not, before the value came.
        if marker is None or value != found or _expected is not None or not is_confirmed(marker.key):
            from vllm_plugins.startup.ranks import expectation

            expectation.compare(value, settings, marker, listing)
        _expected = value, _COMPARED
    elif found is not None:
        _expected = found, _OWN


def finish(active: tuple[Path, Marker] | None) -> None:
    """Wait for a load check alongside this start, where this process must; pass on what child processes must have.

    vLLM's metrics show the overlay. The variable for child processes is set only after general plugins have run. Ray
    (executor V2, 0.32) gives a worker the server's variables before that, after its platform plugins, and overwrites
    none: the worker's own value would stay.
    """
    global _expected  # noqa: PLW0603
    if variables.inherited(variables.TRIAL):
        from vllm_plugins.startup._trial import alongside

        alongside.settle()
    if _expected is not None and variables.inherited(variables.EXPECT) is None:
        _expected = _expected[0], _PASSED_ON
        variables.pass_on(variables.EXPECT, _expected[0])
    if "prometheus_client" in sys.modules:
        from vllm_plugins.startup import _vllm_process

        _vllm_process.show(active)
    if "torch.distributed" in sys.modules:
        from vllm_plugins.startup import _vllm_process

        _vllm_process.compare_ranks(active)


def hold(store: Path, key: str) -> None:
    """Keep an overlay from being pruned as long as this process lives, with a shared lock of its directory.

    An overlay on the path is held where it is, whatever the store. Where locks don't work, nothing is held.

    Raises:
        OverlayGone: the overlay was removed from the store.
        StoreError: it can't be held.
    """
    if sys.flags.optimize:  # Python would write optimized bytecode into the overlay, which must stay as published
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # for child processes, which import before they call the hook
    if key not in _held:
        try:
            places = (overlay.real(entry) for entry in overlay.entries() if overlay.key_in(entry) == key)
            _held[key] = _hold(next(places, None) or overlay.site(store, key))
        except OSError as error:
            from vllm_plugins.startup import _recovery

            raise _recovery.not_held(store, key, error) from error


def release(key: str) -> None:
    """Stop holding an overlay."""
    if key in _held:
        os.close(_held.pop(key))


def _hold(path: str) -> int:
    """A descriptor with which a directory is locked, and which still is the directory at that path.

    Between opening and locking, the directory may have been replaced (``sync --reinstall``) or pruned: the lock would
    be of a directory that nobody uses, and the one at the path could be pruned. So both are compared afterwards.
    """
    deadline = time.monotonic() + HOLD_PATIENCE
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _is_shared(descriptor, deadline) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_shared(descriptor: int, deadline: float) -> bool:
    """Take a shared lock of a directory. False while another process has locked it; true where locks don't work.

    All other locks are taken by ``core.flock``, which a start that is up to date does not load.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.01)
        return False
    except OSError:
        pass
    return True


def activate(store: Path, key: str, *, guarded: bool = False, path_files: bool = True) -> None:
    """Put an overlay at the end of ``sys.path``, and process its ``.pth`` files. Does nothing if it is active.

    Only the import system of this process changes. No file is written. ``guarded``: see :mod:`guard`. Without
    ``path_files`` nothing looks for any: ``site`` would list a directory with hundreds of names.

    Raises:
        StoreError: the overlay can't be held, as in :func:`hold`.
        LoadError: a ``.pth`` file of the overlay has ended the process (``sys.exit``).
    """
    global _active  # noqa: PLW0603 - the path is the process's, and so is the undo
    if _active is not None and _active[0] == key:
        return
    hold(store, key)
    confirm(key)
    before, finders = set(overlay.entries()), list(sys.meta_path)
    # Without this set, `site` would look up every entry of the path in the file system.
    known = set(map(os.path.normpath, filter(os.path.isabs, before)))
    site = overlay.site(store, key)
    try:
        if guarded:
            from vllm_plugins.startup import guard

            guard.close()
        if path_files:
            from vllm_plugins.startup._path import namespaces

            namespaces.add_site(site, known)
        elif site not in known:
            sys.path.append(site)
        if guarded:
            guard.close()
    except BaseException as error:
        # `site` reports exceptions of .pth files and goes on, except for those that end a process.
        from vllm_plugins.startup import load_errors

        deactivate()
        if isinstance(error, Exception):
            raise
        raise load_errors.in_path_file(site, error) from error
    entries = [entry for entry in overlay.entries() if entry not in before]
    _active = key, entries, [finder for finder in sys.meta_path if finder not in finders]


def deactivate(*, forget_modules: bool = False) -> None:
    """Take the active overlay off the path. With ``forget_modules``, also forget the modules imported from it."""
    global _active, _expected  # noqa: PLW0603
    from vllm_plugins.startup._path import removal

    _, entries, finders = _active or ("", [], [])
    removal.remove(entries, finders, forget_modules=forget_modules)
    for key in list(_held):
        release(key)
    variables.pass_on(variables.CONFIRMED, None)
    if _expected == (variables.inherited(variables.EXPECT), _PASSED_ON):
        variables.pass_on(variables.EXPECT, None)
    _active = _expected = None
