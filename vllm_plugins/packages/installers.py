"""The installers pip and uv, each with its whole command line.

Both install wheels named by hash, without their dependencies, into a directory that nobody uses yet. Both fetch from
the places of :class:`pip_config.PipConfig`, and run in a directory of ours.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vllm_plugins.core import foreign_json, process, scratch
from vllm_plugins.core.errors import CommandFailed, HashMismatch, InstallError, PluginsError, UsageError
from vllm_plugins.core.progress import SILENT
from vllm_plugins.packages import programs, unpacked
from vllm_plugins.packages._build import bare, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import InstallerName

__all__ = ["LOUD", "Installer", "Pip", "Uv", "choose", "failure_at_index", "find_uv", "is_loud", "quiet_python"]

LOUD = "uv can't inspect this Python interpreter, which prints something when it starts"
_PIP_INSTALLS = "pip installs instead"
_PIP_FOR_BUILD = "pip installs the build requirements instead"


class Installer(Protocol):
    """A program that installs wheels. Its methods raise ``InstallError`` or ``HashMismatch``."""

    @property
    def name(self) -> str:
        """``pip`` or ``uv``."""

    @property
    def config(self) -> PipConfig:
        """Where it fetches from."""

    def install(self, requirements: Path, target: Path, *, offline: bool) -> None:
        """Install a hashed requirements file into an empty directory, without bytecode."""

    def resolve(
        self,
        python: Path,
        requirements: Sequence[str],
        *,
        constraints: Path,
        on_line: Callable[[str], None] | None = None,
    ) -> tuple[str, ...]:
        """Find what build requirements and their dependencies are for another interpreter; nothing is installed.

        ``constraints`` is a file of pins. The result are requirements: each has an exact version, or the URL of a
        file that the constraints name. Only wheels count.
        """

    def provision(self, python: Path, requirements: Path, *, on_line: Callable[[str], None] | None = None) -> None:
        """Install a hashed requirements file into the environment of another interpreter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pip:
    """The pip of this interpreter."""

    config: PipConfig
    reporter: Reporter = SILENT
    name: str = "pip"

    def install(self, requirements: Path, target: Path, *, offline: bool) -> None:
        """Install with pip; see :class:`Installer`."""
        argv = [*programs.PIP, "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        argv += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile"]
        argv += ["--progress-bar", "off", "--target", str(target), "--requirement", str(requirements)]
        argv += ["--no-index"] if offline else []
        self._install(argv, requirements.parent)
        if unpacked.missing(target):
            self._add_missing(requirements, target, offline=offline)

    def _add_missing(self, requirements: Path, target: Path, *, offline: bool) -> None:
        """Add the files that pip has left out, which are in the wheels."""
        with scratch.directory() as directory:
            argv = [*programs.PIP, "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
            argv += ["--require-hashes", "--only-binary", ":all:", "--progress-bar", "off", "--dest", str(directory)]
            argv += ["--requirement", str(requirements), *(["--no-index"] if offline else [])]
            self._install(argv, requirements.parent)
            unpacked.add_missing(target, sorted(directory.glob("*.whl")))

    def resolve(
        self,
        python: Path,
        requirements: Sequence[str],
        *,
        constraints: Path,
        on_line: Callable[[str], None] | None = None,
    ) -> tuple[str, ...]:
        """Resolve with pip; see :class:`Installer`."""
        found = constraints.with_name("resolved.json")
        argv = [*programs.PIP, "--python", str(python), "install", "--quiet", "--no-input", "--dry-run"]
        argv += ["--ignore-installed", "--only-binary", ":all:", "--disable-pip-version-check"]
        argv += ["--progress-bar", "off", "--report", str(found), "--constraint", str(constraints)]
        argv += ["--", *requirements]
        explain = failures.of_build_search
        _run(argv, self._environment(), self.config, on_line, cwd=constraints.parent, explain=explain)
        report: Any = foreign_json.read(found.read_bytes())
        return tuple(
            f"{item['metadata']['name']} @ {item['download_info']['url']}"
            if item["is_direct"]
            else f"{item['metadata']['name']}=={item['metadata']['version']}"
            for item in report["install"]
        )

    def provision(self, python: Path, requirements: Path, *, on_line: Callable[[str], None] | None = None) -> None:
        """Provision with pip; see :class:`Installer`."""
        argv = [*programs.PIP, "--python", str(python), "install", "--quiet", "--no-input", "--no-deps"]
        argv += ["--require-hashes", "--only-binary", ":all:", "--no-compile", "--disable-pip-version-check"]
        argv += ["--progress-bar", "off", "--requirement", str(requirements)]
        _run(argv, self._environment(), self.config, on_line, cwd=requirements.parent, explain=failures.of_build)

    def _install(self, argv: Sequence[str], directory: Path) -> None:
        explain = failures.of_installation
        _run(argv, self._environment(), self.config, self.reporter.detail, cwd=directory, explain=explain)

    def _environment(self) -> dict[str, str]:
        return {**programs.pip_environment(self.config), "PYTHONNOUSERSITE": "1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Uv:
    """uv, in ``program``.

    Its cache is ours alone. uv links files from its cache by default, so an edit of an installed file elsewhere would
    edit what we install. With ``--link-mode copy`` nobody can edit the cache through an overlay either.
    """

    program: Path
    config: PipConfig
    cache: Path
    reporter: Reporter
    name: str = "uv"

    def install(self, requirements: Path, target: Path, *, offline: bool) -> None:
        """Install with uv; see :class:`Installer`."""
        argv = [str(self.program), "pip", "install", "--quiet", "--no-progress"]
        argv += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile-bytecode"]
        argv += ["--link-mode", "copy", "--cache-dir", str(self.cache), "--python", sys.executable]
        argv += ["--target", str(target), "--requirements", str(requirements)]
        argv += ["--no-index"] if offline else self._no_index
        env = programs.uv_environment(self.config, requirements.parent)
        env["UV_NO_INSTALLER_METADATA"] = "1"  # two files of each distribution that would be removed again
        try:
            on_line, explain = self.reporter.detail, failures.of_installation
            _run(argv, env, self.config, on_line, cwd=requirements.parent, explain=explain)
        except (InstallError, HashMismatch) as error:
            self._require_fallback(error, sys.executable, _PIP_INSTALLS, offline=offline)
            self._install_with_pip(requirements, target, offline=offline)
        else:
            if left := unpacked.data_directories(target):
                self.reporter.line(f"{_PIP_INSTALLS}, because uv did not unpack {', '.join(left)}")
                self._install_with_pip(requirements, target, offline=offline)
        (target / ".lock").unlink(missing_ok=True)  # a file of uv's own, with mode 0666

    def resolve(
        self,
        python: Path,
        requirements: Sequence[str],
        *,
        constraints: Path,
        on_line: Callable[[str], None] | None = None,
    ) -> tuple[str, ...]:
        """Resolve with uv; see :class:`Installer`."""
        wanted = constraints.with_name("build-requirements.in")
        wanted.write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
        found = constraints.with_name("build-requirements.txt")
        argv = [str(self.program), "pip", "compile", "--quiet", "--no-progress", "--only-binary", ":all:"]
        argv += ["--no-header", "--no-annotate", "--cache-dir", str(self.cache), "--python", str(python)]
        argv += [*self._no_index, "--constraint", str(constraints), "--output-file", str(found), str(wanted)]

        try:
            self._run_for_build(argv, constraints.parent, on_line)
            return tuple(found.read_text(encoding="utf-8").splitlines())
        except (InstallError, HashMismatch) as error:
            self._require_fallback(error, str(python), _PIP_FOR_BUILD)
            return Pip(config=self.config).resolve(python, requirements, constraints=constraints, on_line=on_line)

    def provision(self, python: Path, requirements: Path, *, on_line: Callable[[str], None] | None = None) -> None:
        """Provision with uv; see :class:`Installer`."""
        argv = [str(self.program), "pip", "install", "--quiet", "--no-progress", "--no-deps", "--require-hashes"]
        argv += ["--only-binary", ":all:", "--link-mode", "copy", "--cache-dir", str(self.cache)]
        argv += ["--python", str(python), *self._no_index, "--requirements", str(requirements)]
        try:
            self._run_for_build(argv, requirements.parent, on_line)
        except (InstallError, HashMismatch) as error:
            self._require_fallback(error, str(python), _PIP_FOR_BUILD)
            Pip(config=self.config).provision(python, requirements, on_line=on_line)

    def _install_with_pip(self, requirements: Path, target: Path, *, offline: bool) -> None:
        _empty(target)
        Pip(config=self.config, reporter=self.reporter).install(requirements, target, offline=offline)

    def _require_fallback(
        self, error: InstallError | HashMismatch, python: str, text: str, *, offline: bool = False
    ) -> None:
        """Report that pip goes on where uv failed, or raise the error where pip would fail, too.

        uv gives up where one of several indexes answers 410 for a name that it lacks, where a page of links is
        missing, and where a page has a Requires-Python that is not valid. Of several indexes with one version, it
        takes the files of one, and may miss the one that the hash names. uv also refuses wheels that pip installs,
        such as one whose ``entry_points.txt`` has a section twice. pip goes on, and compares hashes.
        """
        if isinstance(error, InstallError) and is_loud(python):
            self.reporter.line(f"{LOUD}: {text}")
        elif not failures.is_invalid_wheel(error) and (
            offline or not (failures.is_unsolved(error) or _has_several_places(self.config))
        ):
            raise error
        else:
            self.reporter.line(f"{text}, because uv failed: {failures.reason(error)}")

    def _run_for_build(self, argv: Sequence[str], directory: Path, on_line: Callable[[str], None] | None) -> None:
        env = programs.uv_environment(self.config, directory)
        _run(argv, env, self.config, on_line, cwd=directory, explain=failures.of_build)

    @property
    def _no_index(self) -> list[str]:
        return [] if self.config.index_url is not None else ["--no-index"]


def is_loud(python: str) -> bool:
    """Whether an interpreter prints to standard output when it starts, for example in a vendor's ``sitecustomize``.

    uv takes the first line of such an interpreter for its answer, and fails. These are the options that uv gives it.
    """
    try:
        return bool(process.run([python, "-I", "-B", "-c", ""], check=False).stdout)
    except CommandFailed:
        return False


def quiet_python(directory: Path) -> Path:
    """An interpreter that uv can inspect where this one prints something when it starts: without its packages.

    It is a link and no script: temporary files may be on a file system from which nothing can be executed.
    """
    root = directory / "quiet"
    bare.create(root)
    (site,) = (root / "lib").glob("python*/site-packages")
    # Some distributions of Python have a sitecustomize next to the standard library, which each interpreter imports.
    (site / "quiet.pth").write_text("import sys; sys.modules['sitecustomize'] = sys\n", encoding="utf-8")
    return root / "bin" / "python"


def failure_at_index(error: PluginsError) -> str | None:
    """Why an installation failed, in one line, if the index may be why; else ``None``."""
    return failures.reason(error) if failures.may_be_fetched(error) else None


def _has_several_places(config: PipConfig) -> bool:
    return len(config.indexes) + len(config.find_links) > 1


def _empty(target: Path) -> None:
    for path in target.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def choose(
    name: InstallerName,
    *,
    config: PipConfig,
    cache: Path,
    reporter: Reporter = SILENT,
) -> Installer:
    """Return the installer of that name; ``auto`` is uv where it is installed and can work, else pip.

    ``cache`` is for uv alone. ``reporter`` gets a line where pip does what uv can't, and each line
    that the installer itself prints.

    Raises:
        UsageError: uv was requested and is not installed.
    """
    program = None if name == "pip" else find_uv()
    if program is not None and (name == "uv" or _suits_uv(cache)):
        return Uv(program=program, config=config, cache=cache, reporter=reporter)
    if name == "uv":
        raise UsageError(
            "the installer uv is not installed",
            next_step="run `pip install uv`, or set VLLM_PLUGIN_INSTALLER to auto or pip",
        )
    return Pip(config=config, reporter=reporter)


def _suits_uv(cache: Path) -> bool:
    """Whether a directory can be uv's cache, for which uv makes hard links. Some file systems have none."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache) as file:
            os.link(file.name, f"{file.name}.link")
            os.unlink(f"{file.name}.link")
    except OSError as error:
        return error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
    return True


def find_uv() -> Path | None:
    """Return the uv of this environment, else the one on PATH."""
    return process.find("uv")


def _run(
    argv: Sequence[str],
    env: Mapping[str, str],
    config: PipConfig,
    on_line: Callable[[str], None] | None,
    *,
    cwd: Path,
    explain: Callable[[CommandFailed], PluginsError],
) -> None:
    try:
        # Temporary files go where a killed process leaves nothing behind.
        env = {**env, "TMPDIR": str(cwd)}
        process.run(argv, cwd=cwd, env=env, secrets=config.secrets, on_line=on_line, timeout=config.patience)
    except CommandFailed as error:
        raise explain(error) from error
