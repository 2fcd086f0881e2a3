"""An overlay and its manager as an image (OCI image specification 1.1), the same bytes whoever makes it.

The image has three layers: the manager, the overlay, and manifest, lock and marker. It runs nothing by itself. It is
mounted into, or copied to, a container of vLLM as it is, where ``PYTHONPATH`` names the manager.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vllm_plugins
from vllm_plugins.core import bytecode, hashes
from vllm_plugins.core.errors import InstallError
from vllm_plugins.install import _registry, _tar
from vllm_plugins.install._tar import Entry
from vllm_plugins.packages.images.registry import MANIFEST as MANIFEST_TYPE
from vllm_plugins.startup import integrity, overlay
from vllm_plugins.startup.settings import LOCK, MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.state import LockFile
    from vllm_plugins.startup.marker import Marker

__all__ = ["LAYER", "MANAGER", "STORE", "TOPS", "Blob", "Image", "make"]

MANAGER, STORE = "manager", "store"
TOPS = (MANAGER, STORE, MANIFEST, LOCK)
# Not compressed: what compresses gives other bytes on another machine, and then the image another digest.
LAYER = "application/vnd.oci.image.layer.v1.tar"

_CONFIG = "application/vnd.oci.image.config.v1+json"
_DISTRIBUTION = "vllm-plugin-manager"
# platform.machine() → GOARCH, as images have it.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """A file of an image, at a path below the directory that the image was made in. ``size`` is in bytes."""

    digest: str
    size: int
    media_type: str
    path: Path

    @property
    def descriptor(self) -> dict[str, Any]:
        """The blob as a manifest describes it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """The bytes of an image's manifest, its digest, and its configuration and layers."""

    manifest: bytes
    digest: str
    blobs: tuple[Blob, ...]


def make(locked: LockFile, marker: Marker, *, manifest: bytes | None, store: Path, into: Path) -> Image:
    """Make the image of an installed overlay in a directory of ours.

    ``manifest`` are the bytes of plugins.yaml. Every file of the overlay is compared with what was installed.

    Raises:
        InstallError: a plugin is editable, so its code is not in the overlay.
        HashMismatch: a file of the overlay has changed.
    """
    if marker.editable:
        raise InstallError(
            "editable plugins are not in an image: their code is in a directory of this machine",
            where=str(overlay.directory(store, marker.key)),
            details=marker.editable,
            next_step="set `editable: false` for them in plugins.yaml, then run vllm-plugins lock and sync",
        )
    integrity.check(store, marker)
    marker = _plain(marker, locked.lock, manifest)
    layers = tuple(
        _layer(into, entries)
        for entries in (_manager(), _overlay(store, marker, locked.data), _documents(marker, locked, manifest))
    )
    config = _config(layers)
    blobs = (_blob(into, config, _CONFIG), *layers)
    image = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": blobs[0].descriptor,
        "layers": [blob.descriptor for blob in layers],
        "annotations": _annotations(marker, locked.lock),
    }
    data = _json(image)
    return Image(manifest=data, digest=f"sha256:{hashes.sha256(data)}", blobs=blobs)


def _plain(marker: Marker, lock: Lock, manifest: bytes | None) -> Marker:
    """The marker without what was found out on this machine: the image must not depend on it."""
    manifests = (hashes.sha256(manifest),) if manifest is not None else ()
    plain = marker.replace(manifests=manifests, bases=(), checked=(), failures=(), trials=())
    return plain.replace(registry_sha256=hashes.sha256(_registry.render(lock, plain)))


def _manager() -> Iterator[Entry]:
    """The files of this package, their bytecode, and the metadata by which vLLM finds the hook."""
    root = Path(vllm_plugins.__file__).parent
    for path in root.rglob("*"):
        name = str(path.relative_to(root.parent))
        if path.suffix == ".pyc" or not path.is_file():
            continue
        source = path.read_bytes()
        yield Entry(f"{MANAGER}/{name}", source)
        if path.suffix == ".py" and (compiled := bytecode.compiled(source, name)) is not None:
            yield Entry(f"{MANAGER}/{bytecode.place(name)}", compiled)
    distribution = importlib.metadata.distribution(_DISTRIBUTION)
    info = f"{MANAGER}/{_DISTRIBUTION.replace('-', '_')}-{distribution.version}.dist-info"
    for file in ("METADATA", "entry_points.txt"):
        yield Entry(f"{info}/{file}", (distribution.read_text(file) or "").encode())


def _overlay(store: Path, marker: Marker, lock: bytes) -> Iterator[Entry]:
    root = overlay.directory(store, marker.key)
    place = f"{STORE}/{overlay.OVERLAYS}/{marker.key}"
    site = root / overlay.SITE
    for name in integrity.files(site):
        path = site / name
        yield Entry(f"{place}/{overlay.SITE}/{name}", path, executable=bool(path.stat().st_mode & 0o100))
    yield Entry(f"{place}/{integrity.FILES}", root / integrity.FILES)
    yield Entry(f"{place}/{LOCK}", lock)


def _documents(marker: Marker, locked: LockFile, manifest: bytes | None) -> Iterator[Entry]:
    place = f"{STORE}/{overlay.OVERLAYS}/{marker.key}"
    registry = _registry.render(locked.lock, marker)
    yield Entry(f"{place}/{overlay.MARKER}", marker.to_json().encode())
    yield Entry(f"{place}/{overlay.REGISTRY}", registry)
    yield Entry(f"{STORE}/{overlay.REGISTRY}", registry)
    yield Entry(LOCK, locked.data)
    if manifest is not None:
        yield Entry(MANIFEST, manifest)


def _layer(into: Path, entries: Iterable[Entry]) -> Blob:
    temporary = into / "layer"
    with open(temporary, "wb") as out:
        _tar.write(out, entries)
    return _named(temporary, LAYER)


def _blob(into: Path, data: bytes, media_type: str) -> Blob:
    temporary = into / "blob"
    temporary.write_bytes(data)
    return _named(temporary, media_type)


def _named(temporary: Path, media_type: str) -> Blob:
    sha256 = hashes.of_file(temporary)
    path = temporary.with_name(sha256)
    os.replace(temporary, path)
    return Blob(digest=f"sha256:{sha256}", size=path.stat().st_size, media_type=media_type, path=path)


def _config(layers: tuple[Blob, ...]) -> bytes:
    machine = platform.machine()
    return _json(
        {
            "architecture": _ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"Labels": {"org.opencontainers.image.title": "vLLM plugins"}},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "history": [{"created_by": f"vllm-plugins push: {what}"} for what in ("manager", "overlay", "lock")],
        }
    )


def _annotations(marker: Marker, lock: Lock) -> dict[str, str]:
    releases = sorted({target.vllm for target in lock.targets if target.vllm})
    return {
        "org.opencontainers.image.title": "vLLM plugins",
        "org.opencontainers.image.description": ", ".join(marker.plugins),
        "vllm-plugins.lock.sha256": marker.lock_sha256,
        "vllm-plugins.overlay": marker.key,
        "vllm-plugins.interpreter": marker.interpreter,
        "vllm-plugins.manager": vllm_plugins.__version__,
        **({"vllm-plugins.vllm": releases[0]} if len(releases) == 1 else {}),
    }


def _json(data: object) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
