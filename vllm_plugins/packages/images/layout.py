"""A directory of images (OCI image layout 1.0): the same content as a registry's, in files."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from vllm_plugins.core import atomic, foreign_json, hashes, regular_file
from vllm_plugins.core.errors import HashMismatch, RegistryError, cause
from vllm_plugins.packages.images.registry import DIGEST, MANIFEST, MAX_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Layout"]

_INDEX, _LAYOUT, _VERSION = "index.json", "oci-layout", b'{"imageLayoutVersion":"1.0.0"}'
_TAG = "org.opencontainers.image.ref.name"


class Layout:
    """One image of a directory, or a place for one: by tag, or by the sha256 of its manifest."""

    def __init__(self, directory: Path, *, tag: str | None = None, sha256: str | None = None) -> None:
        self.directory = directory
        self._tag = tag
        self._sha256 = sha256

    def has_blob(self, digest: str) -> bool:
        """Whether the directory has a blob (``sha256:…``)."""
        return self._blob(digest).is_file()

    def upload(self, path: Path, digest: str) -> None:
        """Copy a blob into the directory."""
        target = self._blob(digest)
        atomic.make_directory(target.parent)
        atomic.copy(path, target)

    def put_manifest(self, data: bytes, name: str) -> None:
        """Store a manifest, and let the tag ``name`` mean it, unless the name is its digest."""
        digest = f"sha256:{hashes.sha256(data)}"
        target = self._blob(digest)
        atomic.make_directory(target.parent)
        atomic.write(target, data)
        entry: dict[str, Any] = {"mediaType": MANIFEST, "digest": digest, "size": len(data)}
        if name != digest:
            entry["annotations"] = {_TAG: name}
        others = [
            other
            for other in (self._entries() if (self.directory / _INDEX).exists() else [])
            if _tag(other) != name and (other.get("digest") != digest or _tag(other))
        ]
        index = {"schemaVersion": 2, "manifests": [*others, entry]}
        atomic.write(self.directory / _LAYOUT, _VERSION)
        atomic.write(self.directory / _INDEX, json.dumps(index, indent=2).encode())

    def manifest(self) -> bytes:
        """Return the manifest of the image.

        Raises:
            RegistryError: the directory has no such image.
            HashMismatch: the manifest does not have its digest.
        """
        sha256 = self._sha256 or self._find().removeprefix("sha256:")
        path = self._blob(f"sha256:{sha256}")
        try:
            with regular_file.opened(path) as file:
                data = file.read(MAX_MANIFEST + 1)
        except OSError as error:
            raise self._missing(f"no manifest with sha256 {sha256}: {error.strerror}") from error
        if hashes.sha256(data) != sha256:
            raise self._mismatch(path, f"sha256 {sha256}", f"sha256 {hashes.sha256(data)}")
        return data

    def download(self, digest: str, size: int, target: Path) -> None:
        """Copy a blob out of the directory.

        Raises:
            RegistryError: it is missing.
            HashMismatch: it does not have its digest or size.
        """
        path = self._blob(digest)
        try:
            with regular_file.opened(path) as file:
                found = os.fstat(file.fileno()).st_size
                if found == size:
                    # A new file: what is there may be another user's, or a link to something else.
                    with atomic.writing(target, durable=False) as copy:
                        shutil.copyfileobj(file, copy)
        except OSError as error:
            raise self._missing(f"{digest}: {error.strerror}") from error
        if found != size:
            raise self._mismatch(path, f"{size} bytes", f"{found} bytes")
        sha256 = hashes.of_file(target)
        if f"sha256:{sha256}" != digest:
            os.unlink(target)
            raise self._mismatch(path, digest.replace(":", " "), f"sha256 {sha256}")

    def _blob(self, digest: str) -> Path:
        assert DIGEST.fullmatch(digest), digest
        return self.directory / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def _find(self) -> str:
        entries = self._entries()
        found = [entry for entry in entries if self._tag is None or _tag(entry) == self._tag]
        if len(found) != 1:
            tags = ", ".join(sorted(filter(None, map(_tag, entries)))) or "none"
            wanted = f"the tag {self._tag}" if self._tag else "one image"
            raise self._missing(f"{len(found)} images; tags: {tags}", expected=wanted)
        digest = found[0].get("digest")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise self._missing(f"the digest {digest!r}", expected="a digest sha256:…")
        return digest

    def _entries(self) -> list[Mapping[str, Any]]:
        path = self.directory / _INDEX
        try:
            with regular_file.opened(path) as file:
                data: Any = foreign_json.read(file.read())
            return [entry for entry in data["manifests"] if isinstance(entry, dict)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._missing(f"{_INDEX}: {cause(error)}") from error

    def _missing(self, found: str, *, expected: str | None = None) -> RegistryError:
        return RegistryError(
            "the directory does not have the image",
            where=str(self.directory),
            expected=expected,
            found=found,
            next_step="check the name of the directory, the tag and the digest",
        )

    def _mismatch(self, path: Path, expected: str, found: str) -> HashMismatch:
        return HashMismatch(
            "a file of the image was changed",
            where=str(path),
            expected=expected,
            found=found,
            next_step="copy the image again from where it was made",
        )


def _tag(entry: Mapping[str, Any]) -> str | None:
    annotations = entry.get("annotations")
    tag = annotations.get(_TAG) if isinstance(annotations, dict) else None
    return tag if isinstance(tag, str) else None
