"""One thing in two locks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Pair", "by_name"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair(Generic[T]):
    """Something that is added (``old`` is ``None``), removed (``new`` is ``None``) or changed.

    ``lines`` say it to people. ``targets`` are those of the lock to which it applies, if not to all.
    """

    name: str
    old: T | None
    new: T | None
    lines: tuple[str, ...]
    targets: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["added", "removed", "changed"]:
        """What happened to it."""
        return "added" if self.old is None else "removed" if self.new is None else "changed"


def by_name(
    old: Iterable[tuple[str, T]],
    new: Iterable[tuple[str, T]],
    lines: Callable[[str, T | None, T | None], Iterable[str]],
) -> Iterator[Pair[T]]:
    """The pairs of two collections about which there is something to say, in the order of their names."""
    before, after = dict(old), dict(new)
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if texts := tuple(lines(name, was, now)):
            yield Pair(name=name, old=was, new=now, lines=texts)
