"""Plugins that were installed into the vLLM environment with pip, as entries of plugins.yaml."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from vllm_plugins.core import foreign_json, regular_file
from vllm_plugins.core.redact import public_url
from vllm_plugins.documents import versions
from vllm_plugins.documents._manifest import rules
from vllm_plugins.documents.manifest import GitSource, LocalSource, Plugin, PypiSource
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.manifest import Source

__all__ = ["Adopted", "find"]

_OURS = "vllm-plugin-manager"


@dataclass(frozen=True, kw_only=True, slots=True)
class Adopted:
    """An installed plugin as an entry; ``note`` says what the entry can't, if anything."""

    plugin: Plugin
    note: str | None


def find(base: Base, paths: Sequence[str] | None = None) -> tuple[Adopted, ...]:
    """The distributions of the base with entry points in vLLM's groups, sorted by name, as they are installed."""
    vllm = base.get("vllm")
    others = {_OURS, "vllm", vllm.provided_by if vllm is not None and vllm.provided_by else "vllm"}
    found: dict[str, Adopted] = {}
    entries = overlay.base_paths() if paths is None else paths
    for distribution in importlib.metadata.distributions(path=list(entries)):
        name = canonicalize_name(distribution.name or "")
        if name in others or name in found:  # the first on the path is imported
            continue
        if any(point.group.startswith("vllm.") for point in distribution.entry_points):
            source, note = _source(name, distribution.version, _direct_url(distribution))
            found[name] = Adopted(plugin=Plugin(name=name, source=source), note=note)
    return tuple(found[name] for name in sorted(found))


def _direct_url(distribution: importlib.metadata.Distribution) -> dict[str, Any]:
    """What pip noted of an installation that was not from an index (PEP 610); empty if it noted nothing."""
    try:
        data = foreign_json.read(distribution.read_text("direct_url.json") or "{}")
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) and isinstance(data.get("url"), str) else {}


def _source(name: str, version: str, direct: dict[str, Any]) -> tuple[Source, str | None]:
    if not direct:
        return _pypi(name, version), None
    url, below = public_url(direct["url"]), direct.get("subdirectory")
    git = direct.get("vcs_info")
    if isinstance(git, dict) and git.get("vcs") == "git":
        commit, revision = git.get("commit_id"), git.get("requested_revision")
        is_valid = not (rules.url(url) or rules.text(url)) and (
            below is None or (isinstance(below, str) and rules.subdirectory(below) is None)
        )
        if is_valid and isinstance(commit, str) and rules.ref(commit) is None:
            note = f"it was installed from {revision}, and is now kept at {commit[:12]}" if revision else None
            return GitSource(url=url, ref=commit, subdirectory=below, package=name), note
    directory = direct.get("dir_info")
    if isinstance(directory, dict) and url.startswith("file:///"):
        path = os.path.join(regular_file.of_url(url), below if isinstance(below, str) else "").rstrip("/")
        note = None if os.path.isdir(path) else f"its directory {path} is not on this machine"
        if rules.text(path) is None:
            return LocalSource(path=path, editable=directory.get("editable") is True, package=name), note
    return _pypi(name, version), f"it was installed from {url}, and is now taken from the package index"


def _pypi(name: str, version: str) -> PypiSource:
    try:
        return PypiSource(package=name, version=f"=={versions.version(version)}")
    except InvalidVersion:
        return PypiSource(package=name)
