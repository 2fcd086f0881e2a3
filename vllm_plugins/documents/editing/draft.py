"""A draft of plugins.yaml: edited in memory, checked, and written for as long as locking succeeds."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic, regular_file
from vllm_plugins.core.errors import ManifestError, StoreError, UsageError
from vllm_plugins.documents import _yaml
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents._manifest import file_rules
from vllm_plugins.documents.editing import layout
from vllm_plugins.documents.editing.layout import UnknownLayout
from vllm_plugins.documents.manifest import FileSource, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vllm_plugins.documents.editing.layout import Value
    from vllm_plugins.documents.manifest import Plugin

__all__ = ["Draft", "read", "written"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MODE = 0o644  # of a new file


class Draft:
    """A manifest while it is edited: its bytes, and what they mean. Nothing is written."""

    def __init__(self, path: Path, data: bytes | None) -> None:
        self.path = path
        self.old = data
        self.data = data or b""
        lines = (line.strip() for line in self.data.splitlines())
        is_empty = all(not line or line.startswith(b"#") for line in lines)
        self.manifest = Manifest(path=path, plugins=()) if is_empty else manifests.parse(self.data, path)

    def add(self, plugin: Plugin) -> None:
        """Add a plugin after the last one."""
        self._take(lambda: layout.append(self.data, _fields(plugin)), (*self.manifest.plugins, plugin))

    def change(self, old: Plugin, new: Plugin) -> None:
        """Give a plugin other values. The kind of its source stays."""
        number = self._number(old)
        before, after = _fields(old), _fields(new)
        fields: dict[str, Value | None] = {
            key: after.get(key) for key in (*before, *after) if before.get(key) != after.get(key)
        }
        expected = tuple(new if at == number else plugin for at, plugin in enumerate(self.manifest.plugins))
        self._take(lambda: layout.change(self.data, number, fields), expected)

    def remove(self, plugin: Plugin) -> None:
        """Remove a plugin."""
        number = self._number(plugin)
        expected = tuple(other for at, other in enumerate(self.manifest.plugins) if at != number)
        self._take(lambda: layout.remove(self.data, number), expected)

    def _number(self, plugin: Plugin) -> int:
        return [other.name for other in self.manifest.plugins].index(plugin.name)

    def _take(self, edit: Callable[[], bytes], expected: tuple[Plugin, ...]) -> None:
        """Take an edit if the file then says what it should, and nothing else has changed.

        Raises:
            UsageError: it does not, as with anchors and aliases.
        """
        with contextlib.suppress(UnknownLayout, ManifestError, ValueError, IndexError):
            data = edit()
            found = manifests.parse(data, self.path)
            if _comparable(found, found.plugins) == _comparable(self.manifest, expected):
                self.data, self.manifest = data, found
                return
        raise UsageError(
            f"the layout of {self.path.name} is too unusual for this command",
            where=str(self.path),
            next_step=f"edit {self.path.name} yourself, then run vllm-plugins lock",
        )


def read(path: Path) -> Draft:
    """A draft of the manifest at this path, which may be missing.

    Raises:
        ManifestError: the manifest can't be read, or is invalid.
    """
    if not os.path.lexists(path):
        return Draft(path, None)
    try:
        return Draft(path, regular_file.read_bytes(path, _yaml.MAX_BYTES + 1))
    except OSError:
        manifests.read(path)  # raises an error that explains it
        raise


@contextlib.contextmanager
def written(draft: Draft) -> Iterator[None]:
    """Write a draft for a block. If the block raises, or is interrupted, the file is again as it was, byte for byte.

    The block finds the new file in its place: a plugin's own directory may contain it. A file that somebody else has
    changed in the meantime is left alone.

    Raises:
        StoreError: the file can't be written.
    """
    if draft.data == (draft.old or b""):
        yield
        return
    try:
        _write(draft, draft.data)
        yield
    except BaseException:
        # A second interrupt must not stop this, or the manifest would stay without its lock.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            _restore(draft)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise


def _write(draft: Draft, data: bytes) -> None:
    target = draft.path.resolve()  # a symbolic link stays
    try:
        mode = stat.S_IMODE(target.stat().st_mode) if draft.old is not None else _MODE
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(target, data, mode)
    except OSError as error:
        raise StoreError(
            "the manifest can't be written; it is unchanged",
            where=str(draft.path),
            found=error.strerror or str(error),
            next_step="free some space, or give this user write access to that directory",
        ) from error


def _restore(draft: Draft) -> None:
    with contextlib.suppress(OSError):
        if regular_file.read_bytes(draft.path) != draft.data:
            return
    if draft.old is None:
        with contextlib.suppress(OSError):
            draft.path.resolve().unlink()
    else:
        _write(draft, draft.old)


def _comparable(manifest: Manifest, plugins: tuple[Plugin, ...]) -> Manifest:
    """A manifest with these plugins, without what any edit changes."""
    return manifest.replace(
        plugins=tuple(plugin.replace(line=1) for plugin in plugins),
        overrides=tuple(override.replace(line=1) for override in manifest.overrides),
        indexes=tuple(index.replace(line=1) for index in manifest.indexes),
        file_sha256="",
    )


def _fields(plugin: Plugin) -> dict[str, Value]:
    """The keys of a plugin in the order in which they are written."""
    source = plugin.source.to_dict()
    keys = (
        "package",
        "index",
        "url",
        "path",
        "sha256",
        "filename",
        "ref",
        "subdirectory",
        "version",
        "extras",
        "editable",
    )
    fields: dict[str, Value] = {"name": plugin.name, "source": plugin.kind}
    fields |= {key: source[key] for key in keys if source.get(key)}
    implied: tuple[str, ...] = ()
    if isinstance(plugin.source, FileSource):
        if plugin.source.filename == file_rules.last_part(plugin.source.requested):
            del fields["filename"]
        implied = plugin.source.loads
    if not plugin.enabled:
        fields["enabled"] = False
    if plugin.loads not in ((), implied):
        fields["loads"] = plugin.loads
    return fields
