"""The hash of what a manifest requests: of that, and not of comments, order, layout, logins and disabled plugins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core import hashes
from vllm_plugins.core.redact import public_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm_plugins.core.hashes import Sha256
    from vllm_plugins.documents._manifest.indexes import NamedIndex
    from vllm_plugins.documents._manifest.plugins import Plugin
    from vllm_plugins.documents._manifest.targets import RequestedTarget
    from vllm_plugins.documents.overrides import Override

__all__ = ["sha256"]


def sha256(
    plugins: Iterable[Plugin],
    overrides: Iterable[Override],
    indexes: Iterable[NamedIndex],
    targets: Iterable[RequestedTarget],
) -> Sha256:
    """The sha256 of the requests of plugins, overrides, indexes in use, and targets, as canonical JSON."""
    listed = sorted(plugins, key=lambda plugin: plugin.name)
    entries = [
        {key: value for key, value in _request(plugin).items() if value not in (None, [], False)} for plugin in listed
    ]
    entries += [
        {"override": item.name, "version": item.version, "reason": item.reason}
        for item in sorted(overrides, key=lambda item: item.name)
    ]
    used = {getattr(plugin.source, "index", None) for plugin in listed}
    entries += [
        {"index": item.name, "url": item.url}
        for item in sorted(indexes, key=lambda item: item.name)
        if item.name in used
    ]
    entries += [
        {"target": item.name, **{key: value for key, value in item.request.items() if value is not None}}
        for item in sorted(targets, key=lambda item: item.name)
    ]
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    return hashes.sha256(text.encode())


def _request(plugin: Plugin) -> dict[str, object]:
    source = plugin.source
    entry: dict[str, object] = {"name": plugin.name, "source": plugin.kind, **source.to_dict()}
    entry["loads"] = sorted(plugin.loads)
    entry["extras"] = sorted({canonicalize_name(extra) for extra in source.extras})
    entry["build"] = sorted("".join(text.split()) for text in plugin.build_requires)
    entry["with-base"] = sorted(plugin.with_base)
    if source.package is not None:
        entry["package"] = canonicalize_name(source.package)
    if (version := getattr(source, "version", None)) is not None:
        parts = ("".join(part.split()) for part in version.split(","))
        entry["version"] = ",".join(sorted(filter(None, parts)))
    if (url := getattr(source, "url", None)) is not None:
        # Credentials don't change the content, and the hash of a short secret would reveal it.
        entry["url"] = public_url(url)
    return entry
