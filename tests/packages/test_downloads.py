"""Downloads that break off, and what the next attempt, or the next process, makes of it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.kit import faulty
from tests.kit.sandbox import needs_root
from vllm_plugins.core import flock, hashes
from vllm_plugins.core.errors import HashMismatch, SourceError
from vllm_plugins.packages import downloads
from vllm_plugins.packages.index import File, Index
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kit.faulty import Faulty, Reply
    from tests.kit.index import Server

CONTENT = os.urandom(1 << 20)
NAME = "large-1.0-py3-none-any.whl"


@pytest.fixture
def network(index_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """A server of one file of a megabyte, which counts as large here."""
    monkeypatch.setattr(downloads, "RESUMABLE", 1 << 19)
    monkeypatch.setattr(downloads, "_PAUSE", 0)
    with faulty.serve(index_server.address) as server:
        yield server


def download(network: Faulty, into: Path, *, retries: int, content: bytes = CONTENT) -> bytes:
    file = File(
        filename=NAME,
        url=f"{network.address}/{NAME}",
        sha256=hashes.sha256(content),
        size=len(content),
    )
    with Index(PipConfig(index_url=f"{network.address}/large/", retries=retries)) as index:
        return index.download(file, into, durable=True).read_bytes()


def breaking(network: Faulty, most: int, *, ranges: bool = True) -> list[int]:
    starts: list[int] = []
    fault = faulty.cut(most, starts=starts, ranges=ranges)
    network.plan = lambda _: lambda reply: fault(replace(reply, body=CONTENT))
    return starts


def test_a_broken_download_continues_where_it_was(network: Faulty, tmp_path: Path) -> None:
    starts = breaking(network, 300_000)
    assert download(network, tmp_path, retries=3) == CONTENT
    assert starts == [0, 300_000, 600_000, 900_000]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_the_next_process_continues_too(network: Faulty, tmp_path: Path) -> None:
    starts = breaking(network, 400_000)
    for _ in range(2):
        with pytest.raises(SourceError, match="the index can't be read"):
            download(network, tmp_path, retries=0)
    assert download(network, tmp_path, retries=0) == CONTENT
    assert starts == [0, 400_000, 800_000]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o644


def test_a_file_that_changes_between_two_parts_is_read_again(network: Faulty, tmp_path: Path) -> None:
    other, asked = os.urandom(len(CONTENT)), []

    def plan(_: str) -> Callable[[Reply], None]:
        asked.append(1)
        body = other if len(asked) == 1 else CONTENT
        most = 300_000 if len(asked) == 1 else len(CONTENT)
        return lambda reply: faulty.cut(most, starts=starts)(replace(reply, body=body))

    starts: list[int] = []
    network.plan = plan
    assert download(network, tmp_path, retries=2) == CONTENT
    assert starts == [0, 300_000, 0]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("shift", [-1, 1, 100_000])
def test_a_server_that_sends_another_range_than_it_says_is_asked_for_the_whole(
    network: Faulty, tmp_path: Path, shift: int
) -> None:
    starts: list[int] = []

    def lie(reply: Reply) -> None:
        asked = reply.handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        starts.append(start)
        sent = reply.body[start + shift if start else 0 :]
        where = {"Content_Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"} if start else {}
        reply.head(206 if start else 200, Content_Length=str(len(sent)), **where)
        reply.send(sent[:300_000] if starts == [0] else sent)

    network.plan = lambda _: lambda reply: lie(replace(reply, body=CONTENT))
    assert download(network, tmp_path, retries=2) == CONTENT
    assert starts == [0, 300_000, 0]


def test_parts_of_a_file_without_a_hash_are_not_joined(network: Faulty, tmp_path: Path) -> None:
    """The index may give none. Then the lock would get the hash of something that nobody has published."""
    starts = breaking(network, 300_000)
    file = File(filename=NAME, url=f"{network.address}/{NAME}", size=len(CONTENT))
    with (
        Index(PipConfig(index_url=f"{network.address}/large/", retries=2)) as index,
        pytest.raises(SourceError, match="the index can't be read"),
    ):
        index.download(file, tmp_path, durable=True)
    assert starts == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_knows_no_ranges_is_read_from_the_start(network: Faulty, tmp_path: Path) -> None:
    breaking(network, 400_000)
    with pytest.raises(SourceError):
        download(network, tmp_path, retries=0)
    starts = breaking(network, len(CONTENT), ranges=False)
    assert download(network, tmp_path, retries=0) == CONTENT
    assert starts == [0]


def test_a_part_of_another_content_is_not_continued_twice(network: Faulty, tmp_path: Path) -> None:
    part = tmp_path / f".{hashlib.sha256(CONTENT).hexdigest()}.part"
    part.write_bytes(b"x" * 1000)
    starts = breaking(network, len(CONTENT))
    assert download(network, tmp_path, retries=0) == CONTENT
    assert starts == [1000, 0]
    part.write_bytes(CONTENT + b"more")
    assert download(network, tmp_path, retries=0) == CONTENT


def test_another_file_leaves_nothing(network: Faulty, tmp_path: Path) -> None:
    breaking(network, len(CONTENT))
    with pytest.raises(HashMismatch, match="does not match"):
        download(network, tmp_path, retries=0, content=os.urandom(len(CONTENT)))
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_place_of_a_part_is_not_followed(network: Faulty, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    into = tmp_path / "bundle"
    into.mkdir()
    (into / f".{hashlib.sha256(CONTENT).hexdigest()}.part").symlink_to(victim)
    breaking(network, len(CONTENT))
    with pytest.raises(OSError, match="symbolic links"):
        download(network, into, retries=0)
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("what", ["hard link", pytest.param("other user", marks=needs_root)])
def test_a_part_that_others_could_change_is_not_continued(network: Faulty, tmp_path: Path, what: str) -> None:
    part = tmp_path / f".{hashlib.sha256(CONTENT).hexdigest()}.part"
    part.write_bytes(CONTENT[:1000])
    if what == "hard link":
        os.link(part, tmp_path / "victim")
    else:
        os.chown(part, 12345, 12345)
    starts = breaking(network, len(CONTENT))
    assert download(network, tmp_path, retries=0) == CONTENT
    assert starts == [0]
    assert part.read_bytes() == CONTENT[:1000]


def test_two_downloads_of_one_file_do_not_share_a_part(network: Faulty, tmp_path: Path) -> None:
    part = tmp_path / f".{hashlib.sha256(CONTENT).hexdigest()}.part"
    starts = breaking(network, len(CONTENT))
    with open(part, "xb") as other:
        other.write(b"y" * 1000)
        other.flush()
        assert flock.lock(other)
        assert download(network, tmp_path, retries=0) == CONTENT
        assert part.read_bytes() == b"y" * 1000
    assert starts == [0]


def test_parts_that_nobody_needs_are_swept(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f".{name * 64}.part").write_bytes(b"x")
    (tmp_path / "notes.part").write_bytes(b"mine")
    with open(tmp_path / f".{'b' * 64}.part", "rb+") as writing:
        assert flock.lock(writing)
        downloads.sweep(tmp_path, frozenset({"a" * 64}))
    kept = {f".{'a' * 64}.part", f".{'b' * 64}.part", "notes.part"}
    assert {path.name for path in tmp_path.iterdir()} == kept
