"""Isolated build environments that agree with the base.

Each has the build requirements of a project and nothing else. The distributions that compiled code shares with the
base at run time, torch above all, come from the base itself.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import tempfile
import threading
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from vllm_plugins.core import scratch
from vllm_plugins.core.errors import BuildError, InstallError
from vllm_plugins.core.process import GIT_VARIABLES
from vllm_plugins.documents import base, versions
from vllm_plugins.documents.lock import in_words
from vllm_plugins.packages import stub_wheels
from vllm_plugins.packages._base_view import view
from vllm_plugins.packages._build import bare, locked_files
from vllm_plugins.startup import overlay
from vllm_plugins.startup.environment import index_logins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import BuildRequirement
    from vllm_plugins.packages._build.inputs import BuildInputs
    from vllm_plugins.packages.installers import Installer
    from vllm_plugins.packages.pip_config import OwnIndex, PipConfig

__all__ = ["Environment", "Environments"]

# Variables of this process that would let a build see another project, or us.
_DROPPED = ("PYTHONHOME", "PYTHONSTARTUP", "PIP_REQUIRE_HASHES", "PIP_TARGET", "DESTDIR", "LANGUAGE")
_EPOCH = "315532800"  # 1980-01-01, the earliest date of a zip file
_DECOY = "0+decoy"  # the version of a stub that no build can use
_NO_DEBUG_INFO = "-Wl,--strip-all"  # which names the build directory


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """A virtual environment in ``root``. ``contents`` are its distributions as ``name==version``, sorted.

    ``requirements`` are those of them that the base did not give.
    """

    root: Path
    python: Path
    contents: tuple[str, ...]
    requirements: tuple[BuildRequirement, ...]

    def variables(self, project: Path) -> dict[str, str]:
        """Return the environment variables of a project's build: those of this process, changed for reproducibility.

        Compilers write the path of a source into assertions and messages (``__FILE__``); our directories become ``.``
        there. Setuptools and autotools add CPPFLAGS to the flags of Python, where CFLAGS would replace these.
        """
        paths = [f"-ffile-prefix-map={os.path.realpath(path)}=." for path in (project, self.root)]
        kept = {
            key: value
            for key, value in os.environ.items()
            if key not in _DROPPED and key not in GIT_VARIABLES and not index_logins.is_variable(key)
        }
        return {
            **kept,
            "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "VIRTUAL_ENV": str(self.root),
            "SOURCE_DATE_EPOCH": _EPOCH,
            "PYTHONHASHSEED": "0",
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LDFLAGS": f"{os.environ.get('LDFLAGS', '')} {_NO_DEBUG_INFO}".strip(),
            "CPPFLAGS": " ".join(filter(None, [os.environ.get("CPPFLAGS", ""), *paths])),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            # A version that is counted from git comes from the project, not from a repository around our scratch.
            "GIT_CEILING_DIRECTORIES": os.path.realpath(tempfile.gettempdir()),
        }


@dataclass(kw_only=True)
class Environments:
    """Makes build environments while it is open. Threads share it; equal requirements share an environment.

    ``base_site`` are the directories of the base of this interpreter. ``target`` is the base that the wheels are for,
    by default the same. ``wheels`` is a directory that may have wheels of locked build requirements.
    """

    installer: Installer
    base_site: Sequence[str] = ()
    target: Base | None = None
    wheels: Path | None = None
    _by_inputs: dict[BuildInputs, Future[Environment]] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)
    _home: Path | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        self._home = None
        self._by_inputs.clear()

    def get(self, inputs: BuildInputs, on_line: Callable[[str], None] | None) -> Environment:
        """Return an environment for a build, made at the first call. The inputs have all of its requirements.

        Raises:
            InstallError: a requirement can't be installed.
            HashMismatch: a file is not the locked one.
            BuildError: the base does not have one of ``inputs.with_base``, or the lock has no hash of a requirement.
        """
        requires = frozenset(line for line in inputs.requires if _name(line) not in inputs.with_base)
        inputs = replace(inputs, requires=requires)
        with self._guard:
            if self._home is None:
                self._home = self._open.enter_context(scratch.directory())
            existing, root = self._by_inputs.get(inputs), self._home / str(len(self._by_inputs))
            mine: Future[Environment] = self._by_inputs.setdefault(inputs, Future())
        if existing is not None:
            return existing.result()  # another thread may still be making it
        try:
            mine.set_result(self._make(root, inputs, on_line))
        except BaseException as error:
            mine.set_exception(error)
            raise
        return mine.result()

    def base_has(self, module: str) -> bool:
        """Whether the base has a distribution with the name of a module."""
        return self._base.get(module) is not None

    def check_compiled(self, environment: Environment, wheel: str, plugin: str) -> None:
        """Refuse a compiled wheel whose environment had another torch than the base has: it would not load.

        Raises:
            BuildError: it had.
        """
        for name, version, there in (self.target or self._base).other_versions(environment.contents):
            raise BuildError(
                f"the wheel was compiled against another {name} than the base has",
                where=wheel,
                expected=f"{name} {there}",
                found=f"{name} {version}, because of [build-system] requires",
                required_by=in_words(plugin),
                next_step=f"let [build-system] requires of plugin {plugin!r} admit {name} {there}, or ask its author",
            )

    def _make(self, root: Path, inputs: BuildInputs, on_line: Callable[[str], None] | None) -> Environment:
        requires, pins = inputs.requires, inputs.pins
        given = self._given(inputs.with_base)
        bare.create(root)
        python = root / "bin" / "python"
        (site,) = (root / "lib").glob("python*/site-packages")
        constraints = root / "constraints.txt"
        shared = self._shared_pins(requires | {pin for pin in pins if _name(pin) not in inputs.with_base}) | given
        fixed = set(map(versions.pinned_name, shared))
        others = {pin for pin in pins if versions.pinned_name(pin) not in fixed}
        near = locked_files.near(inputs.locked or (), self.wheels)
        lines = [self._constraint(root, pin) for pin in sorted(shared)]
        lines += [locked_files.constraint(pin, near) for pin in sorted(others)]
        lines += self._decoys(root)
        constraints.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        installed: tuple[BuildRequirement, ...] = ()
        if requires or given:
            try:
                resolved = self.installer.resolve(
                    python, sorted(requires | inputs.with_base), constraints=constraints, on_line=on_line
                )
                self._refuse_own(resolved)
                found = locked_files.choose(
                    resolved, inputs.locked, near=near, stubs=root, config=self.installer.config
                )
                hashed, installed = root / "build-requirements-hashed.txt", found.requirements
                hashed.write_text("".join(f"{line}\n" for line in found.lines), encoding="utf-8")
                self.installer.provision(python, hashed, on_line=on_line)
            except InstallError as error:
                _explain_absent(error, shared - self._here)
                _explain_own(error, self.installer.config)
                raise
        contents = set(map(_pin, importlib.metadata.distributions(path=[str(site)])))
        if taken := contents & shared & (self._here | given):
            # The stubs in the environment have no modules. Those of the base come after the environment's own.
            view.write(site, self._base, [*map(versions.pinned_name, taken)], self.base_site)
        return Environment(root=root, python=python, contents=tuple(sorted(contents)), requirements=installed)

    def _given(self, names: Iterable[str]) -> frozenset[str]:
        """Pins of distributions that the base of this interpreter must give to a build.

        Raises:
            BuildError: it does not have one, or not in the version of the base that the wheel is for.
        """
        pins = set()
        for name in sorted(names):
            there, wanted = self._base.get(name), (self.target or self._base).get(name)
            if there is None or wanted is None:
                raise BuildError(
                    f"the vLLM environment has no {name}, which `build: with-base` names",
                    next_step=f"remove {name} from `with-base` in plugins.yaml, or correct its name",
                )
            if there.version != wanted.version:
                raise BuildError(
                    f"a build with {name} of the vLLM environment is possible only in that environment",
                    expected=f"{name} {wanted.version}",
                    found=f"{name} {there.version} in this one",
                    next_step="run vllm-plugins lock on a machine of that kind",
                )
            pins.add(f"{name}=={versions.version(there.version)}")
        return frozenset(pins)

    @cached_property
    def _base(self) -> Base:
        """The base of this interpreter."""
        is_here = self.target is not None and self.target.fingerprint == overlay.fingerprint(self.base_site)
        return self.target if self.target is not None and is_here else base.read(self.base_site)

    @cached_property
    def _here(self) -> AbstractSet[str]:
        return {f"{name}=={version}" for name, version in self._base.shared.items()}

    @cached_property
    def _shared(self) -> Mapping[NormalizedName, str]:
        return (self.target or self._base).shared

    def _shared_pins(self, requirements: Iterable[str]) -> AbstractSet[str]:
        """Pins of what a build shares with the base, without those that the project's own requirements exclude."""
        pinned = dict(self._shared)
        for line in requirements:
            with contextlib.suppress(InvalidRequirement):  # the installer reports it
                requirement = versions.requirement(line)
                version = pinned.get(canonicalize_name(requirement.name))
                applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
                if version is not None and applies and not base.satisfies(version, str(requirement.specifier)):
                    del pinned[canonicalize_name(requirement.name)]
        return {f"{name}=={version}" for name, version in pinned.items()}

    def _decoys(self, root: Path) -> list[str]:
        """Constraints that keep installers from asking for a package with an index of its own.

        Another index could offer one of the same name, and its code would run in the build.
        """
        return [
            f"{own.package} @ {stub_wheels.write(root, name=own.package, version=_DECOY).as_uri()}"
            for own in self.installer.config.own
        ]

    def _refuse_own(self, resolved: Iterable[str]) -> None:
        names = {_name(line) for line in resolved}
        for own in self.installer.config.own:
            if own.package in names:
                raise InstallError(
                    "the build requires a package that builds can't have",
                    details=[_only_there(own)],
                    next_step=f"remove {own.package} from the build requirements, or build the plugin elsewhere "
                    "and publish its wheel",
                )

    def _constraint(self, root: Path, pin: str) -> str:
        """A constraint for a pin: a stub where the base of this interpreter has it, so that nothing is fetched."""
        name, _, version = pin.partition("==")
        there = self._base.get(name)
        if there is None or str(versions.version(there.version)) != version:
            return pin
        stub = stub_wheels.write(root, name=name, version=version, extras=there.extras, requires=there.requires)
        return f"{name} @ {stub.as_uri()}"


def _explain_own(error: InstallError, config: PipConfig) -> None:
    """Say which packages a build can't have because they come from an index of their own."""
    named = [own for own in config.own if any(own.package in line for line in error.details)]
    if named:
        error.details = (*error.details, *map(_only_there, named))


def _only_there(own: OwnIndex) -> str:
    return f"{own.package} comes from the index {own.name!r} of plugins.yaml alone, which no build uses"


def _name(line: str) -> str | None:
    """The name of the distribution in a requirement; the installer reports one that is not valid."""
    with contextlib.suppress(InvalidRequirement):
        return canonicalize_name(versions.requirement(line).name)
    return None


def _pin(found: importlib.metadata.Distribution) -> str:
    try:
        return f"{canonicalize_name(found.name)}=={versions.version(found.version)}"
    except InvalidVersion:  # of an old distribution, which nothing can compare
        return f"{canonicalize_name(found.name)}=={found.version}"


def _explain_absent(error: InstallError, absent: AbstractSet[str]) -> None:
    """Say which pins must come from an index because the target has them and this interpreter's base does not."""
    if absent:
        error.details = (*error.details, f"the build must use what the base has: {', '.join(sorted(absent))}")
        error.next_step = "add the index that has it (PIP_EXTRA_INDEX_URL), or lock in the vLLM environment itself"
