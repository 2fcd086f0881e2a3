"""The trust check of a start, as problems that commands report: who else could change what would be run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.core.errors import NotTrusted
from vllm_plugins.startup import _trust, overlay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_plugins.startup.settings import Settings

__all__ = ["check_owners", "problems"]


def problems(settings: Settings, key: str | None) -> Iterator[NotTrusted]:
    """What a start would refuse: the first of lock, manifest and store, and of the overlay with this key."""
    try:
        _trust.check(settings)
    except NotTrusted as error:
        yield error
    if key is not None:
        try:
            _trust.check_overlay(settings, overlay.directory(settings.store, key))
            if settings.verify:
                _trust.check_files(settings, overlay.directory(settings.store, key))
        except NotTrusted as error:
            yield error


def check_owners(settings: Settings, *paths: Path) -> None:
    """Check who owns these paths, and the directories above them.

    Raises:
        NotTrusted: another user does.
    """
    _trust.check_owners(settings, *map(str, paths))
