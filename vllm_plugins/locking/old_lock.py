"""What the old lock has already, and need not be found or built again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import HashMismatch
from vllm_plugins.documents import compatibility, selection

if TYPE_CHECKING:
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Package, Plugin
    from vllm_plugins.documents.lock_reader import Lock
    from vllm_plugins.locking._resolution import Upgrade

__all__ = ["Kept"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """The old lock, if there is one, but for what is to be upgraded; ``wheels`` is the directory beside it."""

    old: Lock | None
    upgrade: Upgrade
    base: Base
    wheels: Path

    def plugin(self, name: str, **same: object) -> Plugin | None:
        """The entry of a plugin, if these fields of it are the same."""
        was = self.old.plugin(name) if self.old else None
        if was is None or self._is_free(canonicalize_name(name), was.package):
            return None
        return was if all(getattr(was, key) == value for key, value in same.items()) else None

    def built(self, name: NormalizedName, **same: object) -> tuple[Path, tuple[str, ...]] | None:
        """The one wheel that was built for a package, and with what: if it is there, as locked, and fits the base."""
        was = self.old.package(name) if self.old else None
        if was is None or self._is_free(name) or any(compatibility.build_mismatches(was, self.base)):
            return None
        path = self._wheel(was) if all(getattr(was, key) == value for key, value in same.items()) else None
        return None if path is None else (path, was.built_with)

    def _is_free(self, *names: NormalizedName) -> bool:
        return self.upgrade.everything or not self.upgrade.names.isdisjoint(names)

    def _wheel(self, package: Package) -> Path | None:
        built = [wheel for wheel in package.wheels if wheel.url is None]
        if len(built) != 1:
            return None
        try:
            return selection.local(self.wheels / built[0].filename, built[0].sha256)
        except HashMismatch:
            return None  # it is built anew
