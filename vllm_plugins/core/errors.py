"""The errors of this package: one root class, and a class for each kind of failure.

An error has an exit code, a stable id, and its parts as fields, so that ``--json`` and tests can read them: what
happened, where, what was expected and found, which plugin requires it, and one next step.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.core._failures.archives import archive_errors
from vllm_plugins.core._failures.causes import cause
from vllm_plugins.core._failures.disk import DISK, remedy
from vllm_plugins.core._failures.root import PluginsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

__all__ = [
    "AttestationMismatch",
    "BaseMismatch",
    "BuildError",
    "CommandFailed",
    "DiskError",
    "HashMismatch",
    "InstallError",
    "InternalError",
    "Interrupted",
    "LoadError",
    "LockContradiction",
    "LockInvalid",
    "LockMissing",
    "LockStale",
    "LoginRefused",
    "ManifestError",
    "NoResolution",
    "NodeMismatch",
    "NotInstalled",
    "NotTrusted",
    "OverlayGone",
    "OverlayStale",
    "OverrideInactive",
    "PluginsError",
    "RegistryError",
    "SourceError",
    "StoreError",
    "TargetMissing",
    "Terminated",
    "UsageError",
    "archive_errors",
    "cause",
    "remedy",
]


class UsageError(PluginsError):
    """An option of the command line or an environment variable has an invalid value."""

    id = "usage"
    exit_code = 2


class ManifestError(PluginsError):
    """``plugins.yaml`` is invalid. ``details`` has one line for each problem, with its line number and path."""

    id = "manifest-invalid"
    exit_code = 2


class LoginRefused(PluginsError):
    """``plugins.yaml`` or a lock sends a login where ``--policy`` does not send it. ``details`` has each of them."""

    id = "login-refused"
    exit_code = 2


class SourceError(PluginsError):
    """A git repository or a local directory can't be read."""

    id = "source-unavailable"


class RegistryError(PluginsError):
    """A registry of images can't be read, or refuses an image."""

    id = "registry-failed"


class BuildError(PluginsError):
    """A wheel can't be built from its source."""

    id = "build-failed"


class LockMissing(PluginsError):
    """There is a manifest, but no lock."""

    id = "lock-missing"
    exit_code = 3


class LockStale(PluginsError):
    """The lock does not match the manifest."""

    id = "lock-out-of-date"
    exit_code = 3


class LockContradiction(PluginsError):
    """The lock contradicts itself, the manifest, the index or its sources. ``details`` has every contradiction."""

    id = "lock-contradiction"
    exit_code = 3


class LockInvalid(PluginsError):
    """``plugins.lock`` is not a valid lock of a format that this version reads."""

    id = "lock-invalid"
    exit_code = 3


class HashMismatch(PluginsError):
    """A file does not have the hash that the lock gives."""

    id = "hash-mismatch"
    exit_code = 4


class AttestationMismatch(PluginsError):
    """The attestation of a publisher does not verify, or the publisher is not the locked one."""

    id = "attestation-mismatch"
    exit_code = 4


class BaseMismatch(PluginsError):
    """The lock was not made for this vLLM environment."""

    id = "base-mismatch"
    exit_code = 5


class TargetMissing(BaseMismatch):
    """A lock with targets has none for this environment."""

    id = "target-missing"


class NodeMismatch(PluginsError):
    """A node does not have what the first process of its server has."""

    id = "node-mismatch"
    exit_code = 3


class NoResolution(PluginsError):
    """No set of versions satisfies all plugins and the base."""

    id = "no-resolution"
    exit_code = 6


class LoadError(PluginsError):
    """An entry point of a locked plugin can't be loaded, or fails when it is called."""

    id = "plugin-load-failed"
    exit_code = 7


class OverrideInactive(PluginsError):
    """The packages that override those of the base are not in front of it in this process."""

    id = "override-inactive"
    exit_code = 7


class InstallError(PluginsError):
    """The installer failed, or its result does not match the lock."""

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
    """An overlay was removed from the store (``vllm-plugins prune``) before it could be used."""

    id = "overlay-removed"


class DiskError(PluginsError):
    """A disk is full, read-only or broken."""

    id = "disk-failure"

    @classmethod
    def from_os_error(cls, error: OSError) -> Self | None:
        """An error of the operating system as one of ours; ``None`` where the disk is not its cause."""
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
        return cls._of(error.errno, where=where) if error.errno in DISK else None

    @classmethod
    def from_output(cls, text: str, *, details: Sequence[str] = ()) -> Self | None:
        """The disk's error in the output of a program that failed; ``None`` where there is none.

        Programs print the operating system's message, which is the same in all of them.
        """
        number = next((number for number in DISK if os.strerror(number) in text), None)
        return None if number is None else cls._of(number, details=details)

    @classmethod
    def _of(cls, number: int, *, where: str | None = None, details: Sequence[str] = ()) -> Self:
        what, step = DISK[number]
        others = "or set VLLM_PLUGIN_REGISTRY_DIR, XDG_CACHE_HOME or TMPDIR to directories on another disk"
        return cls(what, where=where, found=os.strerror(number), details=details, next_step=f"{step}, {others}")


class NotTrusted(PluginsError):
    """Another user could change the code that would be run."""

    id = "not-trusted"


class CommandFailed(PluginsError):
    """A program that we started failed.

    ``returncode`` is its exit status, or the number of a signal with a minus. ``stdout`` and ``stderr`` are its
    redacted output.
    """

    id = "program-failed"

    def __init__(
        self, what: str, *, returncode: int, stdout: str = "", stderr: str = "", details: Sequence[str] = ()
    ) -> None:
        super().__init__(what, details=details)
        self.returncode = returncode
        self.stdout, self.stderr = stdout, stderr

    @classmethod
    def from_parts(cls, what: str, details: Sequence[str], fields: Mapping[str, str | None]) -> Self:  # noqa: ARG003
        """An error from its parts; the exit status and the output of the program are not among them."""
        return cls(what, returncode=1, details=details)

    @property
    def evidence(self) -> tuple[str, ...]:
        """How the program ended, and its last output: the details of an error that tells what it was run for."""
        return (self.what, *self.details)


class Interrupted(PluginsError):
    """The user has interrupted the command (Ctrl-C)."""

    id = "interrupted"
    exit_code = 130


class Terminated(PluginsError):
    """Another process has ended the command (SIGTERM)."""

    id = "terminated"
    exit_code = 143


class InternalError(PluginsError):
    """A fault of this package: an exception that it does not expect."""

    id = "internal-error"
