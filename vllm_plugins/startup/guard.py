"""The guard of an overlay with ``VLLM_PLUGIN_VERIFY=1``: no process imports anything of it before it has checked it.

A guarded overlay is not on ``sys.path`` by its own name, but by a name below ``/dev/null``, where no file can be.
Only this module finds anything there, after it has compared the overlay with ``files.json`` in this process. A
process that inherits the path, in whatever way, therefore finds nothing before it has a guard of its own:

- An entry that multiprocessing hands to a child process (spawn, forkserver) sets up the guard there when it is
  unpickled, which is before anything else is.
- The link of ``sync --bake`` sets up the guard when the interpreter starts.
- In other processes (a ``PYTHONPATH`` made of ``sys.path``) the hook does, when vLLM calls it.

The overlay is compared when something of it is needed first. Each module is compared again when it is imported
(``core.verified_import``), also in a forked process, which inherits the list of files.
"""

from __future__ import annotations

import os
import site as _site
import sys
import threading
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_plugins.core.errors import PluginsError
from vllm_plugins.core.verified_import import Bytecode, Extension, Source, check_file, compared
from vllm_plugins.startup import _trust, activation, integrity, logger, overlay, permissions, prepare_logging
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.machinery import ModuleSpec
    from importlib.metadata import Distribution, DistributionFinder
    from types import ModuleType

    from vllm_plugins.startup.marker import Marker

__all__ = ["Entry", "check", "close", "follow", "inherit", "link", "link_front"]

# Overlays that differ from what was published, or that could not be checked.
_refused: dict[str, PluginsError] = {}
# Overlays whose ``.pth`` files are read when they are opened: linked ones. Others inherit what these files add.
_linked: set[str] = set()
_lock = threading.RLock()
_busy: list[str] = []


def _unlock() -> None:
    """Renew the lock in a forked process, whose other threads are gone."""
    global _lock  # noqa: PLW0603 - the lock is the process's
    _lock = threading.RLock()
    _busy.clear()


os.register_at_fork(after_in_child=_unlock)


class Entry(str):
    """The name of a guarded overlay on ``sys.path``. A child process that unpickles it sets up its own guard."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is pickled: as a call of :func:`inherit`."""
        return inherit, (str(self),)


def inherit(entry: str) -> Entry:
    """Set up the guard in a process that inherits a path entry."""
    _install()
    return Entry(entry)


def link(site: str) -> None:
    """Put a linked overlay on the path of an interpreter that starts. Nothing of it is read.

    If the user has set ``VLLM_PLUGIN_DISABLE=1``, it is not guarded. A parent process that goes on without plugins
    sets that variable, too: its child processes are guarded.
    """
    if activation.is_disabled_by_user():
        if site not in sys.path:
            _site.addsitedir(site)
        return
    _linked.add(site)
    entry = inherit(overlay.GUARDED + site)
    if entry not in sys.path:
        sys.path.append(entry)


def link_front(directory: str) -> None:
    """Put what overrides packages of the base in front of it, as :func:`link` puts an overlay at the end."""
    entry = directory if activation.is_disabled_by_user() else inherit(overlay.GUARDED + directory)
    if entry not in sys.path:
        sys.path.insert(0, entry)


def close() -> None:
    """Guard every path entry that is an overlay, or a directory in one (``.pth`` files name such)."""
    _install()
    entries: list[Any] = sys.path  # other objects than strings are left alone
    path: list[Any] = []
    for entry in entries:
        if not isinstance(entry, str) or _site_of(real := overlay.real(entry)) is None:
            path.append(entry)
        elif overlay.GUARDED + real not in path:
            path.append(Entry(overlay.GUARDED + real))
    sys.path[:] = path


def follow(settings: Settings, key: str) -> None:
    """Check and guard an overlay that was on the path before: it may have changed since a parent process did that.

    Raises:
        PluginsError: as :func:`check`.
    """
    _check(settings, overlay.directory(settings.store, key) / overlay.SITE)
    close()


def check(settings: Settings, marker: Marker) -> None:
    """Compare an overlay with what was published, unless this process has done so.

    Raises:
        HashMismatch: a file is changed, missing or extra.
        NotTrusted: another user can change a file.
    """
    root = overlay.directory(settings.store, marker.key)
    site = str(root / overlay.SITE)
    if site in compared:
        return
    import time

    from vllm_plugins.core.humanize import count, size

    started = time.perf_counter()
    permissions.check_files(settings, root)
    found = integrity.check(settings.store, marker)
    took = (time.perf_counter() - started) * 1000
    _admit(site, integrity.listed(root, marker))
    logger.info("Verified %s, %s, in %.0f ms", count(found.files, "file"), size(found.size), took)


def _admit(site: str, files: dict[str, str]) -> None:
    compared[site] = files
    _forget(site)


def _install() -> None:
    """Let this process find guarded overlays, and their modules."""
    if _finder not in sys.path_hooks:
        sys.path_hooks.insert(0, _finder)
        sys.meta_path[:] = [FrontDistributions, *sys.meta_path, Distributions]
        _forget(overlay.GUARDED)


def _forget(directory: str) -> None:
    """Forget finders that were made for a directory, and those below it, without the guard."""
    real = os.path.realpath(directory)
    for entry in list(sys.path_importer_cache):
        if entry.startswith(directory) or os.path.realpath(overlay.real(entry)).startswith(real):
            sys.path_importer_cache.pop(entry, None)


def _plain(path: str) -> str:
    """The name by which a directory of an overlay was compared. Links and ``..`` lead to it by other names."""
    real = os.path.realpath(path)
    for site in compared:
        root = os.path.realpath(site)
        if f"{real}/".startswith(f"{root}/"):
            return site + real[len(root) :]
    return path


def _site_of(path: str) -> str | None:
    """The importable directory of an overlay that a path is, or is below."""
    mark = f"/{overlay.OVERLAYS}/"
    start = path.find(mark)
    while start != -1:
        key, _, tail = path[start + len(mark) :].partition("/")
        site = path[: start + len(mark) + len(key) + 1] + overlay.SITE
        if overlay.key_in(site) is not None and f"{tail}/".startswith(f"{overlay.SITE}/"):
            return site
        start = path.find(mark, start + 1)
    return None


def _finder(entry: str) -> FileFinder:
    """The path hook: a finder for a directory of an overlay, if it is guarded."""
    named = overlay.real(entry)
    path = _plain(named)
    site = _site_of(path)
    if site is not None and site in compared and (archive := _archive(path, site)) is not None:
        check_file(archive)  # Python's own finder reads its modules
    if site is None or (named == entry and site not in compared) or not os.path.isdir(path):
        raise ImportError("not a directory of a guarded overlay", path=entry)
    return _Finder(path)


def _archive(path: str, site: str) -> str | None:
    """The archive of an overlay that a path entry is, or is inside of."""
    while len(path) > len(site):
        if os.path.isfile(path):
            return path
        path = os.path.dirname(path)
    return None


class _Finder(FileFinder):
    """Finds the modules of a directory, as Python does, once the overlay is compared."""

    def __init__(self, path: str) -> None:
        super().__init__(
            path,
            (Extension, EXTENSION_SUFFIXES),
            (Source, SOURCE_SUFFIXES),
            (Bytecode, BYTECODE_SUFFIXES),
        )
        self._site = _site_of(path) or ""

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        """What Python would find, if this process may use the overlay."""
        spec = super().find_spec(fullname, target)
        return spec if spec is not None and _is_open(self._site) else None


class Distributions:
    """Finds the metadata of guarded overlays for ``importlib.metadata``. On ``sys.meta_path``."""

    _in_front = False

    @staticmethod
    def find_spec(_name: str, _path: object = None, _target: object = None) -> None:
        """Find no modules: path hooks do."""

    @classmethod
    def find_distributions(cls, context: DistributionFinder.Context) -> Iterator[Distribution]:
        """The distributions of each guarded overlay among the entries of ``context.path``."""
        path: list[Any] = context.path
        entries = [entry for entry in path if isinstance(entry, str) and overlay.real(entry) != entry]
        entries = [entry for entry in entries if (overlay.front_in(entry) is not None) == cls._in_front]
        if not entries:
            return iter(())
        from importlib.metadata import DistributionFinder, MetadataPathFinder

        open_ = [overlay.real(entry) for entry in entries if _is_open(_site_of(overlay.real(entry)), listing=True)]
        return iter(MetadataPathFinder.find_distributions(DistributionFinder.Context(name=context.name, path=open_)))


class FrontDistributions(Distributions):
    """The same for what overrides packages of the base: its metadata is found before theirs."""

    _in_front = True


def _is_open(site: str | None, *, listing: bool = False) -> bool:
    """Whether this process may use an overlay, which is compared first if it was not.

    Raises:
        PluginsError: it may not, and this is a vLLM process in which nobody else would say so.
    """
    if site is None or site in compared:
        return site is not None
    with _lock:
        if site in _busy:  # a module that the comparison itself looks for
            return False
        _busy.append(site)
        try:
            return site in compared or _open(site, listing=listing)
        finally:
            _busy.remove(site)


def _open(site: str, *, listing: bool) -> bool:
    is_vllm = "vllm" in sys.modules
    try:
        settings = Settings.from_environment()
    except PluginsError:  # the hook raises it as well
        if is_vllm:
            raise
        return False
    if site not in _refused:
        prepare_logging(settings.log_level)
        try:
            _check(settings, Path(site))
        except PluginsError as error:
            _refused[site] = error
            logger.error("%s", error)
    if site in _refused:
        # Where vLLM calls the hook, the hook raises it, and does what VLLM_PLUGIN_ON_ERROR says.
        is_raised = listing and settings.lets_through("vllm.platform_plugins", "vllm_plugins")
        if is_vllm and settings.on_error == "fail" and not is_raised:
            raise _refused[site]
        return False
    if site in _linked and any(name.endswith(".pth") for name in compared[site] if "/" not in name):
        _site.addsitedir(site)
        close()
    return True


def _check(settings: Settings, site: Path) -> None:
    """Check an overlay by its path. The hook checks whether it is the lock's."""
    store, key = site.parents[2], site.parent.name
    settings = settings.replace(store=store)
    _trust.check_store(settings)
    activation.hold(store, key)
    try:
        marker = overlay.read_marker(store, key)
        if marker is None:
            from vllm_plugins.startup import _recovery

            raise _recovery.gone(store, key)
        _trust.check_overlay(settings, overlay.directory(store, key))
        check(settings, marker)
    except PluginsError:
        activation.release(key)
        raise
