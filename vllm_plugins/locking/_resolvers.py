"""pip-compile and uv, as resolvers: each owns its whole command line.

Both read ``requirements.in``, ``constraints.txt`` and the pins of ``requirements.txt`` in a directory, and write new
pins there. Where they look is pip's configuration, for both.
"""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from vllm_plugins.core import process
from vllm_plugins.core.errors import CommandFailed, UsageError
from vllm_plugins.packages import installers, programs
from vllm_plugins.packages.index import Index

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.packages.pip_config import PipConfig

__all__ = ["PipCompile", "Resolver", "ResolverName", "UvCompile", "choose"]

ResolverName = Literal["auto", "pip-compile", "uv"]

_FOUND_NONE, _UNREAD = 1, 2  # exit statuses of uv: no resolution, and something that can't be read
_UV_FOUND_NONE = "No solution found"
_PIP_FOUND_NONE = re.compile(
    r"^pip\._internal\.exceptions\.(DistributionNotFound|UnsupportedPythonVersion)\b", re.MULTILINE
)
_MANYLINUX = re.compile(r"manylinux_2_(\d+)_(\w+)")
# Those that uv knows (uv pip compile --help).
_KNOWN_GLIBC = (17, 28, *range(31, 41))


class Resolver(Protocol):
    """A program that pins requirements; raises ``CommandFailed``, which ``pipeline._resolution`` explains."""

    @property
    def name(self) -> str:
        """``pip-compile`` or ``uv``."""

    def compile(
        self, directory: Path, base: Base, *, wheels: Path | None = None, alone: bool = False, builds: bool = True
    ) -> None:
        """Pin the requirements in a directory, for the base's kind of machine.

        With a directory of ``wheels``, those are offered besides the wheels of the indexes, and nothing is built.
        ``alone``: those, and no index. Without ``builds``, nothing is built either.
        """

    def found_none(self, error: CommandFailed) -> bool:
        """Whether the resolver failed because no set of versions fits, and not for another reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PipCompile:
    """pip-tools' resolver, which is pip's: for this interpreter's kind of machine only."""

    config: PipConfig
    name: str = "pip-compile"

    def compile(
        self,
        directory: Path,
        base: Base,  # noqa: ARG002 - see choose
        *,
        wheels: Path | None = None,
        alone: bool = False,
        builds: bool = True,
    ) -> None:
        """See :class:`Resolver`."""
        builds = builds and wheels is None
        argv = [*programs.PIP_COMPILE, "--quiet", "--no-config", "--no-header"]
        argv += ["--resolver", "backtracking", "--no-strip-extras", "--allow-unsafe", "--no-emit-options"]
        argv += ["--cache-dir", str(directory / "cache"), "--constraint", "constraints.txt"]
        argv += ["--output-file", "requirements.txt", "requirements.in"]
        env = {
            **programs.pip_environment(_offering(self.config, wheels, alone=alone)),
            "TMPDIR": str(_temporary(directory)),
        }
        # A dependency that is named by URL is refused before; were one left, git would run what it names.
        env |= {} if builds else {"GIT_ALLOW_PROTOCOL": "none", "PIP_ONLY_BINARY": ":all:"}
        process.run(
            argv,
            cwd=directory,
            env=env,
            pythonpath=process.own_pythonpath(),  # piptools lies where this package does
            secrets=self.config.secrets,
            timeout=self.config.patience,
        )

    def found_none(self, error: CommandFailed) -> bool:
        """See :class:`Resolver`; pip-compile shows pip's exception. A missing pip-tools has the same exit status."""
        return error.returncode > 0 and _PIP_FOUND_NONE.search(error.stderr) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class UvCompile:
    """uv's resolver: fast, and for other kinds of machines too."""

    program: Path
    config: PipConfig
    cache: Path
    reporter: Reporter
    name: str = "uv"

    def compile(
        self, directory: Path, base: Base, *, wheels: Path | None = None, alone: bool = False, builds: bool = True
    ) -> None:
        """See :class:`Resolver`."""
        builds = builds and wheels is None
        python = sys.executable
        if not builds and wheels is None and installers.is_loud(python):
            # pip can't take uv's place: it would build an archive that a requirement names by its URL.
            python = str(installers.quiet_python(directory))
        argv = [str(self.program), "pip", "compile", "--quiet", "--no-header", "--no-strip-extras", "--no-progress"]
        argv += ["--cache-dir", str(self.cache), "--python", python, "--constraint", "constraints.txt"]
        argv += ["--output-file", "requirements.txt", "requirements.in"]
        argv += ["--no-index"] if alone or self.config.index_url is None else []
        if not base.is_here:
            argv += ["--python-version", base.python, "--python-platform", platform(base)]
        argv += [] if builds else ["--only-binary", ":all:"]

        def run(config: PipConfig, **more: str) -> None:
            env = {**programs.uv_environment(_offering(config, wheels, alone=alone), directory), **more}
            env |= {"TMPDIR": str(_temporary(directory))}
            env |= {} if builds else {"GIT_ALLOW_PROTOCOL": "none"}
            process.run(argv, cwd=directory, env=env, secrets=self.config.secrets, timeout=self.config.patience)

        try:
            self._run(run, python)
        except CommandFailed as error:
            if alone or error.returncode not in (_FOUND_NONE, _UNREAD) or self.found_none(error):
                raise
            if error.returncode == _UNREAD and installers.is_loud(python):
                self._compile_with_pip(directory, base, wheels, builds=builds)
                return
            if wheels is None or not base.is_here:
                raise
            # Every page that is needed was read before. Of some, uv makes nothing that pip takes, such as those with
            # a hash by sha1 or with ``Content-Type: TEXT/HTML``.
            self.reporter.line(f"uv failed ({error.evidence[-1].strip()}): pip-compile resolves instead")
            try:
                self._pip.compile(directory, base, wheels=wheels, builds=builds)
            except CommandFailed:
                raise error from None

    def _run(self, run: Callable[..., None], python: str) -> None:
        """Run uv, and again where it stops at a place that pip passes over."""
        try:
            run(self.config)
        except CommandFailed as error:
            if error.returncode != _UNREAD or installers.is_loud(python):
                raise
            present = _without_missing_links(self.config)
            if present != self.config:
                with contextlib.suppress(CommandFailed):
                    run(present)
                    return
            if len(self.config.indexes) < 2:
                raise
            # Only with this strategy does uv pass over an index that answers 410 for a name that it lacks.
            run(present, UV_INDEX_STRATEGY="first-index")

    def _compile_with_pip(self, directory: Path, base: Base, wheels: Path | None, *, builds: bool) -> None:
        if not base.is_here:
            raise UsageError(
                f"{installers.LOUD}, and only uv resolves for another machine or Python",
                where=sys.executable,
                next_step="let what it prints go to standard error, or lock with another Python interpreter",
            )
        self.reporter.line(f"{installers.LOUD}: pip-compile resolves instead")
        self._pip.compile(directory, base, wheels=wheels, builds=builds)

    def found_none(self, error: CommandFailed) -> bool:
        """See :class:`Resolver`. What runs in place of uv, such as a broken script, may end with 1 as well."""
        by_uv = error.returncode == _FOUND_NONE and _UV_FOUND_NONE in error.stderr
        return by_uv or self._pip.found_none(error)

    @property
    def _pip(self) -> PipCompile:
        return PipCompile(config=self.config)


def _offering(config: PipConfig, wheels: Path | None, *, alone: bool) -> PipConfig:
    if wheels is None:
        return config
    if alone:
        return replace(config, index_url=None, extra_index_urls=(), find_links=(wheels.as_uri(),))
    return replace(config, find_links=(*config.find_links, wheels.as_uri()))


def _without_missing_links(config: PipConfig) -> PipConfig:
    """The configuration without the pages of links that don't exist: pip passes over them, and uv stops."""
    with Index(config) as index:
        missing = index.missing_links()
    return replace(config, find_links=tuple(place for place in config.find_links if place not in missing))


def _temporary(directory: Path) -> Path:
    """Where a resolver's temporary files go: into our scratch, which a killed process does not leave behind."""
    place = directory / "tmp"
    place.mkdir(exist_ok=True)
    return place


def choose(name: ResolverName, *, base: Base, config: PipConfig, cache: Path, reporter: Reporter) -> Resolver:
    """The resolver of that name; ``auto`` is pip-compile for this kind of machine, and uv for others.

    ``reporter`` gets a line where pip-compile does what uv can't.

    Raises:
        UsageError: uv is needed and is not there, or pip-compile was asked for and can't resolve for the base.
    """
    if name == "pip-compile" and not base.is_here:
        raise UsageError(
            "pip-compile resolves for this interpreter's kind of machine only",
            found=f"a base of {base.kind}",
            next_step="leave --resolver out: uv then resolves",
        )
    if name == "pip-compile" or (name == "auto" and base.is_here):
        return PipCompile(config=config)
    program = installers.find_uv()
    if program is None:
        raise UsageError(
            "uv is needed to resolve, and is not installed",
            found=None if base.is_here else f"a base of {base.kind}",
            next_step="pip install uv",
        )
    return UvCompile(program=program, config=config, cache=cache, reporter=reporter)


def platform(base: Base) -> str:
    """What uv calls the base's platform, with the newest C library that both know."""
    for tag in base.platforms:
        match = _MANYLINUX.fullmatch(tag)
        if match is not None and int(match[1]) in _KNOWN_GLIBC:
            return f"{match[2]}-manylinux_2_{match[1]}"
    system, _, machine = base.platform.partition("-")
    if system.startswith("macosx"):
        return f"{base.platform.rpartition('-')[2].replace('arm64', 'aarch64')}-apple-darwin"
    return f"{machine}-unknown-linux-gnu"
