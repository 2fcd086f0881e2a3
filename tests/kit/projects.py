"""Tiny real projects, wheels and sdists, written into a directory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import tomlkit

from . import inline_backend

__all__ = ["Backend", "EntryPoints", "module_name", "project", "sdist", "wheel"]

Backend = Literal["inline", "hatchling", "setuptools", "flit-core", "poetry-core", "uv_build"]
EntryPoints = Mapping[str, Mapping[str, str]]

# What each backend is required as, and what it is called.
_BACKENDS: dict[Backend, tuple[list[str], str]] = {
    "inline": ([], "backend"),
    "hatchling": (["hatchling"], "hatchling.build"),
    "setuptools": (["setuptools>=77"], "setuptools.build_meta"),
    "flit-core": (["flit-core>=3.12"], "flit_core.buildapi"),
    "poetry-core": (["poetry-core>=2"], "poetry.core.masonry.api"),
    "uv_build": (["uv_build"], "uv_build"),
}


def module_name(name: str) -> str:
    """The module that a project of that name has unless it is told otherwise."""
    return name.lower().replace("-", "_").replace(".", "_")


def project(
    into: Path,
    *,
    name: str,
    version: str = "1.0",
    backend: Backend = "inline",
    requires: Iterable[str] = (),
    extras: Mapping[str, Iterable[str]] | None = None,
    entry_points: EntryPoints | None = None,
    modules: Mapping[str, str] | None = None,
) -> Path:
    """Write a project into the directory ``into`` (made where it is not there) and return it.

    ``modules`` are file names below ``src`` with their sources; by default there is one package that knows its version
    (``module_name(name)``). ``flit-core`` and ``uv_build`` want exactly one package.
    """
    into.mkdir(parents=True, exist_ok=True)
    sources = _modules(name, version, modules)
    for file, source in sources.items():
        path = into / "src" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    words, called = _BACKENDS[backend]
    build: dict[str, Any] = {"requires": words, "build-backend": called}
    if backend == "inline":
        build["backend-path"] = ["."]
        shutil.copyfile(inline_backend.__file__, into / "backend.py")
    document: dict[str, Any] = {
        "build-system": build,
        "project": _table(name, version, requires, extras, entry_points),
        **_settings(backend, sorted({file.split("/")[0] for file in sources})),
    }
    (into / "pyproject.toml").write_text(tomlkit.dumps(document), encoding="utf-8")
    return into


def wheel(
    into: Path,
    name: str,
    version: str = "1.0",
    *,
    requires: Iterable[str] = (),
    extras: Mapping[str, Iterable[str]] | None = None,
    entry_points: EntryPoints | None = None,
    modules: Mapping[str, str] | None = None,
    license: str | None = None,  # noqa: A002 - the key of [project]
    requires_python: str | None = None,
    tag: str = "py3-none-any",
) -> Path:
    """Write a wheel without any build; the same arguments give the same bytes. ``tag`` is in its file name only."""
    into.mkdir(parents=True, exist_ok=True)
    files = {file: source.encode() for file, source in _modules(name, version, modules).items()}
    table = _table(name, version, requires, extras, entry_points)
    if license is not None:
        table["license"] = license
    if requires_python is not None:
        table["requires-python"] = requires_python
    path = inline_backend.write_wheel(into, table, files)
    return path.rename(path.with_name(path.name.replace("py3-none-any", tag)))


def sdist(
    into: Path,
    name: str,
    version: str = "1.0",
    *,
    backend: Backend = "inline",
    requires: Iterable[str] = (),
    extras: Mapping[str, Iterable[str]] | None = None,
    entry_points: EntryPoints | None = None,
    modules: Mapping[str, str] | None = None,
) -> Path:
    """Write an sdist of a project (see :func:`project`)."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = project(
            Path(scratch, "project"),
            name=name,
            version=version,
            backend=backend,
            requires=requires,
            extras=extras,
            entry_points=entry_points,
            modules=modules,
        )
        return inline_backend.write_sdist(into, source)


def _modules(name: str, version: str, modules: Mapping[str, str] | None) -> Mapping[str, str]:
    if modules is not None:
        return modules
    return {f"{module_name(name)}/__init__.py": f'"""{name}."""\n\n__version__ = "{version}"\n'}


def _table(
    name: str,
    version: str,
    requires: Iterable[str],
    extras: Mapping[str, Iterable[str]] | None,
    entry_points: EntryPoints | None,
) -> dict[str, Any]:
    table: dict[str, Any] = {"name": name, "version": version, "description": f"{name}, for a test"}
    if requires := list(requires):
        table["dependencies"] = requires
    if extras:
        table["optional-dependencies"] = {extra: list(words) for extra, words in extras.items()}
    if entry_points:
        table["entry-points"] = {group: dict(points) for group, points in entry_points.items()}
    return table


def _settings(backend: Backend, tops: list[str]) -> dict[str, Any]:
    """Where each backend looks for the modules under ``src``."""
    packages = [top for top in tops if not top.endswith(".py")]
    match backend:
        case "hatchling":
            settings = {"build": {"targets": {"wheel": {"only-include": ["src"], "sources": ["src"]}}}}
            return {"tool": {"hatch": settings}}
        case "setuptools":
            names = [top.removesuffix(".py") for top in tops if top.endswith(".py")]
            find = {"find": {"where": ["src"]}}
            return {"tool": {"setuptools": {"package-dir": {"": "src"}, "packages": find, "py-modules": names}}}
        case "poetry-core":
            return {"tool": {"poetry": {"packages": [{"include": top, "from": "src"} for top in tops]}}}
        case "flit-core":
            return {"tool": {"flit": {"module": {"name": tops[0].removesuffix(".py")}}}}
        case "uv_build":
            return {"tool": {"uv": {"build-backend": {"module-name": packages[0], "module-root": "src"}}}}
        case "inline":
            return {}
