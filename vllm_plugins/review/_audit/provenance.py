"""Provenance: what an index says today about the locked files. Yanked, changed, their age and their publishers."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from packaging.utils import canonicalize_name

from vllm_plugins.core import foreign_json
from vllm_plugins.core.errors import AttestationMismatch
from vllm_plugins.documents import selection
from vllm_plugins.packages import attestations, simple_api
from vllm_plugins.packages.cooldown import upload_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from vllm_plugins.documents.lock import Identity, Package
    from vllm_plugins.packages.index import Index
    from vllm_plugins.packages.simple_api import File

__all__ = ["Published", "read"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """The locked files of one package at their index.

    ``yanked`` is the index's reason ("" if it gives none, ``None`` if no file is yanked). ``changed`` and ``missing``
    are file names; of ``unknown`` ones the index has no hash. ``none``: the lock names no file of an index. ``wheel``
    is a wheel of that version for this machine, though the locked one was built. ``uploaded`` is the time of the
    newest file (PEP 700): one can be added to an old release. ``publishers`` are those that the index names in
    attestations of exactly these bytes (PEP 740); if ``is_verified``, the signatures are valid, and ``invalid`` are
    the files of which they are not, with the reason. ``identities`` are the verified publishers as the lock has them.
    """

    yanked: str | None
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    none: bool
    wheel: str | None
    uploaded: datetime | None
    publishers: tuple[str, ...]
    unattested: tuple[str, ...]
    is_verified: bool
    invalid: tuple[str, ...]
    identities: tuple[Identity, ...]


def read(package: Package, index: Index) -> Published:
    """Ask the index about one package.

    Raises:
        SourceError: the index can't be read.
    """
    there: dict[str, list[File]] = {}
    for file in index.files(canonicalize_name(package.name)):
        there.setdefault(file.filename, []).append(file)
    locked = [(wheel.filename, wheel.sha256) for wheel in package.remote_wheels]
    if package.sdist_url is not None and package.sdist_sha256 is not None:
        locked.append((unquote(package.sdist_url.rpartition("/")[2]), package.sdist_sha256))
    same = [file for name, digest in locked for file in there.get(name, ()) if file.sha256 in (None, digest)]
    matching = {file.filename for file in same}
    times = [when for file in same if (when := upload_time(file.upload_time)) is not None]
    yanked = [file for file in same if file.yanked]
    digests = dict(locked)
    attested, identities, invalid = _attested(same, digests, index)
    return Published(
        is_verified=attestations.is_available(),
        invalid=tuple(invalid),
        identities=tuple(sorted(identities)),
        yanked=next((file.yanked_reason for file in yanked if file.yanked_reason), "") if yanked else None,
        changed=tuple(name for name, _ in locked if name in there and name not in matching),
        missing=tuple(name for name, _ in locked if name not in there),
        unknown=tuple(file.filename for file in same if file.sha256 is None),
        none=not locked,
        wheel=_fitting(package, there) if package.sdist_sha256 is not None else None,
        uploaded=max(times, default=None),
        publishers=tuple(sorted(set().union(*attested.values()))),
        unattested=tuple(file.filename for file in same if not attested.get(file.filename)),
    )


def _attested(
    files: Sequence[File], digests: Mapping[str, str], index: Index
) -> tuple[dict[str, set[str]], set[Identity], list[str]]:
    """The publishers of each file by name, all of them as the lock has them, and the files that do not verify."""
    attested: dict[str, set[str]] = {}
    identities: set[Identity] = set()
    invalid = []
    for file in files:
        if file.provenance is None:
            continue
        document = index.document(file.provenance)
        if not attestations.is_available():
            attested[file.filename] = {
                f"{name} (not verified)" for name in _publishers(document, digests[file.filename])
            }
            continue
        try:
            found = attestations.verify(document, filename=file.filename, sha256=digests[file.filename])
        except AttestationMismatch as error:
            invalid.append(f"{file.filename}: {error.found}")
        else:
            attested[file.filename] = set(map(attestations.words, found))
            identities.update(found)
    return attested, identities, invalid


def _fitting(package: Package, there: Mapping[str, Sequence[File]]) -> str | None:
    """A wheel of the index that is of the locked version, and for this machine."""
    wheels = [
        files[0]
        for name, files in there.items()
        if name.endswith(simple_api.WHEEL)
        and str(simple_api.version(name, canonicalize_name(package.name))) == package.version
    ]
    best = selection.best_wheel(wheels, selection.ranks_here())
    return None if best is None else best.filename


def _publishers(document: Any, sha256: str) -> set[str]:
    """The publishers that attest a file with that hash in a provenance object (PEP 740, "Provenance Objects")."""
    found = set()
    for bundle in _dicts(document, "attestation_bundles"):
        publisher = bundle.get("publisher")
        if isinstance(publisher, dict) and any(_is_of(item, sha256) for item in _dicts(bundle, "attestations")):
            parts = [publisher.get(key) for key in ("kind", "repository", "workflow", "workflow_filepath", "email")]
            found.add(" ".join(" ".join(str(part)[:200].split()) for part in parts if part))
    return found - {""}


def _is_of(attestation: dict[str, Any], sha256: str) -> bool:
    """Whether an attestation is about a file with that hash (PEP 740, "Attestation objects")."""
    envelope = attestation.get("envelope")
    try:
        statement = foreign_json.read(base64.b64decode(envelope["statement"])) if isinstance(envelope, dict) else None
    except (KeyError, TypeError, ValueError):
        return False
    digests = (subject.get("digest") for subject in _dicts(statement, "subject"))
    return any(isinstance(digest, dict) and digest.get("sha256") == sha256 for digest in digests)


def _dicts(document: Any, key: str) -> list[dict[str, Any]]:
    """The objects in a list of a document that may contain anything."""
    items = document.get(key) if isinstance(document, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
