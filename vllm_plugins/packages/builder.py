"""Build a project into a wheel that is the same, byte for byte, every time (PEP 517, PEP 660)."""

from __future__ import annotations

import json
import threading
import warnings
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vllm_plugins.core import hashes, lfs, process, scratch
from vllm_plugins.core.errors import BuildError, CommandFailed, HashMismatch, InstallError, PluginsError
from vllm_plugins.core.humanize import enumeration
from vllm_plugins.core.redact import redact
from vllm_plugins.documents import versions
from vllm_plugins.documents.lock import in_words
from vllm_plugins.packages import _reproducible, metadata
from vllm_plugins.packages._build.inputs import BuildInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from build import ProjectBuilder
    from packaging.utils import NormalizedName

    from vllm_plugins.core.hashes import Sha256
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import BuildRequirement
    from vllm_plugins.packages._build.environments import Environment, Environments
    from vllm_plugins.packages.installers import Installer
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["BuildInputs", "BuildRefused", "Builder", "BuiltWheel", "lacks_system_package"]

_WARNINGS = threading.Lock()  # the warning filters belong to the process, not to a thread


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltWheel:
    """A wheel in ``path``, of ``size`` bytes.

    ``built_with`` are the distributions of its build environment, those of the base included, sorted;
    ``requirements`` are those that the base did not give, with their files.
    """

    path: Path
    name: NormalizedName
    version: str
    sha256: Sha256
    size: int
    built_with: tuple[str, ...]
    requirements: tuple[BuildRequirement, ...] = ()


class BuildRefused(Exception):
    """A build for a plugin that is needed, where nothing may be built; ``sdist`` is what it is of, if not it."""

    def __init__(self, plugin: str, *, sdist: str | None = None) -> None:
        super().__init__(plugin)
        self.plugin, self.sdist = plugin, sdist
        self.every: tuple[BuildRefused, ...] = ()  # several of one run, this one included


@dataclass(kw_only=True)
class Builder:
    """Builds wheels while it is open. Threads may share it.

    ``base_site`` are the directories of the base of this interpreter, which gives builds its torch. ``target`` is the
    base that the wheels are for, by default the same. ``wheels`` is a directory that may have wheels of locked build
    requirements. One that is not ``allowed`` to build raises :class:`BuildRefused` in place of each build.
    """

    installer: Installer
    base_site: Sequence[str] = ()
    target: Base | None = None
    wheels: Path | None = None
    allowed: bool = True
    _made: Environments | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def _environments(self) -> Environments:
        from vllm_plugins.packages._build.environments import Environments  # most locks build nothing

        with self._guard:
            if self._made is None:
                self._made = Environments(
                    installer=self.installer, base_site=self.base_site, target=self.target, wheels=self.wheels
                )
            return self._made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._made is not None:
            self._made.__exit__(kind, error, trace)

    def require_allowed(self, plugin: str) -> None:
        """Raise :class:`BuildRefused` if this builder may build nothing."""
        if not self.allowed:
            raise BuildRefused(plugin)

    def wheel(
        self,
        project: Path,
        into: Path,
        *,
        plugin: str,
        inputs: BuildInputs,
        on_line: Callable[[str], None] | None = None,
    ) -> BuiltWheel:
        """Build the wheel of a project. The build may write into ``project``: give it a copy.

        Raises:
            BuildError: the project, its build requirements or its backend fail, or it was compiled against
                another torch than the base's.
            HashMismatch: a build requirement is not the locked file.
        """
        self.require_allowed(plugin)
        with self._failures(project, plugin):
            builder, environment = self._prepare(project, "wheel", inputs, on_line)
            into.mkdir(parents=True, exist_ok=True)
            path = Path(builder.build("wheel", into))
            _reproducible.normalise(path, project=project)
            content = metadata.inspect(path)
            _check_name(path, content)
            _check_pointers(path)
        if not path.name.endswith("-any.whl"):
            self._environments.check_compiled(environment, path.name, plugin)
        return BuiltWheel(
            path=path,
            name=content.name,
            version=str(content.version),
            sha256=hashes.of_file(path),
            size=path.stat().st_size,
            built_with=environment.contents,
            requirements=environment.requirements,
        )

    def editable(
        self,
        project: Path,
        into: Path,
        *,
        plugin: str,
        inputs: BuildInputs,
        on_line: Callable[[str], None] | None = None,
    ) -> Path:
        """Build the editable wheel of a project, which refers to the project's own directory (PEP 660).

        Raises:
            BuildError: as :meth:`wheel`, or its backend can't build editable wheels.
        """
        from vllm_plugins.packages._build import editables

        self.require_allowed(plugin)
        with self._failures(project, plugin):
            builder, environment = self._prepare(project, "editable", inputs, on_line)
            into.mkdir(parents=True, exist_ok=True)
            settings = _editable_settings(builder)
            path = Path(builder.build("editable", into, settings))
            if settings is not None and not editables.are_found(path):
                path = Path(builder.build("editable", into))
            _reproducible.normalise(path)
            editables.check_independent(path, environment.root, plugin)
        return path

    def metadata(
        self,
        project: Path,
        *,
        plugin: str,
        inputs: BuildInputs,
        on_line: Callable[[str], None] | None = None,
    ) -> Metadata:
        """Return the metadata of a project's editable wheel.

        ``prepare_metadata_for_build_editable`` is not used: with some backends it lacks the entry points.

        Raises:
            BuildError: as :meth:`editable`.
        """
        with scratch.directory() as directory:
            return metadata.inspect(self.editable(project, directory, plugin=plugin, inputs=inputs, on_line=on_line))

    def _prepare(
        self,
        project: Path,
        kind: Literal["wheel", "editable"],
        inputs: BuildInputs,
        on_line: Callable[[str], None] | None,
    ) -> tuple[ProjectBuilder, Environment]:
        """Return a builder of the project, in an environment that has everything that its backend requires."""
        first = _reader(project).build_system_requires | inputs.requires
        environment = self._environments.get(replace(inputs, requires=frozenset(first)), on_line)
        builder = _builder(project, environment, on_line)
        more = builder.get_requires_for_build(kind, None)
        if more - first:
            environment = self._environments.get(replace(inputs, requires=frozenset(first | more)), on_line)
            builder = _builder(project, environment, on_line)
        return builder, environment

    @contextmanager
    def _failures(self, project: Path, plugin: str) -> Iterator[None]:
        """Turn any failure of a build into one that names the plugin and has the last output of the backend."""
        from build import BuildBackendException, BuildException

        from vllm_plugins.packages._build import missing

        try:
            yield
        except HashMismatch as error:
            error.required_by = f"the build of {in_words(plugin)}"
            error.next_step = error.next_step or (
                "find out who changed it; if the file is right, build and lock again, and review the change: "
                f"vllm-plugins lock --upgrade-package {plugin}"
            )
            raise
        except (BuildException, BuildBackendException, InstallError, BuildError) as error:
            ours = error if isinstance(error, (InstallError, BuildError)) else None
            cause = error.exception if isinstance(error, BuildBackendException) else error
            # Of a backend that can't be imported, the reason is in the traceback of the build environment.
            output = str(getattr(cause, "traceback", "")).splitlines()[-15:]
            details = cause.details if isinstance(cause, PluginsError) else (*output, str(error) or repr(cause))
            base_has = self._environments.base_has
            text = f"{cause.stdout}\n{cause.stderr}" if isinstance(cause, CommandFailed) else ""
            absent = (
                missing.find(details, plugin, base_has=base_has, project=project, output=text)
                if ours is None
                else None
            )
            raise BuildError(
                "the build failed" if ours is None else ours.what,
                where=(ours and ours.where) or str(project),
                expected=None if ours is None else ours.expected,
                found=ours.found if ours is not None else absent.what if absent is not None else None,
                details=[line for line in details if line.strip() and not line.startswith("command: ")],
                required_by=in_words(plugin),
                next_step=(ours and ours.next_step)
                or (absent and absent.next_step)
                or f"read the output above; `python -m build` in the project of {plugin!r} must work",
            ) from error


def lacks_system_package(error: BuildError) -> bool:
    """Whether a build failed because something of the operating system is not installed."""
    from vllm_plugins.packages._build import missing

    return missing.is_of_system(error.found)


def _check_name(wheel: Path, content: Metadata) -> None:
    """Refuse a wheel whose file name is that of another distribution or version: no installer would take it."""
    try:
        name, version, _, _ = versions.wheel_name(wheel.name)
    except ValueError as error:
        raise BuildError("the build backend made an invalid wheel", found=str(error)) from error
    if (name, version) != (content.name, content.version):
        raise BuildError(
            "the file name of the built wheel does not agree with its metadata",
            expected=f"{content.name} {content.version} (its METADATA)",
            found=f"{wheel.name} (its file name)",
        )


def _check_pointers(wheel: Path) -> None:
    """Refuse a wheel that contains Git LFS pointers: the plugin would load them in place of its files."""
    with zipfile.ZipFile(wheel) as archive:
        small = [item for item in archive.infolist() if item.file_size < lfs.LONGEST]
        found = [item.filename for item in small if lfs.is_pointer(archive.read(item))]
    if found:
        raise BuildError(
            "the built wheel contains Git LFS pointers in place of files",
            found=enumeration(found, 5),
            next_step="install git-lfs and lock again; for a local directory, run `git lfs pull` in it first",
        )


def _reader(project: Path) -> ProjectBuilder:
    from build import ProjectBuilder

    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about misspelled tables: the backend reports them, or the build fails
        return ProjectBuilder(project)


def _builder(project: Path, environment: Environment, on_line: Callable[[str], None] | None) -> ProjectBuilder:
    from build import ProjectBuilder

    variables = environment.variables(project)

    def run(cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None) -> None:
        env = {**variables, **(extra_environ or {})}
        process.run(cmd, cwd=cwd or "/", env=env, on_line=on_line)
        _take_warnings(Path(cmd[-1], "output.json"), on_line)

    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ProjectBuilder(project, python_executable=str(environment.python), runner=run)


def _take_warnings(path: Path, on_line: Callable[[str], None] | None) -> None:
    """Take the warnings of a backend out of the result of a hook: they are output of the backend, like its stderr.

    pyproject_hooks would raise them as warnings of this process, which Python prints.
    """
    try:
        result = json.loads(path.read_bytes())
        found = result.pop("warnings", ())
        if found:
            path.write_text(json.dumps(result), encoding="utf-8")
        lines = [line for item in found for line in redact(str(item["message"])).splitlines()]
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return  # another form, of another release: pyproject_hooks reads it
    if on_line is not None:
        for line in lines:
            on_line(line)


def _editable_settings(builder: ProjectBuilder) -> dict[str, str] | None:
    # Without this setting, setuptools hooks the import system with a .pth that runs code at every start of a process.
    # With it, a package is not found whose directory has another name or place (`package-dir`).
    requires = " ".join(builder.build_system_requires)
    return {"editable_mode": "compat"} if "setuptools" in requires else None
