"""The errors of this package: one root class, and a class for each kind of failure.

An error has an exit code, a stable id, and its parts as fields, so that ``--json`` and tests can read them: what
happened, where, what was expected and found, which plugin requires it, and one next step.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from vllm_plugins.core._failures.askers import as_data
from vllm_plugins.core._failures.causes import cause
from vllm_plugins.core._failures.disk import DISK, remedy
from vllm_plugins.core.printable import printable

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
    "cause",
    "remedy",
]

_PARTS = ("where", "expected", "found", "required_by")
_TEXTS = {"required_by": "required_by_text"}  # the keys of parts that JSON has as data, too


class PluginsError(Exception):
    """The root of all errors that this package raises on purpose.

    ``id`` names the kind of error. It is printed with the message, and has a section in the documentation.
    """

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
        self.where, self.required_by = where, required_by
        self.expected, self.found = expected, found
        self.what, self.details = what, tuple(details)
        self.next_step = next_step

    def __str__(self) -> str:
        return self.text(self.next_step)

    def text(self, next_step: str | None) -> str:
        """The error for people, with this next step. What others wrote can't add a line that looks like ours."""
        lines = [f"{self.what} [{self.id}]"]
        fields = {name: getattr(self, name) for name in _PARTS}
        lines += [f"  {name.replace('_', ' ')}: {value}" for name, value in fields.items() if value is not None]
        lines.extend(f"  {detail}" for detail in self.details)
        if next_step is not None:
            lines.append(f"  next: {next_step}")
        return printable("\n".join(line.replace("\n", "\n    ") for line in lines))

    def to_dict(self) -> dict[str, object]:
        """The error as data for JSON, without its empty fields."""
        fields: dict[str, object] = {"error": self.id, "exit_code": self.exit_code, "what": self.what}
        fields |= {name: getattr(self, name) for name in _PARTS}
        fields |= {**as_data(self.required_by), "details": list(self.details) or None, "next_step": self.next_step}
        return {key: value for key, value in fields.items() if value is not None}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> PluginsError:
        """The error that :meth:`to_dict` wrote, usually in another process.

        Raises:
            KeyError, TypeError: the data is not of an error.
        """
        if not isinstance(data, dict):
            raise TypeError("an error is an object")
        fields = {name: data.get(_TEXTS.get(name, name)) for name in (*_PARTS, "next_step")}
        details = data.get("details") or []
        texts = [data["what"], *details, *(value for value in fields.values() if value is not None)]
        if not isinstance(details, list) or not all(isinstance(text, str) for text in texts):
            raise TypeError("the parts of an error are texts")
        kind = _by_id(PluginsError).get(data["error"], PluginsError)
        if issubclass(kind, CommandFailed):
            return CommandFailed(data["what"], returncode=1, details=details)
        return kind(data["what"], details=details, **fields)


def _by_id(root: type[PluginsError]) -> dict[str, type[PluginsError]]:
    """A class and all classes below it, by their ids."""
    kinds = {root.id: root}
    for kind in root.__subclasses__():
        kinds |= _by_id(kind)
    return kinds


class UsageError(PluginsError):
    """An option of the command line or an environment variable has an invalid value."""

    id = "usage"
    exit_code = 2


class ManifestError(PluginsError):
    """``plugins.yaml`` is invalid. ``details`` has one line for each problem, with its line number and path."""

    id = "manifest-invalid"
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
        where = str(error.filename) if error.filename else None
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
