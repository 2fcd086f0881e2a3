"""Real git repositories."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Repository", "git_environment"]

_WHO = {"NAME": "Ada", "EMAIL": "ada@example.org", "DATE": "2024-01-02T03:04:05+00:00"}


def git_environment() -> dict[str, str]:
    """An environment in which git knows nothing of this machine's user and configuration."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "protocol.file.allow",
        "GIT_CONFIG_VALUE_0": "always",
        **{f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in _WHO.items()},
    }


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository with a work tree at ``path``; the first call of :meth:`init` makes it, on the branch ``main``."""

    path: Path

    @classmethod
    def init(cls, path: Path) -> Repository:
        """Make an empty one; ``path`` may hold files already."""
        path.mkdir(parents=True, exist_ok=True)
        new = cls(path)
        new.git("init", "--quiet", "--template=", "--initial-branch=main")
        return new

    @property
    def url(self) -> str:
        """Its address."""
        return self.path.absolute().as_uri()

    def git(self, *words: str) -> str:
        """The output of a git command in it."""
        done = subprocess.run(
            ["git", *words], cwd=self.path, env=git_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"git {' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def write(self, files: Mapping[str, str]) -> None:
        """Write files into the work tree."""
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def commit(self, message: str = "a change", files: Mapping[str, str] | None = None) -> str:
        """Write files and commit everything that is there; returns the commit's 40 digits."""
        self.write(files or {})
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.head

    @property
    def head(self) -> str:
        """The commit that is checked out."""
        return self.git("rev-parse", "HEAD")

    def tag(self, name: str, message: str | None = None) -> None:
        """Tag the commit: annotated where there is a message, else light."""
        self.git("tag", *(("--annotate", "--message", message) if message is not None else ()), name)

    def branch(self, name: str) -> None:
        """Go to a new branch."""
        self.git("checkout", "--quiet", "-b", name)

    def switch(self, name: str) -> None:
        """Go to a branch, tag or commit that is there."""
        self.git("checkout", "--quiet", name)

    def submodule(self, other: Repository, path: str) -> None:
        """Add another repository as a submodule; commit it yourself."""
        self.git("submodule", "--quiet", "add", other.url, path)
