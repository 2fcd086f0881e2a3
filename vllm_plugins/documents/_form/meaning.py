"""What of a manifest counts for its lock, as one hash: the requests of its plugins, overrides and targets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core import hashes
from vllm_plugins.core.redact import public_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm_plugins.core.hashes import Sha256
    from vllm_plugins.documents._form.targets import RequestedTarget
    from vllm_plugins.documents.manifest import Plugin
    from vllm_plugins.documents.overrides import Override

__all__ = ["sha256"]


def sha256(
    plugins: Iterable[Plugin], overrides: Iterable[Override] = (), targets: Iterable[RequestedTarget] = ()
) -> Sha256:
    """The sha256 of the requests as canonical JSON. Without targets it is what it was before there were any."""
    entries = [_plugin(plugin) for plugin in sorted(plugins, key=lambda plugin: plugin.name)]
    entries += [
        {"override": item.name, "version": item.version, "reason": item.reason}
        for item in sorted(overrides, key=lambda item: item.name)
    ]
    entries += [
        {"target": item.name, **{key: value for key, value in item.request.items() if value is not None}}
        for item in sorted(targets, key=lambda item: item.name)
    ]
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    return hashes.sha256(text.encode())


def _plugin(plugin: Plugin) -> dict[str, object]:
    entry: dict[str, object] = {"name": plugin.name, "source": plugin.kind, **plugin.source.to_dict()}
    entry["loads"] = sorted(plugin.loads)
    entry["extras"] = sorted({canonicalize_name(extra) for extra in plugin.source.extras})
    if plugin.source.package is not None:
        entry["package"] = canonicalize_name(plugin.source.package)
    if entry.get("version") is not None:
        parts = ("".join(part.split()) for part in str(entry["version"]).split(","))
        entry["version"] = ",".join(sorted(filter(None, parts)))
    if "url" in entry:
        # Credentials don't change the content, and the hash of a short secret would reveal it.
        entry["url"] = public_url(str(entry["url"]))
    return {key: value for key, value in entry.items() if value not in (None, [], False)}
