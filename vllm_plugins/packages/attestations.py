"""Attestations of publishers (PEP 740): who has published a file, verified with the library ``pypi-attestations``.

Verified are the certificate of the signature against the trust root, its entry in the transparency log, the publisher
that the certificate names, and that the statement is about a file of exactly this name and hash. Nothing is fetched
for the trust root: it is the library's own, or one that it has kept. A key that was revoked later is not noticed.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from typing import TYPE_CHECKING, Any

from vllm_plugins.core.errors import AttestationMismatch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from vllm_plugins.documents.lock import Identity, Package
    from vllm_plugins.packages.index import Index
    from vllm_plugins.packages.simple_api import File

__all__ = ["INSTALL", "is_available", "listed", "of_file", "of_release", "verify", "words"]

INSTALL = "pip install 'vllm-plugin-manager[attestations]'"

# What identifies a publisher. Other fields, such as an environment, are not part of what is verified.
_IDENTIFYING = (
    "kind",
    "email",
    "pipeline_definition_id",
    "project_id",
    "repository",
    "vcs_origin",
    "workflow",
    "workflow_filepath",
)


def is_available() -> bool:
    """Whether the library is installed."""
    return importlib.util.find_spec("pypi_attestations") is not None


def words(identity: Identity) -> str:
    """A publisher for people."""
    kind_first = sorted(identity, key=lambda pair: pair[0] != "kind")
    return " ".join(" ".join(value.split()) for _, value in kind_first)  # in one line, whatever is in it


def verify(document: Any, *, filename: str, sha256: str) -> tuple[Identity, ...]:
    """The publishers of a file, by the provenance object of its index. Each attestation in it must verify.

    Raises:
        AttestationMismatch: one does not, or the document is not valid.
    """
    from pypi_attestations import Distribution, Provenance

    logging.getLogger("sigstore").setLevel(logging.ERROR)  # it warns that it fetches nothing, which we want
    found: set[Identity] = set()
    try:
        provenance = Provenance.model_validate_json(json.dumps(document))
        distribution = Distribution(name=filename, digest=sha256)
        for bundle in provenance.attestation_bundles:
            for attestation in bundle.attestations:
                attestation.verify(bundle.publisher, distribution, offline=True)
                found.add(_identity(bundle.publisher.model_dump()))
    except Exception as error:  # certificates and logs of strangers; the library has no common error
        raise AttestationMismatch(
            f"an attestation of {filename} does not verify",
            found=f"{type(error).__name__}: {error}"[:500],
            next_step="don't use that file until you know why: report it to the index and to the project",
        ) from error
    return tuple(sorted(found))


def of_file(file: File, index: Index) -> tuple[Identity, ...]:
    """The verified publishers of a file of an index; none where it has no attestation.

    Raises:
        SourceError: the index can't be read.
        AttestationMismatch: an attestation does not verify.
    """
    if file.provenance is None or file.sha256 is None:
        return ()
    return verify(index.document(file.provenance), filename=file.filename, sha256=file.sha256)


def of_release(file: File, index: Index, was: Package | None, *, accepted: Collection[str]) -> tuple[Identity, ...]:
    """The publishers of a file to lock. ``was`` is its package in the old lock, whose publishers must be the same.

    ``accepted`` are packages whose publisher may change. Without the library, nothing is verified; the file of a
    package whose publisher is locked is then refused.

    Raises:
        SourceError: the index can't be read.
        AttestationMismatch: an attestation does not verify, or the publisher is another one.
    """
    locked = was.identities if was is not None else ()
    if locked and was is not None and file.sha256 in {wheel.sha256 for wheel in was.wheels}:
        return locked
    name = was.name if was is not None else ""
    accept = f"vllm-plugins lock --accept-publisher {name}"
    if not is_available():
        if locked and name not in accepted:
            raise AttestationMismatch(
                f"the publisher of {name} is locked, and pypi-attestations, which verifies it, is not installed",
                where=file.filename,
                expected=listed(locked),
                next_step=f"{INSTALL}; or accept the file without it: {accept}",
            )
        return ()
    found = of_file(file, index)
    if locked and set(found) != set(locked) and name not in accepted:
        raise AttestationMismatch(
            f"the publisher of {name} has changed",
            where=file.filename,
            expected=listed(locked),
            found=listed(found),
            next_step=f"find out why; if the change is intended, accept it: {accept}",
        )
    return found


def _identity(publisher: dict[str, Any]) -> Identity:
    return tuple((key, str(publisher[key])) for key in _IDENTIFYING if publisher.get(key) is not None)


def listed(identities: Iterable[Identity]) -> str:
    """Publishers for people."""
    return ", ".join(map(words, identities)) or "no attestation"
