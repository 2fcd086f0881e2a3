"""What can go wrong: one root, leaves by exit code.

A message says what happened, where, what was expected and found, which plugin asked for it, and one next
step. The parts stay apart as fields, so that ``--json`` and tests can read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BaseMismatch",
    "BuildError",
    "CommandFailed",
    "DiskError",
    "HashMismatch",
    "InstallError",
    "LoadError",
    "LockInvalid",
    "LockMissing",
    "LockStale",
    "ManifestError",
    "NoResolution",
    "NotInstalled",
    "NotTrusted",
    "OverlayGone",
    "OverlayStale",
    "PluginsError",
    "SourceError",
    "StoreError",
    "UsageError",
]


class PluginsError(Exception):
    """The root of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 1
    id: ClassVar[str] = "failure"

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        required_by: str | None = None,
        details: Sequence[str] = (),
        next_step: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.expected = expected
        self.found = found
        self.required_by = required_by
        self.details = tuple(details)
        self.next_step = next_step

    def __str__(self) -> str:
        lines = [f"{self.what} [{self.id}]"]
        for label, value in (
            ("where", self.where),
            ("expected", self.expected),
            ("found", self.found),
            ("required by", self.required_by),
        ):
            if value is not None:
                lines.append(f"  {label}: {value}")
        lines.extend(f"  {detail}" for detail in self.details)
        if self.next_step is not None:
            lines.append(f"  next: {self.next_step}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """The error as JSON-ready data; fields that say nothing are left out."""
        fields: dict[str, object] = {
            "error": self.id,
            "exit_code": self.exit_code,
            "what": self.what,
            "where": self.where,
            "expected": self.expected,
            "found": self.found,
            "required_by": self.required_by,
            "details": list(self.details) or None,
            "next_step": self.next_step,
        }
        return {key: value for key, value in fields.items() if value is not None}


class UsageError(PluginsError):
    """The command line or an environment variable holds something that has no meaning."""

    id = "usage"
    exit_code = 2


class ManifestError(PluginsError):
    """``plugins.yaml`` can't be used. ``details`` has one line a problem, each with line and path."""

    id = "manifest-invalid"
    exit_code = 2


class SourceError(PluginsError):
    """A git repository or a local directory can't give what the manifest asks of it."""

    id = "source-unavailable"


class BuildError(PluginsError):
    """A wheel can't be built from its source."""

    id = "build-failed"


class LockMissing(PluginsError):
    """There is a manifest and no lock."""

    id = "lock-missing"
    exit_code = 3


class LockStale(PluginsError):
    """The lock does not say what the manifest asks for."""

    id = "lock-out-of-date"
    exit_code = 3


class LockInvalid(PluginsError):
    """``plugins.lock`` can't be read as a lock of a format that this version knows."""

    id = "lock-invalid"
    exit_code = 3


class HashMismatch(PluginsError):
    """Bytes are not the bytes that the lock names."""

    id = "hash-mismatch"
    exit_code = 4


class BaseMismatch(PluginsError):
    """The vLLM environment is not one that the lock was made for."""

    id = "base-mismatch"
    exit_code = 5


class NoResolution(PluginsError):
    """No set of versions satisfies every plugin and the base."""

    id = "no-resolution"
    exit_code = 6


class LoadError(PluginsError):
    """A locked plugin can't be imported, or its entry point names nothing."""

    id = "plugin-load-failed"
    exit_code = 7


class InstallError(PluginsError):
    """The installer failed, or what it made is not what the lock says."""

    id = "install-failed"


class NotInstalled(PluginsError):
    """The store has no overlay of this lock."""

    id = "not-installed"


class OverlayStale(PluginsError):
    """The lock is installed, and its overlay was not checked since manifest or base changed."""

    id = "overlay-out-of-date"


class StoreError(PluginsError):
    """The store can't be read or written."""

    id = "store-unusable"


class OverlayGone(StoreError):
    """An overlay was taken out of the store (``vllm-plugins prune``) before it could be used."""

    id = "overlay-removed"


class DiskError(PluginsError):
    """A disk is full, read-only or broken."""

    id = "disk-failure"


class NotTrusted(PluginsError):
    """Another user could change what would be run."""

    id = "not-trusted"


class CommandFailed(PluginsError):
    """A program that we started ended with an error.

    ``returncode`` is its exit status (negative: the signal), ``stdout`` and ``stderr`` what it printed,
    redacted.
    """

    id = "program-failed"

    def __init__(
        self, what: str, *, returncode: int, stdout: str = "", stderr: str = "", details: Sequence[str] = ()
    ) -> None:
        super().__init__(what, details=details)
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
