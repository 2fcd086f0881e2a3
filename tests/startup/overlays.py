"""Overlays that are written by hand, for tests in one process."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import integrity, overlay
from vllm_plugins.startup.marker import Marker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write(store: Path, lock: bytes, files: Mapping[str, str], **fields: Any) -> Marker:
    """A complete overlay of a lock with these files, which need not fit the lock."""
    key = overlay.key_of(lock)
    root = overlay.directory(store, key)
    site = root / overlay.SITE
    site.mkdir(parents=True)
    rows = []
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
        rows.append([name, hashlib.sha256(text.encode()).hexdigest(), len(text.encode())])
    data = json.dumps(rows).encode()
    (root / integrity.FILES).write_bytes(data)
    (root / "plugins.lock").write_bytes(lock)
    registry = json.dumps({"version": "1.0", "overlay": key, "plugins": {}}).encode()
    (root / overlay.REGISTRY).write_bytes(registry)
    marker = Marker(
        **{
            "key": key,
            "interpreter": overlay.interpreter(),
            "lock_sha256": overlay.sha256(lock),
            "files_sha256": overlay.sha256(data),
            "registry_sha256": overlay.sha256(registry),
            "manifests": (),
            "bases": (overlay.fingerprint(),),
            "points": (),
            "plugins": (),
            **fields,
        }
    )
    (root / overlay.MARKER).write_text(marker.to_json(), encoding="utf-8")
    return marker
