"""Small valid documents as values, for tests in one process: a manifest, a lock, a base, a published overlay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from vllm_plugins.documents import lock_writer
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents.base import Base, Distribution, of_here
from vllm_plugins.documents.lock import BaseUse, Lock, Package, Plugin, Target, Wheel
from vllm_plugins.startup import integrity, overlay
from vllm_plugins.startup.marker import Failure, Marker
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["FINGERPRINT", "MANIFEST", "base", "lock", "package", "publish", "settings", "wheel", "write"]

NAME = canonicalize_name
FINGERPRINT = "f" * 32
NO_FILES = b"[]\n"
MANIFEST = "plugins:\n  - {name: tiny, source: pypi, package: tiny}\n"


def settings(root: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of a user whose manifest, lock and store are below ``root``."""
    (root / "config").mkdir(parents=True, exist_ok=True)
    return Settings.from_environment(
        {
            "HOME": str(root),
            "VLLM_PLUGIN_CONFIG": str(root / "config" / "plugins.yaml"),
            "VLLM_PLUGIN_REGISTRY_DIR": str(root / "store"),
            **(environ or {}),
        }
    )


def base(distributions: Mapping[str, str] | None = None, **fields: Any) -> Base:
    """This interpreter's kind of machine with these distributions: vLLM and torch unless others are given."""
    named = {"vllm": "0.32.0", "torch": "2.13.0+cpu"} if distributions is None else distributions
    found = tuple(Distribution(name=NAME(name), version=version) for name, version in sorted(named.items()))
    return of_here(found, fingerprint=FINGERPRINT).replace(**fields)


def wheel(name: str = "tiny", version: str = "1.0", *, tag: str = "py3-none-any", **fields: Any) -> Wheel:
    """A wheel of an index; with ``url=None``, one next to the lock."""
    filename = f"{name}-{version}-{tag}.whl"
    return Wheel(
        **{"filename": filename, "sha256": "a" * 64, "size": 10, "url": f"https://example.org/{filename}", **fields}
    )


def package(name: str = "tiny", version: str = "1.0", **fields: Any) -> Package:
    """A package with one wheel."""
    return Package(**{"name": NAME(name), "version": version, "wheels": (wheel(name, version),), **fields})


def lock(*packages: Package, manifest: str = MANIFEST, uses: Iterable[BaseUse] = (), **fields: Any) -> Lock:
    """A lock of the plugin ``tiny`` for this interpreter's kind of machine, made from ``manifest``."""
    here = base()
    target = Target(python=here.python_minor, platform=here.platform, vllm="0.32.0", base=tuple(uses))
    plugin = Plugin(
        name="tiny",
        source="pypi",
        package=NAME("tiny"),
        version="1.0",
        requested="tiny",
        entry_points=(("vllm.general_plugins", "tiny", "tiny:register"),),
    )
    return Lock(
        **{
            "manifest_sha256": manifests.parse(manifest.encode(), Settings.from_environment({}).manifest).sha256,
            "packages": packages or (package(),),
            "plugins": (plugin,),
            "targets": (target,),
            **fields,
        }
    )


def write(settings: Settings, lock: Lock | None, *, manifest: str | None = MANIFEST) -> bytes:
    """Write manifest and lock; returns the lock's bytes."""
    if manifest is not None:
        settings.manifest.write_text(manifest, encoding="utf-8")
    data = b"" if lock is None else lock_writer.render(lock)
    if lock is not None:
        settings.lock.write_bytes(data)
    return data


def publish(
    settings: Settings, lock_bytes: bytes, *, failures: Iterable[tuple[str, str]] = (), **fields: Any
) -> Marker:
    """An overlay of these bytes in the store that was checked with :func:`base` and the manifest; it has no files."""
    manifest = settings.manifest.read_bytes() if settings.manifest.exists() else None
    marker = Marker(
        **{
            "key": overlay.key_of(lock_bytes),
            "interpreter": overlay.interpreter(),
            "lock_sha256": overlay.sha256(lock_bytes),
            "files_sha256": overlay.sha256(NO_FILES),
            "registry_sha256": "0" * 64,
            "manifests": (overlay.sha256(manifest),) if manifest is not None else (),
            "bases": (FINGERPRINT,),
            "checked": (FINGERPRINT,),
            "points": (("vllm.general_plugins", "tiny", "tiny:register", "tiny", "tiny"),),
            "plugins": ("tiny 1.0",),
            "failures": tuple(
                Failure(base=FINGERPRINT, group=group, name=name, what="plugin 'tiny' can't be loaded", found="")
                for group, name in failures
            ),
            **fields,
        }
    )
    directory = overlay.directory(settings.store, marker.key)
    (directory / overlay.SITE).mkdir(parents=True)
    (directory / integrity.FILES).write_bytes(NO_FILES)
    (directory / overlay.MARKER).write_text(marker.to_json(), encoding="utf-8")
    return marker
