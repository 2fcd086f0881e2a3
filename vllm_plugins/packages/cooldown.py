"""The cooldown: releases that are too young to be locked (``min-age-days`` of the policy).

Most hostile releases are found and removed within days. Where an index gives no upload time, files count as young,
unless their distribution is exempt by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packaging.utils import NormalizedName

    from vllm_plugins.packages.simple_api import File

__all__ = ["Cooldown", "upload_time"]


def upload_time(text: str | None) -> datetime | None:
    """A time as an index writes it (PEP 700); ``None`` where there is none, or not a valid one."""
    try:
        when = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return when.replace(tzinfo=UTC) if when is not None and when.tzinfo is None else when


@dataclass(frozen=True, kw_only=True, slots=True)
class Cooldown:
    """Only files that were uploaded ``days`` before ``now`` may be locked; ``exempt`` names may be younger."""

    days: int
    exempt: frozenset[NormalizedName]
    now: datetime

    @property
    def until(self) -> datetime:
        """The time before which a file must have been uploaded."""
        return self.now - timedelta(days=self.days)

    def mark(self, name: NormalizedName, files: Iterable[File]) -> tuple[File, ...]:
        """The files of a distribution; ``too_young`` says of each why it must wait."""
        if name in self.exempt:
            return tuple(files)
        return tuple(replace(file, too_young=self._why(file)) for file in files)

    def _why(self, file: File) -> str:
        when = upload_time(file.upload_time)
        if when is None:
            return f"has no upload time at its index, and the policy requires an age of {self.days} days"
        if when <= self.until:
            return ""
        enough = when + timedelta(days=self.days)
        return (
            f"is too young: it was uploaded on {when.astimezone(UTC):%Y-%m-%d %H:%M} UTC, "
            f"and is {self.days} days old on {enough.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        )
