"""The smallest plugin that vLLM calls, locked and installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .index import Index
    from .place import Place

__all__ = ["install"]


def install(place: Place, index: Index) -> None:
    """Publish ``tiny`` with one general plugin, lock it and install it."""
    index.wheel(
        "tiny",
        entry_points={"vllm.general_plugins": {"tiny": "tiny:register"}},
        modules={"tiny.py": "def register(): ...\n"},
    )
    place.pypi("tiny")
    place.run("lock")
    place.run("sync")
