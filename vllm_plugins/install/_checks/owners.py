"""Which distribution of a stage owns each file, and what is left out because several have it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import InstallError
from vllm_plugins.documents.lock import in_words
from vllm_plugins.packages import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.packages.metadata import RecordEntry

__all__ = ["BAD_WHEEL", "Owner", "Rows", "leave_out", "of_files", "shared_documents", "title"]

BAD_WHEEL = "report it to the plugin's author, and set `enabled: false` for the plugin in plugins.yaml"

Rows = tuple["RecordEntry", ...]
Owner = tuple[str, str]  # .dist-info, and the hash of the file


def shared_documents(records: Mapping[Path, Rows]) -> list[str]:
    """Documents next to packages, such as ``LICENSE``, that several distributions have with different contents.

    One with two hashes in one RECORD is not among them: :func:`of_files` refuses it.
    """
    hashes: dict[str, list[str]] = {}
    doubled: set[str] = set()
    for rows in records.values():
        own = [(path, digest) for path, digest, _ in rows if metadata.is_stray_document(path)]
        doubled |= {path for path, times in Counter(path for path, _ in own).items() if times > 1}
        for path, digest in own:
            hashes.setdefault(path, []).append(digest)
    return sorted(path for path, digests in hashes.items() if len(set(digests)) > 1 and path not in doubled)


def leave_out(site: Path, records: Mapping[Path, Rows], paths: Collection[str]) -> dict[Path, Rows]:
    """Remove files from an installation and from each RECORD. Returns the rows that are left."""
    left = dict(records)
    for info, rows in records.items():
        left[info] = tuple(row for row in rows if row.path not in paths)
        if left[info] != rows:
            (info / "RECORD").write_bytes(metadata.format_record(left[info]).encode())
    for path in paths:
        (site / path).unlink(missing_ok=True)
    return left


def of_files(records: Mapping[Path, Rows], requirers: Callable[[NormalizedName], Sequence[str]]) -> dict[str, Owner]:
    """The owner of each file. Two distributions may own one file only if its content is the same in both.

    Raises:
        InstallError: it is not, or one RECORD has two hashes of a file.
    """
    owners: dict[str, Owner] = {}
    for info, rows in records.items():
        for path, digest, _ in rows:
            other, other_digest = owners.setdefault(path, (info.name, digest))
            if digest == other_digest:  # nvidia/__init__.py is in a dozen wheels
                continue
            if other == info.name:
                raise InstallError(
                    f"RECORD of {title(info.name)} has two hashes for one file", where=path, next_step=BAD_WHEEL
                )
            plugins = [_required_by(name, requirers) for name in (other, info.name)]
            raise InstallError(
                f"two distributions own the file {path}, with different contents",
                found=f"{title(other)} and {title(info.name)}",
                required_by=" and ".join(dict.fromkeys(filter(None, plugins))) or None,
                next_step="set `enabled: false` in plugins.yaml for a plugin that needs one of them, and lock again",
            )
    return owners


def _required_by(info: str, requirers: Callable[[NormalizedName], Sequence[str]]) -> str:
    """The plugins that require a distribution, in words."""
    name = canonicalize_name(info.removesuffix(".dist-info").rpartition("-")[0])
    return ", ".join(map(in_words, requirers(name)))


def title(info: str) -> str:
    """``tiny-1.0.dist-info`` as ``tiny 1.0``."""
    return info.removesuffix(".dist-info").replace("-", " ")
