"""What a build lacks, from its output: a module of Python, a file, or something of the operating system."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_plugins.core import scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["Missing", "find", "is_of_system"]

_MODULE = re.compile(r"ModuleNotFoundError: No module named '(\w+)")
_HEADER = re.compile(r"fatal error: '?([\w./+-]+\.(?:h|hh|hpp|hxx|cuh))'?(?:: No such file| file not found)")
_LIBRARY = re.compile(r"(?:cannot find|unable to find library) -l([\w.+-]+)")
_PROGRAM = re.compile(
    r"command '(?:[^'\n]*/)?([\w.+-]+)' failed: No such file or directory"  # distutils
    r"|^\s*error: \[Errno 2\] No such file or directory: '((?:[\w.]+-)*(?:g?cc|[cg]\+\+|clang(?:\+\+)?)(?:-\d+)?)'$"
    r"|^CMake Error.*\n\s+Could not find the compiler specified in the environment variable \w+:\s+([\w.+-]+?)\.?$"
    r"|ERROR: Unknown compiler\(s\): \[\['([\w.+-]+)'",  # meson
    re.MULTILINE,
)
_NO_COMPILER = re.compile(r"No CMAKE_(C|CXX|CUDA|Fortran)_COMPILER could be found")
_COMPILERS = {"C": "cc", "CXX": "c++", "CUDA": "nvcc", "Fortran": "gfortran"}
_NO_RUST = re.compile(
    # setuptools-rust, maturin, and puccinialin, which then tries to download it
    r"can't find Rust compiler|Do you have cargo in your PATH|Cargo, the Rust package manager, is not installed"
    r"|Rust not found, installing"
)
_CUDA = re.compile(r"(?:^|/)(?:cuda|cublas|cudnn|nvrtc)\w*\.h$|^nvcc$|^CUDA_HOME$")
# A path at the end of a line, of another directory than the project, in which backends run.
_ABSENT_FILE = re.compile(
    r"(?:No such file or directory|not found|does not exist): ['\"]?((?:/|\.\./)[^'\"\n]*[^'\"\s])"
)
_CUDA_HOME = re.compile(r"\b(CUDA_HOME) environment variable is not set")


_ABSENT = "which is not on this machine"
# Packages of modules with another name. Setuptools 82 no longer has pkg_resources.
_PACKAGES = {"distutils": "setuptools", "pkg_resources": "setuptools<82", "skbuild": "scikit-build", "yaml": "PyYAML"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """What is missing, as a clause, and the next step."""

    what: str
    next_step: str


def find(
    lines: Iterable[str],
    plugin: str,
    *,
    base_has: Callable[[str], bool],
    project: Path | None = None,
    output: str = "",
) -> Missing | None:
    """What the output of a build says is missing; ``None`` if it says something else.

    ``lines`` are the last of it, and ``output`` all that was kept of it. ``project`` is the directory that was built:
    a copy, in a temporary directory.
    """
    text = "\n".join(lines)
    if found := _of_system(text, output or text):
        kind, name = found
        if _CUDA.search(name):
            return Missing(
                what=f"its build requires the CUDA toolkit ({name}), {_ABSENT}",
                next_step="run vllm-plugins lock where the CUDA toolkit is installed, such as in an image with "
                "`devel` in its tag",
            )
        return Missing(
            what=f"its build requires the {kind} {name}, {_ABSENT}",
            next_step=f"install the system package that has {name}, and run the command again",
        )
    modules = _MODULE.findall(text)
    if not modules:
        return None if project is None else _outside(text, project, plugin)
    what = f"its build imports {modules[-1]}, which is not there"
    if base_has(modules[-1]):
        return Missing(
            what=what,
            next_step=f"write `build: {{with-base: [{modules[-1]}]}}` for plugin {plugin!r} in plugins.yaml",
        )
    if (package := _PACKAGES.get(modules[-1])) is not None:
        return Missing(
            what=what, next_step=f"write `build: {{requires: ['{package}']}}` for plugin {plugin!r} in plugins.yaml"
        )
    return Missing(
        what=what,
        next_step=f"write `build: {{requires: [{modules[-1]}]}}` for plugin {plugin!r} in plugins.yaml, with the "
        "package that has this module",
    )


def _outside(text: str, project: Path, plugin: str) -> Missing | None:
    """A file next to or above the project, where the original has it and the copy does not."""
    for path in reversed(_ABSENT_FILE.findall(text)):
        away = os.path.relpath(os.path.join(project, path), project)
        top = away.count("../")
        if away.startswith("../") and any(
            parent.name.startswith(scratch.PREFIX) for parent in project.parents[top - 1 :]
        ):
            if _is_checkout(project):
                return Missing(
                    what=f"its build reads {away}, which is not in its git repository, or is a link out of it",
                    next_step=f"ask the authors of plugin {plugin!r} to put {os.path.basename(away)} into the "
                    "repository, or change `ref` in plugins.yaml to a commit that has it",
                )
            return Missing(
                what=f"its build reads {away}, and gets the project's directory alone",
                next_step=f"put {os.path.basename(away)} into the project of {plugin!r}, to be read there; or, if "
                "the project is part of a git repository, use `source: git` with `subdirectory`",
            )
    return None


def _is_checkout(project: Path) -> bool:
    """Whether a project is in a whole checkout. In a copy of a local directory, git is told to miss the rest."""
    top = next((place for place in (project, *project.parents) if (place / ".git").is_dir()), None)
    return top is not None and not (top / ".git" / "info" / "sparse-checkout").exists()


def is_of_system(what: str | None) -> bool:
    """Whether :attr:`Missing.what` is about something of the operating system."""
    return what is not None and what.endswith(_ABSENT)


def _of_system(text: str, output: str) -> tuple[str, str] | None:
    """What is missing of the operating system: its kind and its name.

    Headers and libraries that a build has looked for without success are no reason, unless it then ends.
    """
    if _NO_RUST.search(output):
        return "program", "cargo"
    if found := _NO_COMPILER.findall(text):
        return "program", _COMPILERS[found[-1]]
    patterns = {"variable": _CUDA_HOME, "header": _HEADER, "library": _LIBRARY, "program": _PROGRAM}
    for kind, pattern in patterns.items():
        if found := pattern.findall(text):
            last = found[-1]
            return kind, last if isinstance(last, str) else next(filter(None, last))
    return None
