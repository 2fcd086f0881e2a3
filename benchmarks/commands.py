"""The command line itself."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from .measure import Case, Row, absolute, take_turns, use
from .world import TINY

if TYPE_CHECKING:
    from tests.kit.place import Place

    from .world import Worlds

__all__ = ["cases"]

_IMPORTS = "starting Python and its imports take most of it"


def cases(worlds: Worlds) -> list[Case]:
    """``--version`` and ``status``, whole processes."""
    place = functools.partial(worlds.installed, replace(TINY, plugins=4, helpers=3))
    return [
        Case(measure=lambda rounds: _command(place(), rounds, "--version"), rounds=20, short=5, guard=36),
        Case(measure=lambda rounds: _command(place(), rounds, "status"), rounds=20, short=5, guard=110, why=_IMPORTS),
    ]


def _command(place: Place, rounds: int, word: str) -> Row:
    environment = {**place.environment, "PYTHONDONTWRITEBYTECODE": ""}

    def run(*words: str) -> float:
        return use([sys.executable, *words], environment, place.root).processor  # as in hook

    turns = take_turns(rounds, lambda: run("-m", "vllm_plugins", word), lambda: run("-c", "pass"))
    what = f"vllm-plugins {word}, whole process"
    return absolute(turns, group="command line", what=what, against="an interpreter that does nothing", goal=100)
