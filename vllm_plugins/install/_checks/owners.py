"""Which distribution of a stage owns each file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import InstallError
from vllm_plugins.documents.lock import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.packages.metadata import RecordEntry

__all__ = ["BAD_WHEEL", "Owner", "Rows", "of_files", "title"]

BAD_WHEEL = "report it to the plugin's author, and set `enabled: false` for the plugin in plugins.yaml"

Rows = tuple["RecordEntry", ...]
Owner = tuple[str, str]  # .dist-info, and the hash of the file


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
