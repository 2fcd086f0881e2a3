"""Talking to git: the environment it runs in, one call, a repository of our own, and why a call failed."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core import process
from vllm_plugins.core.errors import CommandFailed, SourceError
from vllm_plugins.core.process import NOT_STARTED
from vllm_plugins.core.redact import redact
from vllm_plugins.sources import git_url
from vllm_plugins.startup import settings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from vllm_plugins.core.process import Completed
    from vllm_plugins.sources.git_url import Remote

__all__ = ["Repository", "configured", "environment", "network_environment", "reason", "run", "without_files"]

# Where a repository, its index or its objects lie: not those of the shell (or the git hook) that we run in.
# GIT_CONFIG_COUNT and its pairs are the user's configuration and stay.
_DROPPED = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_ATTR_SOURCE",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_CONFIG_PARAMETERS",
        "GIT_CURL_VERBOSE",
        "GIT_DEFAULT_HASH",
        "GIT_DEFAULT_REF_FORMAT",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INDEX_VERSION",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_LITERAL_PATHSPECS",
        "GIT_GLOB_PATHSPECS",
        "GIT_NOGLOB_PATHSPECS",
        "GIT_ICASE_PATHSPECS",
        "GIT_NAMESPACE",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_QUARANTINE_PATH",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_TEMPLATE_DIR",
        "GIT_WORK_TREE",
        "LANGUAGE",
    }
)
_HARDENED = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("init.templateDir", ""),
    # The same files on every machine, whatever its user likes best.
    ("core.autocrlf", "false"),
    ("core.eol", "lf"),
    ("core.attributesFile", "/dev/null"),
    ("core.quotePath", "true"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    # Nothing goes on in the background when we are done.
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("protocol.ext.allow", "never"),
    ("protocol.fd.allow", "never"),
    ("protocol.git.allow", "never"),
    # A server that has fallen silent is left: git itself would wait for ever.
    ("http.lowSpeedLimit", "1000"),  # bytes a second
    ("http.lowSpeedTime", "120"),  # seconds
    # A directory that the manifest names is built, so its owner is trusted with more than its git configuration.
    # In a container, a mounted directory usually belongs to somebody else.
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
    """The environment of a git call: the user's own configuration, and after it ours.

    It goes on to what git starts, submodules included.
    """
    ours = (*_DROPPED, *git_url.VARIABLES)
    kept = {key: value for key, value in environ.items() if key not in ours and not key.startswith("GIT_TRACE")}
    env = configured(kept, _HARDENED)
    env = _allowing(_PROTOCOLS, env)
    env["GIT_TERMINAL_PROMPT"] = "0"
    env["GIT_OPTIONAL_LOCKS"] = "0"
    # The same tree with Git LFS installed and without; its pointers stay pointers.
    env["GIT_LFS_SKIP_SMUDGE"] = "1"
    env["LC_ALL"] = "C"  # git's words are read here
    return env


def without_files(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a call that may read no repository of this machine, whatever its user allows otherwise."""
    return _allowing([name for name in _PROTOCOLS if name != "file"], env)


def _allowing(protocols: Collection[str], env: Mapping[str, str]) -> dict[str, str]:
    """The environment with no more in GIT_ALLOW_PROTOCOL, which beats protocol.*.allow, than these."""
    if "GIT_ALLOW_PROTOCOL" not in env:
        return dict(env)
    allowed = (name for name in env["GIT_ALLOW_PROTOCOL"].split(":") if name in protocols)
    return {**env, "GIT_ALLOW_PROTOCOL": ":".join(allowed)}


def configured(env: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The environment with more git configuration, which goes before all that is there (git-config(1))."""
    count = env.get("GIT_CONFIG_COUNT", "")
    first = int(count) if count.isdecimal() else 0
    added = {"GIT_CONFIG_COUNT": str(first + len(pairs))}
    for number, (key, value) in enumerate(pairs, first):
        added[f"GIT_CONFIG_KEY_{number}"] = key
        added[f"GIT_CONFIG_VALUE_{number}"] = value
    return {**env, **added}


def network_environment(remote: Remote, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a git call that talks to this remote.

    Raises:
        SourceError: there is no git, or one that can't be configured through the environment (before 2.31).
    """
    env = configured(environment(environ), remote.config)
    _check_version(env.get("PATH", ""))
    # insteadOf may turn any address into an ssh one. The variable would go before the user's core.sshCommand.
    chosen = "GIT_SSH_COMMAND" in env or "GIT_SSH" in env
    if not chosen and not run(["config", "--get", "core.sshCommand"], env=env, cwd=Path("/")).stdout:
        env["GIT_SSH_COMMAND"] = _SSH_COMMAND
    return {**env, **dict(remote.variables)}


@functools.cache
def _check_version(path: str) -> None:
    said = run(["version"], env={"PATH": path, "LC_ALL": "C"}, cwd=Path("/")).stdout.strip()
    match = re.search(r"(\d+)\.(\d+)", said)
    if match is None or (int(match[1]), int(match[2])) < (2, 31):
        raise SourceError("git is too old", expected="git 2.31 or later", found=said, next_step="install a newer git")


def run(arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Completed:
    """One git call. Its exit status is the caller's to judge.

    Its words are not redacted, beyond the user part of URLs: a branch may be called as a password is. Who shows
    them uses :func:`reason`.

    Raises:
        SourceError: there is no git.
    """
    try:
        return process.run(["git", *arguments], cwd=cwd, env=env, check=False, timeout=settings.patience(env))
    except CommandFailed as error:
        if error.returncode != NOT_STARTED:
            return process.Completed(returncode=error.returncode, stdout=error.stdout, stderr=error.stderr)
        raise SourceError(
            "git can't be started",
            found=error.what,
            next_step="install git 2.31 or later, and have it on the PATH",
        ) from error


def reason(done: Completed, secrets: Sequence[str] = ()) -> str:
    """Why git failed: the line of its own that says it, redacted."""
    lines = [line.strip() for line in redact(done.stderr, secrets).splitlines()]
    telling = [line for line in lines if line and not line.lower().startswith(_NOISE)]
    # What went wrong on the way stands before what git then missed.
    fatal = [line for line in telling if line.startswith("error: RPC failed")]
    fatal += [line for line in telling if line.startswith("fatal:")]
    chosen = fatal[:1] or telling[-1:] or [f"exit status {done.returncode}"]
    return chosen[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository:
    """A repository of our own in ``root``, with the remote as its origin. ``plugin`` is who wants it."""

    root: Path
    remote: Remote
    env: Mapping[str, str]
    plugin: str

    def create(self) -> None:
        """Make it, without any of the templates and hooks of this machine."""
        self.must("init", "--quiet", "--template=", "--object-format=sha1", "--initial-branch=main")
        self.must("config", "remote.origin.url", self.remote.url)

    def ask(self, *arguments: str, config: Sequence[tuple[str, str]] = ()) -> Completed:
        """A call that may fail."""
        return run(arguments, env=configured(self.env, config), cwd=self.root)

    def must(self, *arguments: str, config: Sequence[tuple[str, str]] = ()) -> str:
        """The output of a call that has to end well.

        Raises:
            SourceError: it did not.
        """
        done = self.ask(*arguments, config=config)
        if done.returncode != 0:
            raise self.error(f"git {arguments[0]} failed", done)
        return done.stdout

    def error(self, what: str, done: Completed) -> SourceError:
        """The error for a call that failed."""
        return SourceError(
            what,
            where=self.remote.shown,
            found=reason(done, self.remote.secrets),
            required_by=f"plugin {self.plugin!r}",
            next_step=f"check the url and the access of plugin {self.plugin!r}: git ls-remote must work with it",
        )
