"""A project directory to a wheel that is the same, byte for byte, every time (PEP 517, PEP 660).

Every build runs in an environment of its own, which has the build requirements and nothing else. Only what must
agree with the base at run time, torch above all, is the base's own.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import tempfile
import threading
import venv
import warnings
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from build import BuildBackendException, BuildException, ProjectBuilder
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from vllm_plugins.core import process, scratch
from vllm_plugins.core.errors import BuildError, CommandFailed, InstallError
from vllm_plugins.core.hashes import sha256
from vllm_plugins.documents import base
from vllm_plugins.packages import _reproducible, metadata, stub_wheels
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from types import TracebackType
    from typing import Self

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base
    from vllm_plugins.packages.installers import Installer
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["Builder", "BuiltWheel"]

# What the build of one project may not see of another's, or of us.
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PIP_REQUIRE_HASHES", "PIP_TARGET", "DESTDIR")
_WARNINGS = threading.Lock()  # what is done with them is the process's, not a thread's
_EPOCH = "315532800"  # 1980-01-01, the first date that a zip file can hold


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltWheel:
    """A wheel in ``path``; ``size`` in bytes. ``built_with`` is what its build environment had, sorted.

    That includes what it had of the base.
    """

    path: Path
    name: NormalizedName
    version: str
    sha256: str
    size: int
    built_with: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Environment:
    """An isolated environment with some build requirements."""

    root: Path
    python: Path
    contents: tuple[str, ...]


@dataclass(kw_only=True)
class Builder:
    """Builds wheels while it is open, by several threads; the same build requirements share an environment.

    ``base_site`` are the directories of the base that is here, from which torch comes where a build asks for it, and
    ``target`` is the base that the wheels are for: by default that one.
    """

    installer: Installer
    base_site: Sequence[str] = ()
    target: Base | None = None
    _environments: dict[frozenset[str], Future[_Environment]] = field(default_factory=dict)
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
        self._environments.clear()

    def wheel(
        self,
        project: Path,
        into: Path,
        *,
        plugin: str,
        on_line: Callable[[str], None] | None = None,
        pins: Sequence[str] = (),
    ) -> BuiltWheel:
        """Build the wheel of a project. The build may write into ``project``: give it a copy.

        ``pins`` (``name==version``) are in its environment besides what the project asks for.

        Raises:
            BuildError: the project, its build requirements or its backend fail, or it was compiled against
                another torch than the base's.
        """
        with _failures(project, plugin):
            builder, environment = self._prepare(project, "wheel", on_line, pins)
            into.mkdir(parents=True, exist_ok=True)
            path = Path(builder.build("wheel", into))
            _reproducible.normalise(path)
            content = metadata.inspect(path)
        if not path.name.endswith("-any.whl"):
            self._refuse_other(environment, path.name, plugin)
        data = path.read_bytes()
        return BuiltWheel(
            path=path,
            name=content.name,
            version=str(content.version),
            sha256=sha256(data),
            size=len(data),
            built_with=environment.contents,
        )

    def editable(
        self, project: Path, into: Path, *, plugin: str, on_line: Callable[[str], None] | None = None
    ) -> Path:
        """Build the editable wheel of a project, which names the project's own directory (PEP 660).

        Raises:
            BuildError: as :meth:`wheel`, or its backend knows no editable wheels.
        """
        with _failures(project, plugin):
            builder, _ = self._prepare(project, "editable", on_line)
            into.mkdir(parents=True, exist_ok=True)
            path = Path(builder.build("editable", into, _editable_settings(builder)))
            _reproducible.normalise(path)
        return path

    def metadata(self, project: Path, *, plugin: str, on_line: Callable[[str], None] | None = None) -> Metadata:
        """What an editable project says of itself: its editable wheel's metadata.

        Not what ``prepare_metadata_for_build_editable`` gives, which with some backends lacks the entry points.

        Raises:
            BuildError: as :meth:`editable`.
        """
        with scratch.directory() as directory:
            return metadata.inspect(self.editable(project, directory, plugin=plugin, on_line=on_line))

    def _prepare(
        self, project: Path, kind: str, on_line: Callable[[str], None] | None, pins: Sequence[str] = ()
    ) -> tuple[ProjectBuilder, _Environment]:
        """A builder of the project in an environment that has all that its backend asks for."""
        requires = {*_reader(project).build_system_requires, *pins}
        environment = self._environment(requires, on_line)
        builder = _builder(project, environment, on_line)
        more = builder.get_requires_for_build("wheel" if kind == "wheel" else "editable", None)
        if more - requires:
            environment = self._environment(requires | more, on_line)
            builder = _builder(project, environment, on_line)
        return builder, environment

    def _environment(self, requires: Collection[str], on_line: Callable[[str], None] | None) -> _Environment:
        key = frozenset(requires)
        with self._guard:
            if self._home is None:
                self._home = self._open.enter_context(scratch.directory())
            found, root = self._environments.get(key), self._home / str(len(self._environments))
            mine: Future[_Environment] = self._environments.setdefault(key, Future())
        if found is not None:
            return found.result()  # another thread may be making it
        try:
            mine.set_result(self._provision(root, key, on_line))
        except BaseException as error:
            mine.set_exception(error)
            raise
        return mine.result()

    def _provision(self, root: Path, key: frozenset[str], on_line: Callable[[str], None] | None) -> _Environment:
        venv.EnvBuilder(symlinks=True, with_pip=False).create(root)
        python = root / "bin" / "python"
        (site,) = (root / "lib").glob("python*/site-packages")
        constraints = root / "constraints.txt"
        agreed = self._agreed(key)
        constraints.write_text("".join(f"{self._constraint(root, pin)}\n" for pin in agreed), encoding="utf-8")
        if key:
            try:
                self.installer.provision(python, sorted(key), constraints=constraints, on_line=on_line)
            except InstallError as error:
                _say_which(error, agreed - self._here)
                raise
        contents = set(map(_pin, importlib.metadata.distributions(path=[str(site)])))
        if contents & agreed & self._here:
            # After the environment's own: of what has a stub there, the modules come from the base.
            (site / "base.pth").write_text("".join(f"{entry}\n" for entry in self.base_site), encoding="utf-8")
        return _Environment(root=root, python=python, contents=tuple(sorted(contents)))

    @cached_property
    def _base(self) -> Base:
        is_here = self.target is not None and self.target.fingerprint == overlay.fingerprint(self.base_site)
        return self.target if self.target is not None and is_here else base.read(self.base_site)

    @cached_property
    def _here(self) -> AbstractSet[str]:
        return {f"{name}=={version}" for name, version in self._base.shared.items()}

    @cached_property
    def _shared(self) -> Mapping[NormalizedName, str]:
        return (self.target or self._base).shared

    def _agreed(self, requirements: Iterable[str]) -> AbstractSet[str]:
        """The pins of what must agree with the base, but for those that a project's own requirements rule out."""
        agreed = dict(self._shared)
        for line in requirements:
            with contextlib.suppress(InvalidRequirement):  # the installer will say what is wrong with it
                requirement = Requirement(line)
                version = agreed.get(canonicalize_name(requirement.name))
                applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
                if version is not None and applies and not base.satisfies(version, str(requirement.specifier)):
                    del agreed[canonicalize_name(requirement.name)]
        return {f"{name}=={version}" for name, version in agreed.items()}

    def _constraint(self, root: Path, pin: str) -> str:
        """A pin, by a stub where the base here has it: then nothing of it is fetched."""
        name, _, version = pin.partition("==")
        there = self._base.get(name)
        if there is None or pin not in self._here:
            return pin
        stub = stub_wheels.write(root, name=name, version=version, extras=there.extras, requires=there.requires)
        return f"{name} @ {stub.as_uri()}"

    def _refuse_other(self, environment: _Environment, wheel: str, plugin: str) -> None:
        """What is compiled against another torch than the one that it meets at run time does not load, or worse."""
        for name, version, there in (self.target or self._base).otherwise(environment.contents):
            raise BuildError(
                f"the wheel was compiled against another {name} than the base has",
                where=wheel,
                expected=f"{name} {there}",
                found=f"{name} {version}, because of [build-system] requires",
                required_by=f"plugin {plugin!r}",
                next_step=f"have its pyproject.toml admit {name} {there}, or use a vLLM that has {version}",
            )


def _pin(found: importlib.metadata.Distribution) -> str:
    try:
        return f"{canonicalize_name(found.name)}=={Version(found.version)}"
    except InvalidVersion:  # of an old distribution, which nothing can compare
        return f"{canonicalize_name(found.name)}=={found.version}"


def _say_which(error: InstallError, elsewhere: AbstractSet[str]) -> None:
    """What the base has that a lock is made for, and the one here has not, must come from an index."""
    if elsewhere:
        error.details = (*error.details, f"it must be built with what the base has: {', '.join(sorted(elsewhere))}")
        error.next_step = "name the index that has it (PIP_EXTRA_INDEX_URL), or lock in the vLLM environment itself"


def _reader(project: Path) -> ProjectBuilder:
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of misspelled tables: the backend speaks, or the build fails
        return ProjectBuilder(project)


def _builder(project: Path, environment: _Environment, on_line: Callable[[str], None] | None) -> ProjectBuilder:
    variables = _variables(environment)

    def run(cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None) -> None:
        env = {**variables, **(extra_environ or {})}
        process.run(cmd, cwd=Path(cwd) if cwd else None, env=env, on_line=on_line)

    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ProjectBuilder(project, python_executable=str(environment.python), runner=run)


def _variables(environment: _Environment) -> dict[str, str]:
    """The variables of a build: those of this process, and what makes its result the same every time."""
    kept = {key: value for key, value in os.environ.items() if key not in _DROPPED and not key.startswith("GIT_DIR")}
    strip = "-Wl,--strip-all"  # debugging information names the build directory
    return {
        **kept,
        "PATH": f"{environment.root / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(environment.root),
        "SOURCE_DATE_EPOCH": _EPOCH,
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LDFLAGS": f"{os.environ.get('LDFLAGS', '')} {strip}".strip(),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        # A version that is counted from git is that of the project, not of a repository around our scratch.
        "GIT_CEILING_DIRECTORIES": os.path.realpath(tempfile.gettempdir()),
    }


def _editable_settings(builder: ProjectBuilder) -> dict[str, str] | None:
    # setuptools otherwise hooks the import system with a .pth that runs code, at every start of every process.
    requires = " ".join(builder.build_system_requires)
    return {"editable_mode": "compat"} if "setuptools" in requires else None


@contextmanager
def _failures(project: Path, plugin: str) -> Iterator[None]:
    """Say of every way in which a build fails whose it is, and what its backend's last words were."""
    try:
        yield
    except (BuildException, BuildBackendException, InstallError, BuildError) as error:
        cause = error.exception if isinstance(error, BuildBackendException) else error
        details = cause.details if isinstance(cause, (CommandFailed, InstallError)) else (str(error) or repr(cause),)
        what = str(error.what) if isinstance(error, (InstallError, BuildError)) else "the build failed"
        raise BuildError(
            f"{what}",
            where=str(project),
            found=error.found if isinstance(error, (InstallError, BuildError)) else None,
            details=[line for line in details if line.strip() and not line.startswith("command: ")],
            required_by=f"plugin {plugin!r}",
            next_step=(error.next_step if isinstance(error, InstallError) else None)
            or f"look at the words above: `python -m build` in the project of {plugin!r} must work",
        ) from error
