"""Wheels that are built here, for a base that is another kind of machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.utils import parse_wheel_filename

from vllm_plugins.core.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.documents.base import Base

__all__ = ["NEXT_STEP", "refuse"]

NEXT_STEP = "run vllm-plugins lock on a machine of that kind"


def refuse(path: Path, base: Base, *, required_by: str) -> None:
    """Refuse a wheel that was built here and fits this kind of machine only.

    Raises:
        BuildError: it does not fit the base.
    """
    tags = parse_wheel_filename(path.name)[3]
    if not base.is_here and tags.isdisjoint(base.tags()):
        raise BuildError(
            "a wheel that was built here does not fit the base's kind of machine",
            expected=f"Python {base.python_minor} on {base.platform}",
            found=path.name,
            required_by=required_by,
            next_step=NEXT_STEP,
        )
