"""pip and uv: each owns its whole command line.

What they are asked for is the same: wheels that are named by hash, without their dependencies, into a directory
that nobody uses yet. Where they fetch from is pip's configuration, for both.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from vllm_plugins.core import process
from vllm_plugins.core.errors import CommandFailed, DiskError, HashMismatch, InstallError, PluginsError, UsageError
from vllm_plugins.packages import pip_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import InstallerName

__all__ = ["Installer", "Pip", "Uv", "choose", "find_uv"]

# Variables of pip that would change what is installed or where, rather than where it comes from.
_NOT_OURS = ("PIP_CONSTRAINT", "PIP_REQUIREMENT", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_EDITABLE")


class Installer(Protocol):
    """A program that installs wheels. Both methods raise ``InstallError`` or ``HashMismatch``."""

    @property
    def name(self) -> str:
        """``pip`` or ``uv``."""

    def install(self, requirements: Path, target: Path, *, offline: bool) -> None:
        """Install a hashed requirements file into an empty directory, without compiling it."""

    def provision(
        self,
        python: Path,
        requirements: Sequence[str],
        *,
        constraints: Path,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Install build requirements, with their dependencies, into the environment of another interpreter.

        ``constraints`` is a file of what must be of one version.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Pip:
    """The pip of this interpreter."""

    config: PipConfig
    name: str = "pip"

    def install(self, requirements: Path, target: Path, *, offline: bool) -> None:
        """See :class:`Installer`."""
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        argv += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile"]
        argv += ["--progress-bar", "off", "--target", str(target), "--requirement", str(requirements)]
        argv += ["--no-index"] if offline else []
        _install(argv, self._environment(), self.config)

    def provision(
        self,
        python: Path,
        requirements: Sequence[str],
        *,
        constraints: Path,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """See :class:`Installer`."""
        argv = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-input"]
        argv += ["--disable-pip-version-check", "--progress-bar", "off", "--constraint", str(constraints)]
        argv += ["--", *requirements]
        # What lies on a PYTHONPATH would be there already, and is not in the environment.
        env = {key: value for key, value in self._environment().items() if key != "PYTHONPATH"}
        _provision(argv, env, self.config, on_line)

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key not in _NOT_OURS}
        return {**kept, "PIP_REQUIRE_VIRTUALENV": "0", "PYTHONNOUSERSITE": "1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Uv:
    """uv, with pip's index configuration handed to it.

    Its cache is ours alone: uv links files from its cache, so whoever edits an installed file elsewhere would edit
    what we install. With ``--link-mode copy`` nobody can edit the cache through an overlay either.
    """

    program: Path
    config: PipConfig
    cache: Path
    name: str = "uv"

    def install(self, requirements: Path, target: Path, *, offline: bool) -> None:
        """See :class:`Installer`."""
        argv = [str(self.program), "pip", "install", "--quiet", "--no-progress", "--python", sys.executable]
        argv += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile-bytecode"]
        argv += ["--link-mode", "copy", "--cache-dir", str(self.cache)]
        argv += ["--target", str(target), "--requirements", str(requirements)]
        argv += ["--no-index"] if offline or self.config.index_url is None else []
        _install(argv, self._environment(), self.config)
        (target / ".lock").unlink(missing_ok=True)  # uv's own, of mode 0666

    def provision(
        self,
        python: Path,
        requirements: Sequence[str],
        *,
        constraints: Path,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """See :class:`Installer`."""
        argv = [str(self.program), "pip", "install", "--quiet", "--no-progress", "--python", str(python)]
        argv += ["--link-mode", "copy", "--cache-dir", str(self.cache), "--constraint", str(constraints)]
        argv += [*([] if self.config.index_url is not None else ["--no-index"]), "--", *requirements]
        _provision(argv, self._environment(), self.config, on_line)

    def _environment(self) -> Mapping[str, str]:
        kept = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "UV_CONSTRAINT")}
        return {**kept, **pip_config.uv_environment(self.config, kept), "UV_PYTHON_DOWNLOADS": "never"}


def choose(name: InstallerName, *, config: PipConfig, cache: Path) -> Installer:
    """The installer of that name; ``auto`` is uv where it is, else pip. ``cache`` is a directory for uv alone.

    Raises:
        UsageError: uv was asked for and is not there.
    """
    program = None if name == "pip" else find_uv()
    if program is not None:
        return Uv(program=program, config=config, cache=cache)
    if name == "uv":
        raise UsageError(
            "uv was asked for and is not installed",
            next_step="pip install uv, or set VLLM_PLUGIN_INSTALLER to auto or pip",
        )
    return Pip(config=config)


def find_uv() -> Path | None:
    """The uv that was installed beside us, else the one on the PATH."""
    return process.find("uv")


def _install(argv: Sequence[str], env: Mapping[str, str], config: PipConfig) -> None:
    try:
        process.run(argv, env=env, secrets=config.secrets, timeout=config.patience)
    except CommandFailed as error:
        raise _explain(error) from error


def _provision(
    argv: Sequence[str], env: Mapping[str, str], config: PipConfig, on_line: Callable[[str], None] | None
) -> None:
    try:
        process.run(argv, env=env, secrets=config.secrets, on_line=on_line, timeout=config.patience)
    except CommandFailed as error:
        raise InstallError(
            "the build requirements can't be installed",
            details=error.details,
            next_step="look at the installer's words above; the index configuration is pip's (pip config list)",
        ) from error


def _explain(error: CommandFailed) -> PluginsError:
    words = f"{error.stdout}\n{error.stderr}"
    if "Hash mismatch" in words or "DO NOT MATCH THE HASHES" in words:
        return HashMismatch(
            "a file is not the one that the lock names",
            details=error.details,
            next_step="find out who changed it; if the source is right, lock again and review the change",
        )
    if "No locks available" in words:
        return InstallError(
            "uv needs file locks, which do not work in the store or in its cache",
            details=error.details,
            next_step="set VLLM_PLUGIN_INSTALLER=pip, or VLLM_PLUGIN_REGISTRY_DIR and XDG_CACHE_HOME to other places",
        )
    if (full := DiskError.from_output(words, details=error.details)) is not None:
        return full
    return InstallError(
        "the install failed; the store is as it was",
        details=error.details,
        next_step="look at the installer's words above, mend the cause, and run vllm-plugins sync",
    )
