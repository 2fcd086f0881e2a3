"""Overlays that are written by hand, for tests in one process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import activation, hook, integrity, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.marker import Marker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pytest

PASSED_ON = (variables.FALLBACK, variables.CONFIRMED, variables.EXPECT, variables.TRIAL, "VLLM_PLUGIN_DISABLE")


@contextlib.contextmanager
def process(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The state of a vLLM process that begins, with an empty home; the process is afterwards as it was."""
    for name in os.environ:
        if name.startswith(("VLLM_", "_VLLM_")):
            monkeypatch.delenv(name)
    for name in (*PASSED_ON, "VLLM_PLUGIN_OPTIONAL"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("VLLM_PLUGIN_REGISTRY_DIR", str(home / "store"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # these overlays have none, and VERIFY would find it
    monkeypatch.setattr(hook, "_process", hook._Process())
    (home / "config").mkdir()
    yield
    activation.deactivate(forget_modules=True)
    for name in PASSED_ON:
        os.environ.pop(name, None)


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
