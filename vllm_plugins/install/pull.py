"""An image of plugins → a directory that vLLM's processes use. All of it is compared with the image's digest."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vllm_plugins.core import atomic, flock, foreign_json, hashes, regular_file, scratch
from vllm_plugins.core.errors import NotTrusted, RegistryError, StoreError
from vllm_plugins.core.humanize import size
from vllm_plugins.install import _tar
from vllm_plugins.install.oci import LAYER, TOPS
from vllm_plugins.packages import downloads
from vllm_plugins.packages.images.registry import DIGEST
from vllm_plugins.startup import permissions

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.startup.settings import Settings

__all__ = ["NOTE", "Pulled", "Source", "run"]

NOTE = "image.json"

_LOCK, _BLOB = "pull.lock", ".layer"
_FROM_START = "lost+found"

_MAX_CONFIG = 1 << 20  # bytes
_MOST_LAYERS = 8


class Source(Protocol):
    """Where the image is: a registry, or a directory."""

    def manifest(self) -> bytes:
        """The manifest, which has the digest of the reference if that names one."""

    def download(self, digest: str, size: int, target: Path) -> None:
        """Write a blob, which has this digest and size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulled:
    """The result. ``new`` says whether the directory was filled now; ``annotations`` are the image's."""

    directory: Path
    digest: str
    new: bool
    annotations: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Blob:
    digest: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Image:
    digest: str
    config: _Blob
    layers: tuple[_Blob, ...]
    annotations: dict[str, str]


def run(source: Source, directory: Path, *, settings: Settings, reporter: Reporter) -> Pulled:
    """Fill a directory, which may exist if it is empty, with the content of an image.

    A file in it, written last, notes the digest. If the directory already has this image, nothing is downloaded.

    Raises:
        RegistryError: the image can't be read, or is not one of ``vllm-plugins push``.
        HashMismatch: a part of it does not have the digest that the manifest gives.
        StoreError: the directory contains something else, or can't be written.
        NotTrusted: another user could change what is in the directory.
    """
    manifest = source.manifest()
    digest = f"sha256:{hashes.sha256(manifest)}"
    image = _read(manifest, digest)
    try:
        atomic.make_directory(directory)
        _check_trust(settings, directory)
        with flock.alone(directory / _LOCK):
            new = not _is_there(directory, digest)
            if new:
                _fill(source, image, directory, reporter)
    except OSError as error:
        raise StoreError(
            "the directory can't be written",
            where=str(error.filename or directory),
            found=error.strerror or str(error),
            next_step="give this user write access to it, or choose another: vllm-plugins pull IMAGE -o DIRECTORY",
        ) from error
    return Pulled(directory=directory, digest=digest, new=new, annotations=image.annotations)


def _check_trust(settings: Settings, directory: Path) -> None:
    """Refuse what is another user's: it could be anything, whatever the note says.

    A directory that all users can write to is allowed: an empty volume of Kubernetes is one.
    """
    try:
        permissions.check_owners(settings, directory, *_present(directory))
    except NotTrusted as error:
        raise NotTrusted(
            "another user could change the content of the directory",
            where=error.where,
            expected=f"owner {os.geteuid()} or root",
            found=error.found,
            next_step="choose a directory of your own: vllm-plugins pull IMAGE -o DIRECTORY",
        ) from error


def _present(directory: Path) -> list[Path]:
    """What is in the directory, except for what a file system has from the start."""
    return sorted(path for path in directory.iterdir() if path.name != _FROM_START)


def _is_there(directory: Path, digest: str) -> bool:
    """Whether the directory has the image. What an interrupted pull has left is removed.

    Raises:
        StoreError: it has another image, or files that are not ours.
    """
    note = directory / NOTE
    try:
        data: Any = foreign_json.read(regular_file.read_bytes(note))
    except FileNotFoundError:
        data = {}
    except ValueError:
        data = None
    if isinstance(data, dict) and data.get("image") == digest and data.get("complete") is True:
        return True
    if isinstance(data, dict) and data and data.get("complete") is False:
        for name in TOPS:
            path = directory / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        note.unlink()
        return False
    others = sorted(path.name for path in directory.iterdir() if not _is_own(path.name))
    if others:
        image = data.get("image") if isinstance(data, dict) else None
        raise StoreError(
            "the directory is in use for something else",
            where=str(directory),
            expected=f"an empty directory, or one with the image {digest}",
            found=f"the image {image}" if image else ", ".join(others[:5]),
            next_step="choose a directory for each image: vllm-plugins pull IMAGE -o DIRECTORY",
        )
    return False


def _is_own(name: str) -> bool:
    """Whether a file is one that a pull makes while it works, or a new file system has."""
    return name in (_LOCK, _BLOB, _FROM_START) or name.startswith((".", scratch.PREFIX))


def _fill(source: Source, image: _Image, directory: Path, reporter: Reporter) -> None:
    blob = directory / _BLOB
    try:
        with scratch.directory(directory) as content:
            source.download(image.config.digest, image.config.size, blob)
            _check_config(blob.read_bytes(), image)
            for layer in image.layers:
                reporter.line(f"Downloading {layer.digest[7:19]}, {size(layer.size)}")
                source.download(layer.digest, layer.size, blob)
                _unpack(blob, content, image)
            _write_note(directory, image, complete=False)
            for name in TOPS:
                if (content / name).exists():
                    os.rename(content / name, directory / name)
    finally:
        blob.unlink(missing_ok=True)
    downloads.sweep(directory, frozenset())
    atomic.flush(directory)
    _write_note(directory, image, complete=True)


def _write_note(directory: Path, image: _Image, *, complete: bool) -> None:
    note = {"image": image.digest, "complete": complete, "annotations": image.annotations}
    atomic.write(directory / NOTE, (json.dumps(note, indent=2) + "\n").encode())


def _unpack(blob: Path, into: Path, image: _Image) -> None:
    try:
        _tar.unpack(blob, into, tops=TOPS)
    except (_tar.Unsafe, tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise _not_ours(image.digest, f"a layer with other content: {error}") from error


def _check_config(data: bytes, image: _Image) -> None:
    """Check that the layers, which are not compressed, are those of the configuration."""
    try:
        config: Any = foreign_json.read(data)
        diff_ids = config["rootfs"]["diff_ids"]
    except (ValueError, KeyError, TypeError) as error:
        raise _not_ours(image.digest, f"the configuration: {type(error).__name__}: {error}") from error
    if diff_ids != [layer.digest for layer in image.layers]:
        raise _not_ours(image.digest, "a configuration with other layers than the manifest")


def _read(manifest: bytes, digest: str) -> _Image:
    try:
        data: Any = foreign_json.read(manifest)
        layers = data["layers"]
        kinds = {layer["mediaType"] for layer in layers}
        annotations = data.get("annotations") or {}
        image = _Image(
            digest=digest,
            config=_blob(data["config"]),
            layers=tuple(map(_blob, layers)),
            annotations={str(key): str(value) for key, value in annotations.items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_ours(digest, f"the manifest: {type(error).__name__}: {error}") from error
    found = ", ".join(sorted(map(str, kinds))) or "none"
    if kinds != {LAYER} or not 0 < len(image.layers) <= _MOST_LAYERS or image.config.size > _MAX_CONFIG:
        raise _not_ours(digest, f"{len(image.layers)} layers of the kind {found}")
    return image


def _blob(descriptor: Any) -> _Blob:
    digest, length = descriptor["digest"], descriptor["size"]
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or type(length) is not int or length < 0:
        raise ValueError(f"{digest!r} of {length!r} bytes")
    return _Blob(digest=digest, size=length)


def _not_ours(digest: str, found: str) -> RegistryError:
    return RegistryError(
        "the image is not one of vllm-plugins push",
        where=digest,
        found=found,
        next_step="check the name of the image; a copy of it must have the same layers, not compressed",
    )
