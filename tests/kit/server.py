"""Package indexes on loopback, by simple-repository-server: ``python -m tests.kit.server ROOT``.

Each directory below ROOT is an index of its own, at ``/<directory>/simple/``, with a directory a project in it. The
port is the system's choice, and is printed as the first line. The server's own component for directories tells no
hashes, which every index of the world does; the one here adds them.

A directory that holds a file ``releases`` also answers ``/<directory>/<project>/json`` with the files of each release, as
the great index does, and hardly any other. One that holds a file ``distance`` answers after so many seconds, and one with
a file ``whole`` has no METADATA apart from wheels.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastapi
import httpx
import uvicorn
from packaging.utils import parse_sdist_filename, parse_wheel_filename
from simple_repository.components.core import RepositoryContainer
from simple_repository.components.local import LocalRepository
from simple_repository.components.metadata_injector import MetadataInjectorRepository
from simple_repository_server.routers import simple

if TYPE_CHECKING:
    from simple_repository import model


class Hashed(RepositoryContainer):
    """What another component tells, with the sha256 of each file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        super().__init__(LocalRepository(root))

    async def get_project_page(
        self, project_name: str, *, request_context: model.RequestContext | None = None
    ) -> model.ProjectDetail:
        page = await super().get_project_page(project_name, request_context=request_context)
        files = tuple(
            dataclasses.replace(file, hashes={"sha256": _sha256(self._root / project_name / file.filename)})
            for file in page.files
        )
        return dataclasses.replace(page, files=files)


class Indexes:
    """An ASGI application that hands each request to the index that its first path segment names."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._client = httpx.AsyncClient()
        self._made: dict[str, fastapi.FastAPI] = {}
        self._none = fastapi.FastAPI(openapi_url=None)
        self._distances: dict[str, float] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        name, _, rest = scope["path"].lstrip("/").partition("/")
        if name not in self._made and (self._root / name).is_dir():
            self._made[name] = self._index(self._root / name)
            distance = self._root / name / "distance"
            self._distances[name] = float(distance.read_text()) if distance.exists() else 0
        application = self._made.get(name, self._none)
        await asyncio.sleep(self._distances.get(name, 0))
        await application({**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}, receive, send)

    def _index(self, directory: Path) -> fastapi.FastAPI:
        application = fastapi.FastAPI(openapi_url=None)
        hashed = Hashed(directory)
        repository = hashed if (directory / "whole").exists() else MetadataInjectorRepository(hashed, self._client)
        application.include_router(simple.build_router(repository, http_client=self._client))
        if (directory / "releases").exists():

            @application.get("/{project}/json")
            def releases(project: str, request: fastapi.Request) -> dict[str, Any]:
                return {"releases": _releases(directory / project, str(request.base_url) + directory.name)}

        return application


def _releases(project: Path, address: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(project.iterdir()) if project.is_dir() else ():
        wheel = path.suffix == ".whl"
        version = (parse_wheel_filename if wheel else parse_sdist_filename)(path.name)[1]
        file = {
            "url": f"{address}/resources/{project.name}/{path.name}",
            "packagetype": "bdist_wheel" if wheel else "sdist",
            "digests": {"sha256": _sha256(path)},
        }
        found.setdefault(str(version), []).append(file)
    return found


def _sha256(path: Path) -> str:
    status = path.stat()
    return _hashed(path, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=10_000)
def _hashed(path: Path, *_: int) -> str:
    """The hash of a file as it is now: a server of the world does not count it again for every page."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Serve until ended."""
    listener = socket.create_server(("127.0.0.1", 0))
    # asyncio does so for its own sockets; without, every answer waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A client on a busy machine may come back to a connection after more than the usual 5 seconds.
    config = uvicorn.Config(Indexes(Path(sys.argv[1])), lifespan="off", log_level="warning", timeout_keep_alive=120)
    print(listener.getsockname()[1], flush=True)
    asyncio.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main()
