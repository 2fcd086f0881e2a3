"""Calls of git: their environment, a temporary repository, and the reason of a failure."""

from __future__ import annotations

import contextlib
import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core import process, scratch
from vllm_plugins.core.errors import CommandFailed, SourceError
from vllm_plugins.core.process import NOT_STARTED
from vllm_plugins.core.redact import redact
from vllm_plugins.sources import git_url
from vllm_plugins.startup import settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from vllm_plugins.core.process import Completed
    from vllm_plugins.documents.manifest import GitSource
    from vllm_plugins.sources.git_url import Remote

__all__ = [
    "Access",
    "Repository",
    "commits",
    "configured",
    "connect",
    "environment",
    "local_environment",
    "network_environment",
    "output",
    "reason",
    "run",
    "user_environment",
    "without_files",
]

_HARDENED = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("init.templateDir", ""),
    # The same files on every machine, independent of its user's preferences.
    ("core.autocrlf", "false"),
    ("core.eol", "lf"),
    ("core.attributesFile", "/dev/null"),
    ("core.quotePath", "true"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    # No background process that outlives the call.
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("protocol.ext.allow", "never"),
    ("protocol.fd.allow", "never"),
    ("protocol.git.allow", "never"),
    # Give up on a silent server. git itself would wait for ever.
    ("http.lowSpeedLimit", "1000"),  # bytes a second
    ("http.lowSpeedTime", "120"),  # seconds
    # A directory in the manifest is built, so its owner is trusted with more than git configuration.
    # In a container, a mounted directory usually belongs to another user.
    ("safe.directory", "*"),
)
_PROTOCOLS = ("http", "https", "ssh", "file")
_SSH_COMMAND = (
    "ssh -o BatchMode=yes -o ControlMaster=no -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
)
_NOISE = (
    "fatal: could not read from remote repository",
    "please make sure you have the correct access rights",
    "and the repository exists",
    "hint:",
    "warning:",
)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a git call: the user's configuration, overridden by ours.

    Processes that git starts get it too, submodules included.
    """
    env = configured(user_environment(environ), _HARDENED)
    env = _allowing(_PROTOCOLS, env)
    env["GIT_TERMINAL_PROMPT"] = "0"
    env["GIT_OPTIONAL_LOCKS"] = "0"
    env["GIT_ATTR_NOSYSTEM"] = "1"  # attributes of this machine would change line ends and filters
    # A checkout is the same with Git LFS installed and without. The content of pointers is fetched afterwards.
    env["GIT_LFS_SKIP_SMUDGE"] = "1"
    env["LC_ALL"] = "C"  # its output is read here
    return env


def user_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a call that reads the user's configuration as it is."""
    ours = (*process.GIT_VARIABLES, *git_url.VARIABLES, "LANGUAGE")
    kept = {key: value for key, value in environ.items() if key not in ours and not key.startswith("GIT_TRACE")}
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def local_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a call in a directory of this machine, whose repository may be somebody else's.

    Nothing is fetched: a partial clone fetches what it lacks, even to list files, with a program that its own
    configuration names. Nor does a directory count as a bare repository because it has the files of one.
    """
    return {**configured(environment(environ), [("safe.bareRepository", "explicit")]), "GIT_ALLOW_PROTOCOL": "none"}


def without_files(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a call that may not read repositories of this machine, whatever its user allows."""
    return _allowing([name for name in _PROTOCOLS if name != "file"], env)


def _allowing(protocols: Collection[str], env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with GIT_ALLOW_PROTOCOL, which overrides protocol.*.allow, reduced to these."""
    if "GIT_ALLOW_PROTOCOL" not in env:
        return dict(env)
    allowed = (name for name in env["GIT_ALLOW_PROTOCOL"].split(":") if name in protocols)
    return {**env, "GIT_ALLOW_PROTOCOL": ":".join(allowed)}


def configured(env: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the environment with more git configuration, which overrides existing configuration (git-config(1))."""
    count = env.get("GIT_CONFIG_COUNT", "")
    first = int(count) if count.isdecimal() else 0
    added = {"GIT_CONFIG_COUNT": str(first + len(pairs))}
    for number, (key, value) in enumerate(pairs, first):
        added[f"GIT_CONFIG_KEY_{number}"] = key
        added[f"GIT_CONFIG_VALUE_{number}"] = value
    return {**env, **added}


def network_environment(remote: Remote, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a git call that connects to this remote.

    Raises:
        SourceError: git is missing, or too old to be configured through the environment (before 2.31).
    """
    env = configured(environment(environ), remote.config)
    _check_version(env.get("PATH", ""))
    # insteadOf may turn any URL into an ssh one. The variable would override the user's core.sshCommand.
    chosen = "GIT_SSH_COMMAND" in env or "GIT_SSH" in env
    if not chosen and not run(["config", "--get", "core.sshCommand"], env=env, cwd=Path("/")).stdout:
        env["GIT_SSH_COMMAND"] = _SSH_COMMAND
    return {**env, **dict(remote.variables)}


@functools.cache
def _check_version(path: str) -> None:
    done = run(["version"], env={"PATH": path, "LC_ALL": "C"}, cwd=Path("/"))
    version = done.stdout.strip()
    match = re.search(r"(\d+)\.(\d+)", version)
    if done.returncode != 0 or match is None:
        raise SourceError(
            "git does not report its version",
            expected="the output of `git version`",
            found=reason(done) if done.returncode != 0 else version or "no output",
            next_step="git version; until it works, install git 2.31 or later, or correct PATH",
        )
    if (int(match[1]), int(match[2])) < (2, 31):
        raise SourceError(
            "git is too old", expected="git 2.31 or later", found=version, next_step="install a newer git"
        )


def run(arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Completed:
    """Run git. The caller checks the exit status.

    The output is not redacted, except for the user part of URLs, because a branch may have the name of a password.
    Use :func:`reason` for messages.

    Raises:
        SourceError: git is missing.
    """
    try:
        return process.run(["git", *arguments], cwd=cwd, env=env, check=False, timeout=settings.patience(env))
    except CommandFailed as error:
        if error.returncode != NOT_STARTED:
            return process.Completed(returncode=error.returncode, stdout=error.stdout, stderr=error.stderr)
        raise SourceError(
            "git can't be started",
            found=error.what,
            next_step="install git 2.31 or later, and add it to PATH",
        ) from error


def output(done: Completed, secrets: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the lines of git's output that are not noise, redacted."""
    lines = [line.strip() for line in redact(done.stderr, secrets).splitlines()]
    return tuple(line for line in lines if line and not line.lower().startswith(_NOISE))


def reason(done: Completed, secrets: Sequence[str] = ()) -> str:
    """Return the line of git's output that gives the reason of its failure, redacted."""
    telling = output(done, secrets)
    # A failed transfer is the reason for the errors after it.
    fatal = [line for line in telling if line.startswith("error: RPC failed")]
    fatal += [line for line in telling if line.startswith("fatal:")]
    chosen = fatal[:1] or telling[-1:] or [f"git ended with {process.status(done.returncode)}"]
    return chosen[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """A remote, and the environment of git calls that connect to it. ``plugin`` is named in messages."""

    remote: Remote
    env: Mapping[str, str]
    plugin: str

    def error(self, what: str, done: Completed) -> SourceError:
        """Return the error for a failed call."""
        return SourceError(
            what,
            where=self.remote.shown,
            found=reason(done, self.remote.secrets),
            required_by=f"plugin {self.plugin!r}",
            next_step=f"check the url of plugin {self.plugin!r} and your access to it, with git ls-remote",
        )


def connect(source: GitSource, *, environ: Mapping[str, str], plugin: str) -> Access:
    """Return the access to the repository of a plugin.

    Raises:
        SourceError: its address is not valid, or git is missing or too old.
    """
    remote = git_url.read(source.url, environ=environ, plugin=plugin)
    return Access(remote=remote, env=network_environment(remote, environ), plugin=plugin)


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository(Access):
    """A temporary repository in ``root`` whose origin is the remote."""

    root: Path

    def create(self) -> None:
        """Initialise it, without the templates and hooks of this machine."""
        self.check_output("init", "--quiet", "--template=", "--object-format=sha1", "--initial-branch=main")
        self.check_output("config", "remote.origin.url", self.remote.url)

    def of(self, file: Path) -> Repository:
        """The repository of a file in its work tree: this one, or one of its submodules."""
        inner = (parent for parent in file.parents if parent != self.root and (parent / ".git").exists())
        return replace(self, root=next(inner, self.root))

    def run(self, *arguments: str, config: Sequence[tuple[str, str]] = ()) -> Completed:
        """Run git in it. The caller checks the exit status."""
        return run(arguments, env=configured(self.env, config), cwd=self.root)

    def check_output(self, *arguments: str, config: Sequence[tuple[str, str]] = ()) -> str:
        """Run git in it and return its output.

        Raises:
            SourceError: git failed.
        """
        done = self.run(*arguments, config=config)
        if done.returncode != 0:
            raise self.error(f"git {arguments[0]} failed", done)
        return done.stdout


@contextlib.contextmanager
def commits(access: Access, *refspecs: str) -> Iterator[Repository]:
    """A temporary repository with the commits of some refs of a remote, without their trees and files.

    Raises:
        SourceError: the repository can't be read.
    """
    with scratch.directory() as directory:
        repository = Repository(root=directory, remote=access.remote, env=access.env, plugin=access.plugin)
        repository.create()
        repository.check_output("fetch", "--quiet", "--no-tags", "--filter=tree:0", "--", "origin", *refspecs)
        yield repository
