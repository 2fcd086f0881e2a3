"""Faults at any call that changes a file, in a program and all that it starts: ``preload.c``, built and armed."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path

__all__ = ["Do", "Preload", "build", "clock"]

_HEAD = "=QQiiI"  # as `struct page` begins
_SIZE = struct.calcsize(_HEAD) + 4 * 4000 + 8


class Do(IntEnum):
    """What happens at the call; its numbers are those of ``preload.c``."""

    NOTHING = 0
    KILL_CALLER = 1  # the process that makes the call
    KILL_FIRST = 2  # the command itself, whoever makes the call: what it has started goes on
    KILL_ALL = 3  # all of them
    FAIL_SPACE = 4  # this call and all later ones that need space
    FAIL_EVERY = 5  # this call and all later ones
    FLOCK_FAILS = 6
    FLOCK_LIES = 7


def build(into: Path) -> Path:
    """Compile the library into a directory."""
    library = into / "preload.so"
    argv = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library)]
    subprocess.run([*argv, str(Path(__file__).with_name("preload.c")), "-ldl", "-pthread"], check=True)
    return library


def clock(into: Path, now: datetime) -> dict[str, str]:
    """The variables of a program, and of all that it starts, for which it is that time."""
    return {"LD_PRELOAD": str(build(into)), "FAULT_CLOCK": str(int((now - datetime.now(UTC)).total_seconds()))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Preload:
    """The library, with a page and a log in ``directory``; calls below ``under`` count."""

    library: Path
    directory: Path
    under: tuple[Path, ...]

    @property
    def _page(self) -> Path:
        return self.directory / "page"

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def arm(self, do: Do = Do.NOTHING, at: int = 0, error: int = 0) -> dict[str, str]:
        """The variables of a program that begins now, to which that happens at its call number ``at`` (from 1)."""
        self._page.write_bytes(struct.pack(_HEAD, 0, at, do, error, 0).ljust(_SIZE, b"\0"))
        self._log.unlink(missing_ok=True)
        return {
            "LD_PRELOAD": str(self.library),
            "FAULT_PAGE": str(self._page),
            "FAULT_LOG": str(self._log),
            "FAULT_UNDER": ":".join(map(str, self.under)),
        }

    @property
    def calls(self) -> list[str]:
        """The calls that were counted: number, name and path."""
        return self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []

    @property
    def processes(self) -> list[int]:
        """Every process that there was."""
        data = self._page.read_bytes()
        *_, count = struct.unpack_from(_HEAD, data)
        return list(struct.unpack_from(f"={min(count, 4000)}i", data, struct.calcsize(_HEAD)))

    def running(self) -> list[int]:
        """Those of them that still run: killed ones may need a moment."""
        return [number for number in self.processes if _runs(number)]


def _runs(number: int) -> bool:
    try:
        stat = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
