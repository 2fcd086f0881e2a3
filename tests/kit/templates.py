"""Worlds that are made once and copied: a lock and an installation take a second, a copy takes a hundredth of one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .index import Index
    from .place import Place

__all__ = ["Templates", "copy"]


def copy(root: Path, place: Place) -> None:
    """Copy another place, by its root, into one that is empty.

    The history of the store has the paths of locks, and nothing else in a place has any. The links in the cache are those
    of any place.
    """
    links = shutil.ignore_patterns("stubs", "interpreter-*")
    shutil.copytree(root, place.root, symlinks=True, dirs_exist_ok=True, ignore=links)
    history = place.store / "history.jsonl"
    if history.exists():
        text = history.read_text(encoding="utf-8")
        history.write_text(text.replace(f'"{root}/', f'"{place.root}/'), encoding="utf-8")


@dataclass(frozen=True, kw_only=True, slots=True)
class Templates:
    """Copies of places and of their indexes, in a directory of this session."""

    root: Path
    _known: dict[tuple[object, ...], Path] = field(default_factory=dict)

    def fill(self, place: Place, index: Index, make: Callable[[], object], *words: object) -> Place:
        """Fill an empty place and an empty index with what ``make`` does, which runs at the first call only.

        Calls are the same when function, ``words`` and address of the index are: the lock contains that address. What
        ``make`` does must not depend on anything else, and must write the path of the place nowhere but in its history.
        """
        known = (make.__code__, place.resolver, index.url, *words)
        template = self._known.get(known)
        if template is None:
            make()
            template = self.root / str(len(self._known))
            copy(place.root, replace(place, root=template / "place"))
            shutil.copytree(index.directory, template / "index")
            self._known[known] = template
        else:
            copy(template / "place", place)
            shutil.copytree(template / "index", index.directory, dirs_exist_ok=True)
        return place
