"""What an index says today of the files that were locked: withdrawn, changed, how old, and by whom they were published."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from .index import Index
    from .lock import Package
    from .simple import File

__all__ = ["Published", "read"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """The locked files of one package at their index.

    ``yanked`` is the index's reason ("" where it gives none, ``None`` where nothing is withdrawn). ``changed`` and
    ``gone`` are names of files. ``uploaded`` is of the oldest file (PEP 700). ``publishers`` are those that the
    attestations of the files name (PEP 740); their signatures are the index's business, and not verified here.
    """

    yanked: str | None
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    uploaded: datetime | None
    publishers: tuple[str, ...]
    unattested: tuple[str, ...]


def read(package: Package, index: Index) -> Published:
    """Ask the index of one package.

    Raises:
        SourceError: it can't be read.
    """
    there: dict[str, list[File]] = {}
    for file in index.files(canonicalize_name(package.name)):
        there.setdefault(file.filename, []).append(file)
    wheels = [wheel for wheel in package.wheels if wheel.url is not None]
    wanted = [(wheel.filename, wheel.sha256) for wheel in wheels]
    if package.sdist_url is not None and package.sdist_sha256 is not None:
        wanted.append((package.sdist_url.rpartition("/")[2], package.sdist_sha256))
    same = [file for name, digest in wanted for file in there.get(name, ()) if file.sha256 in (None, digest)]
    named = {file.filename for file in same}
    times = [when for file in same if (when := _time(file.upload_time)) is not None]
    withdrawn = [file for file in same if file.yanked]
    publishers: set[str] = set()
    for address in sorted({file.provenance for file in same if file.provenance}):
        publishers |= _publishers(index.document(address))
    return Published(
        yanked=next((file.yanked_reason for file in withdrawn if file.yanked_reason), "") if withdrawn else None,
        changed=tuple(name for name, _ in wanted if name in there and name not in named),
        gone=tuple(name for name, _ in wanted if name not in there),
        uploaded=min(times, default=None),
        publishers=tuple(sorted(publishers)),
        unattested=tuple(file.filename for file in same if not file.provenance),
    )


def _time(text: str | None) -> datetime | None:
    try:
        when = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return when.replace(tzinfo=UTC) if when is not None and when.tzinfo is None else when


def _publishers(document: Any) -> set[str]:
    """The publishers of a provenance object (PEP 740, "Provenance Objects")."""
    bundles = document.get("attestation_bundles") if isinstance(document, dict) else None
    found = set()
    for bundle in bundles if isinstance(bundles, list) else ():
        publisher = bundle.get("publisher") if isinstance(bundle, dict) else None
        if isinstance(publisher, dict) and bundle.get("attestations"):
            parts = [publisher.get(key) for key in ("kind", "repository", "workflow", "email")]
            found.add(" ".join(str(part)[:200] for part in parts if part))
    return found - {""}
