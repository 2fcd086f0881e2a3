"""The cooldown of a policy: releases that are too young to be locked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packaging.utils import NormalizedName

    from vllm_plugins.packages.simple_api import File

__all__ = ["Cooldown", "upload_time"]

_CLOCKS = timedelta(hours=12)  # how far the clock of this machine may be ahead of an index's


@dataclass(frozen=True, kw_only=True, slots=True)
class Cooldown:
    """Releases that are too young to be locked (``min-age-days`` of the policy).

    Most hostile releases are found and removed within days. A file whose index gives no upload time counts as young.
    Only files that were uploaded ``days`` before ``now`` may be locked; ``exempt`` names may be younger.
    """

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
        clock = f"; the clock of this machine says {self.now:%Y-%m-%d %H:%M} UTC" if when > self.now else ""
        return (
            f"is too young: it was uploaded on {when.astimezone(UTC):%Y-%m-%d %H:%M} UTC, "
            f"and is {self.days} days old on {enough.astimezone(UTC):%Y-%m-%d %H:%M} UTC{clock}"
        )

    def check_clock(self, headers: Mapping[str, str], page: str) -> None:
        """Compare the clock of this machine with that of an index, which says when it answered.

        Raises:
            SourceError: ours is ahead, so that releases seem older than they are.
        """
        try:
            answered = parsedate_to_datetime(headers.get("Date", ""))
            answered = answered.replace(tzinfo=answered.tzinfo or UTC) + timedelta(
                seconds=int(headers.get("Age", "0"))
            )
        except (ValueError, TypeError, OverflowError):
            return
        if self.now - answered > _CLOCKS:
            raise SourceError(
                "the clock of this machine is ahead of the index's, so the age of releases can't be checked",
                where=page,
                expected=f"{answered.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
                found=f"{self.now:%Y-%m-%d %H:%M} UTC",
                next_step="set the clock of this machine; `min-age-days` of `policy:` in plugins.yaml relies on it",
            )


def upload_time(text: str | None) -> datetime | None:
    """A time as an index writes it (PEP 700); ``None`` where there is none, or not a valid one."""
    try:
        when = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return when.replace(tzinfo=UTC) if when is not None and when.tzinfo is None else when
