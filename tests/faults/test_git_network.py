"""A broken network before a git server: bounded waiting, a clear error, and nothing half-done."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.kit import faulty, git_server, projects
from tests.kit.interrupt import interrupt
from tests.kit.repositories import Repository

from .campaign import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kit.faulty import Faulty, Reply
    from tests.kit.place import Place

LONGEST = 60  # seconds for what is promised to be over within twenty, on a busy machine
PATIENCE = 8  # seconds, as VLLM_PLUGIN_TIMEOUT

FAULTS: dict[str, tuple[Callable[[Reply], None], tuple[str, ...]]] = {
    "reset": (faulty.reset, ("Recv failure", "unexpected disconnect", "Connection reset", "RPC failed")),
    "hang": (faulty.hang, ("Operation too slow", "RPC failed", "curl 28")),
    "half": (faulty.half, ("end of file", "early EOF", "RPC failed", "transfer closed", "hung up", "Not a valid")),
    "garbage": (faulty.garbage, ("Received HTTP/0.9", "unsupported protocol", "RPC failed", "curl 1")),
    "noise": (faulty.noise, ("bad line length", "invalid server response", "protocol error", "not valid")),
    "drip": (faulty.drip, ("Operation too slow", "RPC failed", "curl 28", "VLLM_PLUGIN_TIMEOUT")),
    "500": (faulty.status(500), ("The requested URL returned error: 500", "HTTP 500")),
    "429": (faulty.status(429), ("The requested URL returned error: 429", "HTTP 429")),
    "loop": (faulty.redirect("{path}"), ("redirects", "RPC failed", "unable to update url base")),
    "file": (faulty.redirect("file:///etc/passwd"), ("not supported", "disabled", "RPC failed", "unable to update url base")),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A place whose plugin comes from a git server that is reached through a broken network."""

    place: Place
    repository: Repository
    network: Faulty


@pytest.fixture
def world(place: Place, tmp_path: Path) -> Iterator[World]:
    repository = Repository.init(tmp_path / "served" / "tiny")
    projects.project(repository.path, name="tiny")
    repository.commit()
    with git_server.serve_http(repository.path.parent) as upstream, faulty.serve(upstream) as network:
        place.write(f"plugins:\n  - {{name: tiny, source: git, url: '{network.address}/tiny/.git'}}\n")
        place.variables.update(GIT_HTTP_LOW_SPEED_TIME="2", VLLM_PLUGIN_TIMEOUT=str(PATIENCE))
        place.run("lock")
        repository.commit("another")
        yield World(place=place, repository=repository, network=network)


@pytest.mark.parametrize(("fault", "where"), sample(itertools.product(FAULTS, ("first", "refs", "pack")), of=2))
def test_lock(world: World, fault: str, where: str) -> None:
    """At the first request, while the refs are told, and while the commit is fetched."""
    answer, words = FAULTS[fault]
    posts = 0

    def plan(path: str) -> Callable[[Reply], None] | None:
        nonlocal posts
        posts += path.endswith("git-upload-pack")
        broken = {"first": path.endswith("info/refs"), "refs": posts > 0, "pack": posts > 1}
        return answer if broken[where] else None

    world.network.plan = plan
    before, started = world.place.files(), time.monotonic()
    done = world.place.run("lock", "-q", "--upgrade", check=False)
    assert time.monotonic() - started < LONGEST
    assert (done.returncode, done.stdout) == (1, "")
    assert world.place.files() == before
    lines = done.stderr.splitlines()
    assert lines[0] == "vllm-plugins: error: the git repository can't be read [source-unavailable]"
    assert lines[1] == f"  where: {world.network.address}/tiny/.git"
    assert any(word in lines[2] for word in words), lines[2]
    assert lines[3:] == [
        "  required by: plugin 'tiny'",
        "  next: check the url of plugin 'tiny' and your access to it, with git ls-remote",
    ]
    # A network that is well again needs no help.
    world.network.plan = lambda _: None
    world.place.run("lock", "-q", "--upgrade")
    assert world.place.plugin("tiny")["commit-id"] == world.repository.head


@pytest.mark.parametrize("where", ["info/refs", "git-upload-pack"])
def test_an_interrupt_while_the_server_is_silent(world: World, where: str) -> None:
    world.network.plan = lambda path: faulty.hang if path.endswith(where) else None
    world.network.asked.clear()
    world.place.variables.update(GIT_HTTP_LOW_SPEED_TIME="100", VLLM_PLUGIN_TIMEOUT="100")
    took = interrupt(
        world.place,
        "lock",
        "--upgrade",
        when=lambda: any(urlsplit(path).path.endswith(where) for path in world.network.asked),
    )
    assert took < LONGEST / 2


@contextmanager
def silent() -> Iterator[int]:
    """A server of no protocol at all: it takes connections, and says nothing. Yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            connection.close()


@pytest.mark.parametrize("url", ["ssh://ada@127.0.0.1:{port}/tiny", "https://127.0.0.1:{port}/tiny"])
def test_a_server_that_says_nothing(place: Place, url: str) -> None:
    """The whole call is bounded, whatever its protocol waits for."""
    with silent() as port:
        place.write(f"plugins:\n  - {{name: tiny, source: git, url: '{url.format(port=port)}'}}\n")
        before, started = place.files(), time.monotonic()
        done = place.run("lock", "-q", env={"VLLM_PLUGIN_TIMEOUT": "3"}, check=False)
        assert time.monotonic() - started < LONGEST
    assert place.files() == before
    assert done.stderr.splitlines()[:3] == [
        "vllm-plugins: error: the git repository can't be read [source-unavailable]",
        f"  where: {url.format(port=port)}",
        "  found: it did not end within 3 seconds (VLLM_PLUGIN_TIMEOUT), and was ended",
    ]
