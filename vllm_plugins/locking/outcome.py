"""The result of a run of ``lock``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_plugins.documents.diff import Change
    from vllm_plugins.documents.lock import Lock

__all__ = ["Outcome"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The lock after a run. ``resolved``: it was made in this run; else nothing could have changed.

    With targets, ``locks`` are those of all targets, and ``lock`` is this environment's, or else the first of them.
    ``notes``: one line for each plugin that is not at its newest release. ``unchecked``: what ``--check`` could not
    compare.
    """

    lock: Lock
    locks: tuple[Lock, ...] = ()
    changes: tuple[Change, ...] = ()
    resolved: bool = False
    notes: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
