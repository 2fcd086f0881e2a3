"""One user's world: a home, a manifest, a lock, a store, an environment, and the command run as a real process."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import vllm_plugins

from . import forks, loader

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Completed", "Place", "ResolverName"]

FORKS_FOR_STARTS = True  # tests of kills and crowds turn it off: their processes are all real
RESOLVING = ("add", "remove", "lock", "upgrade")  # commands that call a resolver
ResolverName = Literal["auto", "pip-compile", "uv"]

_SOURCES = Path(vllm_plugins.__file__).parents[1]
# What a process needs of this machine; coverage measures through the rest.
_INTERPRETERS = ("PYTHON", "LD_", "LC_", "LANG", "TZ")  # what an interpreter or its loader reads as it starts
_KEPT = ("LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH")


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """What a process left."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Its standard output, as ``--json`` writes it."""
        return json.loads(self.stdout)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A world in one directory. ``paths`` go before all else on ``sys.path``.

    ``interpreter`` is what runs the command and vLLM; in one that is not ours, this project is installed.
    ``index_url`` is pip's only index; with ``None``, pip is configured as this machine has it.
    ``resolver`` is what ``lock`` resolves with, where its words name none.
    ``cached`` is what the cache has from the start (see the fixture ``cached``); without it, the cache is empty.
    """

    root: Path
    index_url: str | None
    paths: tuple[Path, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    interpreter: str = sys.executable
    resolver: ResolverName = "auto"
    cached: Path | None = None

    @property
    def home(self) -> Path:
        """The user's home, empty at first."""
        return self._directory("home")

    @property
    def config(self) -> Path:
        """The directory of manifest and lock."""
        return self._directory("config")

    @property
    def manifest(self) -> Path:
        """``plugins.yaml``."""
        return self.config / "plugins.yaml"

    @property
    def lock(self) -> Path:
        """``plugins.lock``."""
        return self.config / "plugins.lock"

    @property
    def wheels(self) -> Path:
        """``plugins.wheels/``."""
        return self.config / "plugins.wheels"

    @property
    def store(self) -> Path:
        """The store; not there at first."""
        return self.root / "store"

    @property
    def using(self) -> str:
        """The line in which each command says that it uses this manifest, which a variable names."""
        return f"Using {self.manifest} (VLLM_PLUGIN_CONFIG)\n"

    def _directory(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _cache(self) -> Path:
        cache = self._directory("cache")
        if self.cached is not None:
            for path in (self.cached / "stubs", *self.cached.glob("uv/interpreter-*")):
                link = cache / "vllm-plugins" / path.relative_to(self.cached)
                if not os.path.lexists(link):
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(path)
        return cache

    def write(self, text: str) -> None:
        """Write the manifest; common indentation is taken off."""
        self.manifest.write_text(textwrap.dedent(text), encoding="utf-8")

    def pypi(self, *packages: str) -> None:
        """Write a manifest of plugins from the index, each called as its package; ``name>=1`` gives a version."""
        entries = []
        for package in packages:
            name = re.split(r"[<>=!~]", package, maxsplit=1)[0]
            entry = {"name": name, "source": "pypi", "package": name}
            if name != package:
                entry["version"] = package[len(name) :]
            entries.append(entry)
        self.manifest.write_text(json.dumps({"plugins": entries}), encoding="utf-8")  # YAML holds JSON

    @property
    def _sources(self) -> tuple[Path, ...]:
        return (_SOURCES,) if self.interpreter == sys.executable else ()

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of a process in this place.

        The user's configuration of pip, uv and git is read, as on any machine: it is below :attr:`home`, which is empty.
        That of this machine is not, as far as variables can turn it off, because no test is about it.
        """
        prefixes = ("COVERAGE_",) if self.index_url is not None else ("COVERAGE_", "PIP_", "SSL_", "REQUESTS_")
        kept = {key: value for key, value in os.environ.items() if key in _KEPT or key.startswith(prefixes)}
        if self.index_url is not None:
            kept |= {"PIP_INDEX_URL": self.index_url, "PIP_RETRIES": "0"}
            kept["XDG_CONFIG_DIRS"] = str(self.root / "system")  # in place of /etc/xdg, for pip and uv
        return {
            **kept,
            "PATH": os.pathsep.join([*map(os.path.dirname, (self.interpreter, sys.executable)), os.environ["PATH"]]),
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self._cache()),
            "PYTHONPATH": os.pathsep.join(map(str, (*self.paths, *self._sources))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "VLLM_PLUGIN_CONFIG": str(self.manifest),
            "VLLM_PLUGIN_REGISTRY_DIR": str(self.store),
            **self.variables,
        }

    def run(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        umask: int = 0o022,
        fresh: bool = False,
    ) -> Completed:
        """``python -m vllm_plugins`` with these words, in this place; with ``fresh``, in a new interpreter.

        Otherwise in a fork of one that has imported everything (see ``forks``), which is much faster.
        """
        argv = ["-m", "vllm_plugins", *map(str, words)]
        if words[:1] in [(name,) for name in RESOLVING] and "--resolver" not in words and self.resolver != "auto":
            argv += ["--resolver", self.resolver]
        changed = {**self.variables, **(env or {})}
        if fresh or self.interpreter != sys.executable or any(name.startswith(_INTERPRETERS) for name in changed):
            return self.python(*argv, env=env, check=check, umask=umask)
        returncode, stdout, stderr = forks.shared().run(
            argv[2:], cwd=self.root, env={**self.environment, **(env or {})}, umask=umask
        )
        done = Completed(returncode=returncode, stdout=stdout, stderr=stderr)
        return self._checked(argv, done, check=check, traceback=False)

    def python(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        umask: int = 0o022,
        traceback: bool = False,
        cwd: Path | None = None,
        fresh: bool = False,
    ) -> Completed:
        """A fresh interpreter in this place. With ``check``, anything but exit status 0 fails the test.

        The stand-in for vLLM (``loader``) installs in a fork (see ``forks``), unless ``fresh`` is set.
        ``traceback`` says that it may end with one, as a vLLM process does.
        """
        argv = [self.interpreter, *map(str, words)]
        is_start = words[:2] == ("-m", loader.__name__) and self.interpreter == sys.executable
        starts = is_start and FORKS_FOR_STARTS and not fresh
        done = subprocess.run(
            argv,
            cwd=cwd or self.root,
            env={**self.environment, **(env or {}), **({loader.STARTS: forks.shared().starts} if starts else {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            umask=umask,
            check=False,
        )
        left = Completed(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)
        return self._checked(argv, left, check=check, traceback=traceback)

    @staticmethod
    def _checked(argv: list[str], done: Completed, *, check: bool, traceback: bool) -> Completed:
        text = f"{shlex.join(argv)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert not check or done.returncode == 0, text
        # Those of programs that we started are indented, as details of an error.
        assert traceback or "\nTraceback (most recent call last)" not in f"\n{done.stderr}", text
        return done

    @property
    def lock_text(self) -> str:
        """The lock as it is written."""
        return self.lock.read_text(encoding="utf-8")

    @property
    def locked(self) -> dict[str, Any]:
        """The lock as a document."""
        return tomllib.loads(self.lock_text)

    def package(self, name: str) -> dict[str, Any]:
        """The lock's table of one package."""
        (found,) = [package for package in self.locked["packages"] if package["name"] == name]
        table: dict[str, Any] = found
        return table

    def plugin(self, name: str) -> dict[str, Any]:
        """The lock's table of one plugin."""
        (found,) = [plugin for plugin in self.locked["tool"]["vllm-plugins"]["plugins"] if plugin["name"] == name]
        table: dict[str, Any] = found
        return table

    @property
    def versions(self) -> dict[str, str]:
        """Every package of the lock, with its version."""
        return {package["name"]: package["version"] for package in self.locked["packages"]}

    @property
    def registry(self) -> dict[str, Any]:
        """``registry.json``."""
        registry: dict[str, Any] = json.loads((self.store / "registry.json").read_text(encoding="utf-8"))
        return registry

    @property
    def overlays(self) -> list[Path]:
        """Every overlay of the store."""
        directory = self.store / "overlays"
        return sorted(directory.iterdir()) if directory.is_dir() else []

    @property
    def overlay(self) -> Path:
        """The overlay that the registry calls active."""
        return self.store / "overlays" / str(self.registry["overlay"])

    @property
    def site(self) -> Path:
        """The importable directory of the active overlay."""
        return self.overlay / "site"

    def files(self) -> dict[str, str]:
        """Manifest, lock, built wheels and store: every path with the sha256 of its content.

        For "nothing was changed". What the store's lock file says of the last process does not count, nor do the notes of starts that failed.
        """
        roots = (self.config, self.store)
        found = (path for root in roots if root.is_dir() for path in sorted(root.rglob("*")))
        return {
            path.relative_to(self.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in found
            if path.is_file() and path != self.store / "sync.lock" and path.parent != self.store / "failures"
        }
