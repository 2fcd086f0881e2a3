"""A broken network before the index: bounded waiting, a clear error, and nothing half-done."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from packaging.utils import canonicalize_name

from tests.kit import faulty
from tests.kit.interrupt import interrupt
from vllm_plugins.core.errors import SourceError
from vllm_plugins.packages.index import Index as Reader
from vllm_plugins.packages.pip_config import PipConfig

from .campaign import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kit.faulty import Faulty, Reply
    from tests.kit.index import Index, Server
    from tests.kit.place import Completed, Place
    from tests.kit.templates import Templates

LONGEST = 40  # seconds for what is promised to be over within ten, on a busy machine
PATIENCE = 8  # seconds, as VLLM_PLUGIN_TIMEOUT

# The fault; what the error says of it where pip asked, and where we did. A test compares the rest of the message.
FAULTS: dict[str, Callable[[Reply], None]] = {
    "reset": faulty.reset,
    "hang": faulty.hang,
    "half": faulty.half,
    "garbage": faulty.garbage,
    "noise": faulty.noise,
    "drip": faulty.drip,
    "500": faulty.status(500),
    "429": faulty.status(429),
    "loop": faulty.redirect("{path}"),
    "file": faulty.redirect("file:///etc/passwd"),
}
FOUND = {
    "reset": "Connection reset by peer",
    "hang": "Read timed out. (read timeout=1.0)",
    "half": "IncompleteRead(",
    "garbage": "BadStatusLine(",
    "noise": "codec can't decode byte",
    "drip": "the server is too slow: less than 1024 bytes per second within 1 seconds",
    "500": "500 Server Error: Internal Server Error for url: ",
    "429": "429 Client Error: Too Many Requests for url: ",
    "loop": "Exceeded 30 redirects.",
    "file": "No connection adapters were found for 'file:///etc/passwd'",
}
MEND = "  next: check the network"
EACH = pytest.mark.parametrize("fault", FAULTS)
# Other bytes are refused in words of their own. A half of the rest has its turn in CI.
HALF = pytest.mark.parametrize("fault", sorted({"noise", *sample(FAULTS, of=2)}))
INSTALLED = [
    (fault, installer)
    for turn, installer in enumerate(("pip", "uv"))
    for fault in sample(FAULTS, of=2, turn=1 - turn)
]
INSTALLERS = pytest.mark.parametrize("installer", ["pip", "uv"])


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A place whose index is reached through a broken network, which is well at first."""

    place: Place
    index: Index
    network: Faulty

    def breaks(self, fault: Callable[[Reply], None], where: Callable[[str], bool]) -> None:
        """From now on, what ``where`` says of a path is answered so."""
        self.network.plan = lambda path: fault if where(path) else None

    def fails(self, code: int, *words: str) -> list[str]:
        """A command that ends in time with this exit code and nothing changed; returns the lines of its error."""
        before, started = self.place.files(), time.monotonic()
        done = self.place.run(*words, "-q", check=False)
        assert time.monotonic() - started < LONGEST
        assert (done.returncode, done.stdout) == (code, "")
        assert self.place.files() == before
        assert not list(self.place.store.glob("staging/*"))
        assert not list(self.place.config.rglob(".*"))
        lines = done.stderr.splitlines()
        assert lines[0].startswith("vllm-plugins: error: ")
        assert lines[-1].startswith("  next: ")
        what, _, _ = lines[0].removeprefix("vllm-plugins: error: ").rpartition(" [")  # the id of the error
        return [what, *lines[1:]]


def says(line: str, fault: str) -> bool:
    """Whether a line names a fault. Where a busy machine keeps a server from dripping, it is silent."""
    return FOUND[fault] in line or (fault == "drip" and FOUND["hang"] in line)


def is_page(path: str) -> bool:
    return path.endswith("/")


def is_file(path: str) -> bool:
    return path.endswith((".whl", ".metadata"))


@pytest.fixture(scope="module")
def network(module_index: Index) -> Iterator[Faulty]:
    """The broken network before this module's index: one address for all tests, so that they can share a lock."""
    with faulty.serve(f"http://{urlsplit(module_index.url).netloc}") as network:
        yield network


@pytest.fixture
def world(place: Place, index: Index, network: Faulty, templates: Templates) -> World:
    """A plugin that needs another distribution is locked, and not installed."""
    network.plan = lambda _: None
    there = replace(place, index_url=f"{network.address}{urlsplit(index.url).path}")

    def lock() -> None:
        index.wheel("plugin", requires=["helper"])
        index.wheel("helper")
        there.pypi("plugin")
        there.run("lock")

    templates.fill(there, index, lock)
    there.variables.update(PIP_TIMEOUT="1", VLLM_PLUGIN_TIMEOUT=str(PATIENCE))
    return World(place=there, index=index, network=network)


@EACH
def test_lock_and_pages(world: World, fault: str) -> None:
    world.breaks(FAULTS[fault], is_page)
    lines = world.fails(1, "lock", "--upgrade")
    assert lines[0] == "the index can't be read"
    assert any(says(line, fault) or "JSONDecodeError" in line for line in lines), lines
    assert lines[-1].startswith(MEND)


def test_headers_without_an_end_do_not_keep_a_command(world: World) -> None:
    world.place.variables.update(PIP_RETRIES="0")
    world.breaks(faulty.drip_head, is_page)
    lines = world.fails(1, "lock", "--upgrade")
    assert lines[0] == "the index can't be read"
    assert lines[-1].startswith(MEND)


@HALF
def test_lock_and_files(world: World, fault: str) -> None:
    """What pip asks of a wheel before it is chosen."""
    shutil.rmtree(world.place.root / "cache")
    world.breaks(FAULTS[fault], is_file)
    is_another = fault == "noise"  # other bytes than those that the page names, as for bundle
    lines = world.fails(4 if is_another else 1, "lock", "--upgrade")
    if is_another:
        assert lines[0].endswith("does not match the hash or size of its index")
        assert "  required by: plugin 'plugin'" in lines
        return
    assert lines[0] in ("the index can't be read", "pip-compile can't read what an index answers")
    assert lines[-1].startswith((MEND, "  next: fix the "))


@pytest.mark.parametrize(("fault", "installer"), INSTALLED)
def test_sync(world: World, fault: str, installer: str) -> None:
    """pip follows a redirect to a file of this machine; its hash tells that it is another, as any other's would.

    Where uv says of other bytes that no version fits, pip is tried, which says what is wrong.
    """
    world.breaks(FAULTS[fault], is_file)
    is_another = fault == "noise" or (installer == "pip" and fault == "file")
    lines = world.fails(4 if is_another else 1, "sync", "--installer", installer)
    if is_another:
        assert lines[0] == "a file is not the one that the lock names"
    else:
        failed = "the installation failed; the store is unchanged"
        assert lines[0] in (failed, "no index gave the locked release of tiny; the store is unchanged")
        assert lines[-1].startswith(("  next: read the output of the installer above", "  next: check the network"))
    text = "\n".join(lines)
    assert "root:" not in text  # of /etc/passwd
    if fault == "drip":
        assert f"  it did not end within {PATIENCE} seconds (VLLM_PLUGIN_TIMEOUT), and was ended" in lines
    assert not world.place.overlays


@HALF
def test_bundle(world: World, fault: str) -> None:
    world.breaks(FAULTS[fault], is_file)
    lines = world.fails(4 if fault == "noise" else 1, "bundle")
    assert lines[1].startswith(f"  where: {world.network.address}/")
    assert lines[-2].endswith(" 1.0 for plugin 'plugin'")
    if fault == "noise":
        assert lines[0].endswith("-1.0-py3-none-any.whl does not match the hash or size of its index")
        assert lines[3] == "  found: more"
    else:
        assert lines[0] == "the index can't be read"
        assert says(lines[2], fault)


@pytest.mark.parametrize(
    ("command", "code"),
    [("lock", 503), ("pip", 503), ("uv", 503), ("uv", 429), ("bundle", 503), ("bundle", 429)],
)
def test_an_index_that_recovers(world: World, command: str, code: int) -> None:
    """Asked again after what ``Retry-After`` says, as often as pip's ``retries`` allow. (pip gives up at a 429.)"""
    words = {"lock": ["lock", "--upgrade"], "bundle": ["bundle"]}.get(command, ["sync", "--installer", command])
    world.breaks(faulty.status(code, retry_after=1, times=1), is_page if command == "lock" else is_file)
    started = time.monotonic()
    world.place.run(*words, env={"PIP_RETRIES": "3", "VLLM_PLUGIN_TIMEOUT": "60"})
    assert time.monotonic() - started > 1
    assert world.place.versions == {"plugin": "1.0", "helper": "1.0"}


def test_an_index_that_asks_for_a_day(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """``Retry-After`` is obeyed up to a minute (here a second)."""
    monkeypatch.setattr("vllm_plugins.packages._net.session._PAUSE", 1)
    index.wheel("plugin")
    parts, fault = urlsplit(index.url), faulty.status(429, retry_after=86400, times=2)
    with faulty.serve(f"http://{parts.netloc}") as network:
        network.plan = lambda _: fault
        with Reader(PipConfig(index_url=f"{network.address}{parts.path}", retries=3)) as reader:
            started = time.monotonic()
            assert [file.filename for file in reader.files(canonicalize_name("plugin"))] == [
                "plugin-1.0-py3-none-any.whl"
            ]
            assert 2 <= time.monotonic() - started < LONGEST


@pytest.mark.parametrize("command", ["lock", "pip", "uv"])
def test_an_interrupt_while_the_index_is_silent(world: World, command: str) -> None:
    words = ["lock", "--upgrade"] if command == "lock" else ["sync", "--installer", command]
    where = is_page if command == "lock" else is_file
    world.breaks(faulty.hang, where)
    world.network.asked.clear()
    world.place.variables.update(PIP_TIMEOUT="100", VLLM_PLUGIN_TIMEOUT="100")
    took = interrupt(world.place, *words, when=lambda: any(map(where, world.network.asked)))
    assert took < LONGEST / 2


def test_a_page_without_an_end(index: Index) -> None:
    """We read what a page of an index may have, and not what a machine's memory has."""
    index.wheel("plugin")
    parts = urlsplit(index.url)
    with faulty.serve(f"http://{parts.netloc}") as network:
        network.plan = lambda _: faulty.endless
        config = PipConfig(index_url=f"{network.address}{parts.path}", retries=0)
        with Reader(config) as reader, pytest.raises(SourceError) as caught:
            reader.files(canonicalize_name("plugin"))
    assert caught.value.found == "ValueError: more than 134217728 bytes"


def test_a_wheel_without_an_end(world: World) -> None:
    """Left as soon as it is larger than the lock says; nothing fills a disk."""
    world.breaks(faulty.endless, is_file)
    lines = world.fails(4, "bundle")
    assert lines[0].endswith("does not match the hash or size of its index")
    assert lines[3] == "  found: more"


@INSTALLERS
def test_another_file_of_the_same_name(world: World, installer: str) -> None:
    world.index.wheel("helper", modules={"helper/__init__.py": "EVIL = True\n"})
    lines = world.fails(4, "sync", "--installer", installer)
    assert lines[0] == "a file is not the one that the lock names"
    done = world.place.run("bundle", "-q", check=False)
    assert done.returncode == 4
    message = "vllm-plugins: error: helper-1.0-py3-none-any.whl does not match the hash or size of its index [hash-mismatch]\n"
    assert done.stderr.startswith(message)
    assert not list(world.place.wheels.glob("*helper*"))
    # Locking again takes it, and says that the files are others.
    assert changes(world.place.run("lock", "--upgrade", "--json")) == {"helper": ("files", "1.0", "1.0")}


def changes(done: Completed) -> dict[str, tuple[str, str, str]]:
    return {
        change["name"]: (change["kind"], change["old"]["version"], change["new"]["version"])
        for change in done.json["changes"]
    }


@pytest.fixture
def stranger(index_server: Server) -> Index:
    """Another index, which anybody may upload to."""
    other = index_server.index(f"stranger-{len(list(index_server.root.iterdir()))}")
    other.wheel("helper", "9.9", modules={"helper/__init__.py": "EVIL = True\n"})
    return other


def test_the_same_name_at_another_index(place: Place, index: Index, stranger: Index) -> None:
    """Dependency confusion: the lock says whose file it is, and a lock that is there is not moved by it."""
    index.wheel("plugin", requires=["helper"])
    index.wheel("helper")
    place.pypi("plugin")
    place.run("lock")
    was = place.lock_text
    confused = {"PIP_EXTRA_INDEX_URL": stranger.url}
    for words in (["lock"], ["lock", "--check"], ["lock", "--upgrade-package", "plugin"]):
        place.run(*words, env=confused)
        assert place.lock_text == was
    assert place.package("helper")["index"] == index.url
    for installer in ("pip", "uv"):
        place.run("sync", "--installer", installer, "--reinstall", env=confused)
        assert "EVIL" not in (place.site / "helper/__init__.py").read_text()
    # An upgrade takes the higher version, as pip does; lock and table say from where.
    done = place.run("lock", "--upgrade", "--json", env=confused)
    assert changes(done)["helper"][1:] == ("1.0", "9.9")
    assert done.json["changes"][0]["new"]["index"] == stranger.url
    assert place.package("helper")["index"] == stranger.url
    assert place.package("plugin")["index"] == index.url


def test_the_same_version_at_another_index(place: Place, index: Index, stranger: Index) -> None:
    """The very file that was locked, somewhere else: the place changes, and that is said."""
    index.wheel("plugin", requires=["helper"])
    path = index.wheel("helper", "9.9")
    place.pypi("plugin")
    place.run("lock")
    index.remove(path)
    done = place.run("lock", "--check", "--upgrade", env={"PIP_EXTRA_INDEX_URL": stranger.url}, check=False)
    assert done.returncode == 3
    assert f"  helper: 9.9 → 9.9 from {stranger.url}, required by plugin 'plugin'" in done.stderr
