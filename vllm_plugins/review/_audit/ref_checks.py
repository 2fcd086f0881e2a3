"""Checks of a lock against git repositories: refs that mean another commit now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import PluginsError
from vllm_plugins.core.redact import public_url
from vllm_plugins.documents.manifest import GitSource
from vllm_plugins.review._audit.auditor import one_line
from vllm_plugins.sources import git_refs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_plugins.documents.lock import Plugin
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.review._audit.auditor import Auditor, Finding, NotRun

__all__ = ["run"]


def run(auditor: Auditor) -> Iterator[Finding | NotRun]:
    """Look up each ref that the lock has resolved."""
    if auditor.level("moved-ref") == "ignore":
        return
    for plugin in auditor.lock.plugins:
        package = auditor.lock.package(plugin.package)
        if plugin.commit is None or package is None:
            continue
        if auditor.settings.offline:
            yield auditor.not_run("moved-ref", "offline")
            continue
        try:
            now = git_refs.resolve(_source(plugin, auditor.manifest), environ=os.environ, plugin=plugin.name)
        except PluginsError as error:
            yield auditor.not_run("moved-ref", one_line(error), package.name)
            continue
        if now != plugin.commit:
            what = f"{plugin.requested} is now commit {now[:12]}; {plugin.commit[:12]} is locked"
            yield auditor.finding("moved-ref", package, what, f"vllm-plugins lock --upgrade-package {plugin.package}")


def _source(plugin: Plugin, manifest: Manifest | None) -> GitSource:
    """The source in the manifest if it is the locked one, because it has the login; else the one in the lock."""
    item = next((item for item in manifest.plugins if item.name == plugin.name), None) if manifest else None
    source = item.source if item is not None else None
    if isinstance(source, GitSource) and public_url(source.url) == plugin.url:
        return source.replace(ref=plugin.requested)
    return GitSource(url=plugin.url or "", ref=plugin.requested)
