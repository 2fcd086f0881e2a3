"""Worlds that are made once and copied: a lock and an installation take a second, a copy takes a hundredth of one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .index import Index
    from .place import Place

__all__ = ["Templates"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Templates:
    """Copies of places and of their indexes, in a directory of this session."""

    root: Path
    _known: dict[tuple[object, ...], Path] = field(default_factory=dict)

    def fill(self, place: Place, index: Index, make: Callable[[], object], *words: object) -> Place:
        """Fill an empty place and an empty index with what ``make`` does, which runs at the first call only.

        Calls are the same when function, ``words`` and address of the index are: the lock contains that address. What
        ``make`` does must not depend on anything else, and must not write the path of the place anywhere, except into
        the store's history, which knows a project by the path of its lock.
        """
        known = (make.__code__, place.resolver, index.url, *words)
        template = self._known.get(known)
        if template is None:
            make()
            template = self.root / str(len(self._known))
            shutil.copytree(place.root, template / "place", symlinks=True)
            _rewrite_history(template / "place" / "store", place.root, template / "place")
            shutil.copytree(index.directory, template / "index")
            self._known[known] = template
        else:
            shutil.copytree(template / "place", place.root, symlinks=True, dirs_exist_ok=True)
            _rewrite_history(place.store, template / "place", place.root)
            shutil.copytree(template / "index", index.directory, dirs_exist_ok=True)
        return place


def _rewrite_history(store: Path, old: Path, new: Path) -> None:
    path = store / "history.jsonl"
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(f'"{old}/', f'"{new}/'), encoding="utf-8")
