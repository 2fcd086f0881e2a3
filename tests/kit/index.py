"""A package index on loopback, served by a real index server in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import requests
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

from . import projects

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Index", "Server", "serve"]

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """One index: a directory, and the address at which it is served (PEP 691 JSON and PEP 503 HTML, PEP 658)."""

    directory: Path
    url: str

    def add(self, *paths: Path) -> None:
        """Copy wheels and sdists in; a file of the same name is replaced."""
        for path in paths:
            parse = parse_wheel_filename if path.suffix == ".whl" else parse_sdist_filename
            project = self.directory / canonicalize_name(parse(path.name)[0])
            project.mkdir(exist_ok=True)
            shutil.copyfile(path, project / path.name)

    def wheel(self, name: str, version: str = "1.0", **fields: Any) -> Path:
        """Write a wheel (see :func:`tests.kit.projects.wheel`) right into the index."""
        return projects.wheel(self.directory / canonicalize_name(name), name, version, **fields)

    def sdist(self, name: str, version: str = "1.0", **fields: Any) -> Path:
        """Write an sdist (see :func:`tests.kit.projects.sdist`) right into the index."""
        return projects.sdist(self.directory / canonicalize_name(name), name, version, **fields)

    def remove(self, path: Path) -> None:
        """Take a file out, by its name."""
        for found in self.directory.rglob(path.name):
            found.unlink()

    def clear(self) -> None:
        """Take everything out."""
        for project in self.directory.iterdir():
            if project.is_dir():
                shutil.rmtree(project)

    def page(self, name: str) -> dict[str, Any]:
        """What the index says of a project (PEP 691)."""
        accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
        response = requests.get(f"{self.url}{name}/", headers=accept, timeout=30)
        response.raise_for_status()
        page: dict[str, Any] = response.json()
        return page


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server of many indexes, each in its own directory below ``root``."""

    root: Path
    address: str

    def index(self, name: str, *, releases: bool = False, distance: float = 0, apart: bool = True) -> Index:
        """An index, empty unless it was there already; with ``releases``, it has a JSON page of all releases of a project (see ``server``).

        Each answer comes after ``distance`` seconds, as from elsewhere. METADATA is ``apart`` from wheels (PEP 658), or
        in them only.
        """
        directory = self.root / name
        directory.mkdir(exist_ok=True)  # a worker that steals work comes back to a module
        (directory / "distance").write_text(str(distance))
        if not apart:
            (directory / "whole").touch()
        if releases:
            (directory / "releases").touch()
        return Index(directory=directory, url=f"{self.address}/{name}/simple/")


@contextmanager
def serve(root: Path, kind: Literal["json", "html"] = "json") -> Iterator[Server]:
    """Serve ``root`` until the block ends: ``json`` by simple-repository-server, ``html`` by pypiserver.

    pypiserver has one index only, at ``/simple/``: use :func:`serve_html`.
    """
    assert kind == "json"
    argv = [sys.executable, "-m", "tests.kit.server", str(root)]
    with subprocess.Popen(argv, cwd=_ROOT, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, "the index server did not start"
            yield Server(root=root, address=f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
