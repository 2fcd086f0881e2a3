"""The marker of an overlay that is about to be published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.core import hashes
from vllm_plugins.core.errors import InstallError
from vllm_plugins.packages import metadata
from vllm_plugins.startup import overlay
from vllm_plugins.startup.overlay import Marker
from vllm_plugins.startup.settings import LOADS

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.documents.lock import Lock, Plugin
    from vllm_plugins.install._stage import Contents

__all__ = ["marker_of"]


def marker_of(
    lock: Lock,
    lock_bytes: bytes,
    contents: Contents,
    site: Path,
    *,
    key: str,
    manifest_sha256: str | None,
    files_sha256: str,
) -> Marker:
    """The marker of a stage, before the registry is written and the load check has run.

    Raises:
        InstallError: a plugin has other entry points than the lock says.
    """
    plugins = {plugin.package: plugin for plugin in lock.plugins if not plugin.provided}
    points = []
    for installed in contents.distributions:
        plugin = plugins.get(installed.name)
        if plugin is not None and not plugin.editable and installed.entry_points != plugin.entry_points:
            raise InstallError(
                f"plugin {plugin.name!r} has other entry points than those in the lock",
                expected=str([f"{group}: {name} = {value}" for group, name, value in plugin.entry_points]),
                found=str([f"{group}: {name} = {value}" for group, name, value in installed.entry_points]),
                next_step="vllm-plugins lock, then review the change: git diff plugins.lock",
            )
        name = plugin.name if plugin is not None else next(iter(lock.plugins_needing(installed.name)), "")
        points += [(group, point, value, str(installed.name), name) for group, point, value in installed.entry_points]
        if plugin is not None:
            points += [(LOADS, value, value, str(installed.name), name) for value in plugin.loads]
    for plugin in lock.plugins:
        if plugin.provided:  # its entry points are the base's, which vLLM lists itself
            points += [(LOADS, value, value, "", plugin.name) for value in plugin.loads]
    path_files = list(site.glob("*.pth"))
    return Marker(
        key=key,
        interpreter=overlay.interpreter(),
        lock_sha256=hashes.sha256(lock_bytes),
        files_sha256=files_sha256,
        registry_sha256="",
        manifests=(manifest_sha256,) if manifest_sha256 else (),
        bases=(),  # none until the load check has run: see `_checks.load_result`
        points=tuple(points),
        plugins=tuple(map(_title, lock.plugins)),
        overrides=tuple((str(item.package), item.version, item.replaces) for item in lock.overrides),
        editable=tuple(package.name for package in lock.packages if package.directory is not None),
        import_lines=any(map(metadata.runs_code, path_files)),
        path_files=bool(path_files),
    )


def _title(plugin: Plugin) -> str:
    return f"{plugin.name} {plugin.version}" + (" of the vLLM environment" if plugin.provided else "")
