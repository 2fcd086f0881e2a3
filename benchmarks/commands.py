"""The command line itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .measure import Case, Row, absolute, take_turns, use
from .world import Size, make

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Server
    from tests.kit.place import Place

__all__ = ["cases"]

_IMPORTS = "starting Python and its imports take most of it"


def cases(server: Server, root: Path) -> list[Case]:
    """``--version`` and ``status``, whole processes."""
    place = make(server, root / "commands", "commands", Size())
    place.run("lock", "--resolver", "uv")
    place.run("sync", "--installer", "uv")
    return [
        Case(measure=lambda rounds: _command(place, rounds, "--version"), rounds=20, short=10),
        Case(measure=lambda rounds: _command(place, rounds, "status"), rounds=20, short=10, why=_IMPORTS),
    ]


def _command(place: Place, rounds: int, word: str) -> Row:
    environment = {**place.environment, "PYTHONDONTWRITEBYTECODE": ""}

    def run(*words: str) -> float:
        return use([sys.executable, *words], environment, place.root).processor  # as in hook

    turns = take_turns(rounds, lambda: run("-m", "vllm_plugins", word), lambda: run("-c", "pass"))
    what = f"vllm-plugins {word}, whole process"
    return absolute(turns, group="command line", what=what, against="an interpreter that does nothing", goal=100)
