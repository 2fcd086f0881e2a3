"""The import path of a process: which overlay is on it, holding one, putting it on and taking it off again.

A child process may inherit the path, and a link (``sync --bake``) be there before anybody asks. Everything here is
standard library: it runs in every vLLM process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import site as _site
import sys
import time
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "activate",
    "active_key",
    "deactivate",
    "hold",
    "is_on_path",
    "is_site",
    "release",
    "settle",
    "settled",
]

HOLD_PATIENCE = 10.0  # seconds: who looks or prunes has an overlay alone for a moment
# Variables of ours alone: vLLM warns of those that begin with VLLM_.
SETTLED = "_VLLM_PLUGINS_OVERLAY"
INSTEAD = "_VLLM_PLUGINS_INSTEAD"

# The key of what was activated in this process, and the entries and finders that came with it: to be undone.
_active: tuple[str, list[str], list[Any]] | None = None
_held: dict[str, int] = {}


def active_key() -> str | None:
    """The key of the overlay on this process's path: put there by us, by the parent process, or by a link."""
    if _active is not None:
        return _active[0]
    for entry in overlay.entries():
        key = overlay.key_in(entry)
        if key is not None:
            return key
    return None


def is_site(entry: object) -> bool:
    """Whether an entry of a path is an overlay."""
    return isinstance(entry, str) and overlay.key_in(entry) is not None


def is_on_path(store: Path, key: str) -> bool:
    """Whether the overlay of that key which is on this process's path is the one in this store."""
    ours = os.path.realpath(overlay.directory(store, key) / overlay.SITE)
    return all(os.path.realpath(entry) == ours for entry in overlay.entries() if overlay.key_in(entry) == key)


def settled(key: str) -> bool:
    """Whether this process, or one that it comes from, has found that overlay to be the one to use."""
    return os.environ.get(SETTLED) == key


def settle(key: str) -> None:
    """Note, for this process and those that it starts, that an overlay is the one to use: they ask no more."""
    os.environ[SETTLED] = key


def hold(store: Path, key: str) -> None:
    """Keep an overlay from being pruned while this process lives.

    A shared lock of its directory says so, which ends with the process. Where locks do not work, nothing does. One
    that is on the path is held where it lies, whatever the store.

    Raises:
        OverlayGone: it was taken out of the store.
        StoreError: it can't be held.
    """
    if sys.flags.optimize:  # its bytecode would be written into the overlay, which stays as it was published
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # for child processes, which import before they ask us
    if key not in _held:
        try:
            places = (entry for entry in overlay.entries() if overlay.key_in(entry) == key)
            _held[key] = _hold(next(places, None) or os.fspath(overlay.directory(store, key) / overlay.SITE))
        except FileNotFoundError as error:
            raise overlay.gone(store, key) from error
        except OSError as error:
            from vllm_plugins.core.errors import StoreError

            raise StoreError(
                "the overlay can't be made active",
                where=str(overlay.directory(store, key)),
                found=error.strerror or str(error),
                next_step="end what has it to itself (vllm-plugins prune?), and start again"
                if isinstance(error, BlockingIOError)
                else "give this user read access to it",
            ) from error


def release(key: str) -> None:
    """Hold an overlay no longer."""
    descriptor = _held.pop(key, None)
    if descriptor is not None:
        os.close(descriptor)


def _hold(path: str) -> int:
    deadline = time.monotonic() + HOLD_PATIENCE
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _is_shared(descriptor, deadline) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another has taken its place (sync --reinstall), or it is being looked at, or pruned


def _is_shared(descriptor: int, deadline: float) -> bool:
    """Take a shared lock of a directory. False while a process has it alone; true where locks don't work.

    ``core.flock`` is for everybody else: every vLLM process comes through here, and loads nothing of ``core``.
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


def activate(store: Path, key: str) -> None:
    """Put an overlay behind everything else on ``sys.path``; its ``.pth`` files are obeyed.

    Only the process's own import system changes: no file is written. Twice is once.

    Raises:
        StoreError: as :func:`hold`.
    """
    global _active  # noqa: PLW0603 - the path is the process's, and so is the undo
    if _active is not None and _active[0] == key:
        return
    hold(store, key)
    settle(key)
    before, finders = set(overlay.entries()), list(sys.meta_path)
    # What is on the path, as `site` has it, which would look at each entry again.
    known = set(map(os.path.normpath, filter(os.path.isabs, before)))
    _site.addsitedir(str(overlay.directory(store, key) / overlay.SITE), known)
    _active = (
        key,
        [entry for entry in overlay.entries() if entry not in before],
        [finder for finder in sys.meta_path if finder not in finders],
    )


def deactivate(*, forget_modules: bool = False) -> None:
    """Take the active overlay off the path again; with ``forget_modules`` also what was imported from it."""
    global _active  # noqa: PLW0603
    path = overlay.entries()
    sites = {entry for entry in path if overlay.key_in(entry) is not None}
    # What an overlay's .pth files have added stands after it; what they name and stands before was there without.
    after = {entry for number, entry in enumerate(path) if not sites.isdisjoint(path[:number])}
    named = {entry for site in sites for entry in _named(site)}
    gone = sites | (after & named)
    finders = [finder for finder in sys.meta_path if _comes_from(finder, tuple(sites))]
    if _active is not None:
        gone.update(_active[1])
        finders += _active[2]
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in finders]
    sys.path[:] = [entry for entry in sys.path if entry not in gone]
    for entry in gone:
        sys.path_importer_cache.pop(entry, None)
    if forget_modules:
        roots = tuple(entry + os.sep for entry in gone)
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(roots):
                del sys.modules[name]
    for key in list(_held):
        release(key)
    os.environ.pop(SETTLED, None)
    _active = None


def _named(site: str) -> list[str]:
    """The directories that ``.pth`` files of an overlay have put on the path, of this process or of its parent."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for name in os.listdir(site):
            if name.endswith(".pth"):
                with open(os.path.join(site, name), encoding="utf-8", errors="replace") as file:
                    found += [os.path.abspath(os.path.join(site, line.strip())) for line in file if line.strip()]
    return found


def _comes_from(finder: object, sites: tuple[str, ...]) -> bool:
    module = sys.modules.get(getattr(finder, "__module__", None) or type(finder).__module__)
    return bool(sites) and (getattr(module, "__file__", None) or "").startswith(sites)
