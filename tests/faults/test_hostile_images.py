"""Images that somebody has changed: nothing of them arrives. In CI, a part of their bytes are changed."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import tiny
from vllm_plugins.core import hashes
from vllm_plugins.core.errors import HashMismatch, PluginsError, RegistryError
from vllm_plugins.core.progress import SILENT
from vllm_plugins.install import pull
from vllm_plugins.packages.images.layout import Layout
from vllm_plugins.packages.images.registry import Reference, Registry
from vllm_plugins.packages.pip_config import PipConfig
from vllm_plugins.startup.settings import Settings

from .campaign import LONG, sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

LAYER = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture
def images(place: Place, index: Index, templates: Templates) -> Path:
    """A directory with one image."""

    def make() -> None:
        tiny.install(place, index)
        place.run("push", f"oci:{place.root / 'images'}:v1")

    return templates.fill(place, index, make).root / "images"


def digest(images: Path) -> str:
    (entry,) = json.loads((images / "index.json").read_text())["manifests"]
    return str(entry["digest"]).removeprefix("sha256:")


def blob(images: Path, sha256: str) -> Path:
    return images / "blobs/sha256" / sha256


def run(images: Path, sha256: str, into: Path) -> None:
    pull.run(Layout(images, sha256=sha256), into, settings=Settings.from_environment(), reporter=SILENT)


def is_clean(into: Path) -> bool:
    """Whether nothing of an image is there."""
    return not into.exists() or {path.name for path in into.iterdir()} <= {"pull.lock"}


def test_a_change_of_any_byte_of_the_manifest_is_refused(images: Path, tmp_path: Path) -> None:
    sha256 = digest(images)
    path = blob(images, sha256)
    data = path.read_bytes()
    for place in sample(range(len(data)), of=7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(HashMismatch):
            run(images, sha256, tmp_path / "plugins")
    path.write_bytes(data + b" ")
    with pytest.raises(HashMismatch):
        run(images, sha256, tmp_path / "plugins")
    assert is_clean(tmp_path / "plugins")


def test_a_change_of_any_byte_of_the_configuration_is_refused(images: Path, tmp_path: Path) -> None:
    sha256 = digest(images)
    path = blob(images, json.loads(blob(images, sha256).read_bytes())["config"]["digest"][7:])
    data = path.read_bytes()
    for place in sample(range(len(data)), of=7):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        with pytest.raises(HashMismatch):
            run(images, sha256, tmp_path / "plugins")
    for other in (data[:-1], data + b" "):
        path.write_bytes(other)
        with pytest.raises(HashMismatch):
            run(images, sha256, tmp_path / "plugins")
    assert is_clean(tmp_path / "plugins")


def test_a_change_of_any_byte_of_the_list_of_images_gives_no_other_image(images: Path) -> None:
    """The list says which digest a tag means. A reference with a digest does not read it."""
    expected = digest(images)
    index = images / "index.json"
    data = index.read_bytes()
    refused = 0
    for place in range(len(data)):
        index.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        assert hashes.sha256(Layout(images, sha256=expected).manifest()) == expected
        try:
            found = Layout(images, tag="v1").manifest()
        except RegistryError:
            refused += 1
        else:
            assert hashes.sha256(found) == expected
    assert refused > len(data) / 2


@contextmanager
def served(images: Path, answers: dict[str, bytes]) -> Iterator[str]:
    """A registry with these blobs, which gives other ``answers`` for some of them; yields ``host:port``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for head and body

        def do_GET(self) -> None:
            sha256 = self.path.rpartition(":")[2]
            data = answers.get(sha256)
            if data is None:
                data = blob(images, sha256).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_no_changed_byte_arrives_from_a_registry(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte of the manifest and of the configuration, and forty of each layer. (In CI, some of each.)"""
    monkeypatch.setenv("no_proxy", "*")
    sha256 = digest(images)
    manifest = json.loads(blob(images, sha256).read_bytes())
    config, *layers = (part["digest"][7:] for part in (manifest["config"], *manifest["layers"]))
    settings, into = Settings.from_environment(), tmp_path / "plugins"
    chosen = random.Random(23)
    answers: dict[str, bytes] = {}
    with (
        served(images, answers) as host,
        Registry(
            Reference.parse(f"{host}/team/plugins@sha256:{sha256}"), PipConfig(index_url=None, retries=0, timeout=5)
        ) as registry,
    ):

        def attempt(layer: str = "") -> None:
            if layer:
                size = blob(images, layer).stat().st_size
                registry.download(f"sha256:{layer}", size, tmp_path / "blob")
            else:
                pull.run(registry, into, settings=settings, reporter=SILENT)

        for name in (sha256, config, *layers):
            data = blob(images, name).read_bytes()
            if name in (sha256, config):
                places = sample(range(len(data)), of=20)
            else:
                places = sample(chosen.sample(range(len(data)), 40), of=4)
            for number, place in enumerate(places):
                answers[name] = data[:place] + bytes([data[place] ^ (1 << chosen.randrange(8))]) + data[place + 1 :]
                # A whole pull for each byte of what is read first; of a layer, for some.
                with pytest.raises(HashMismatch):
                    attempt(name if name in layers and number % 25 else "")
            answers.clear()
        assert not (tmp_path / "blob").exists()
        assert is_clean(into)
        attempt()
    assert (into / "plugins.lock").is_file()


def test_a_change_of_any_byte_of_a_layer_is_refused(images: Path, tmp_path: Path) -> None:
    """A thousand places, of all layers and of the configuration. (In CI, a hundred.)"""
    sha256 = digest(images)
    manifest = json.loads(blob(images, sha256).read_bytes())
    paths = [blob(images, part["digest"][7:]) for part in (manifest["config"], *manifest["layers"])]
    chosen = random.Random(22)
    for number in range(1000 if LONG else 100):
        # The manager's layer is a hundred times as large as the others, and is read before them.
        path = paths[3] if number % 10 else paths[number // 10 % 4]
        with open(path, "r+b") as file:
            place = chosen.randrange(path.stat().st_size)
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ (1 << chosen.randrange(8))]))
            file.flush()
            with pytest.raises(HashMismatch):
                Layout(images).download(f"sha256:{path.name}", path.stat().st_size, tmp_path / "blob")
            if number % 50 == 0:
                with pytest.raises(HashMismatch):
                    run(images, sha256, tmp_path / "plugins")
            file.seek(place)
            file.write(byte)
    assert not (tmp_path / "blob").exists()
    assert is_clean(tmp_path / "plugins")


def replaced(images: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """The sha256 of another manifest, which is right about itself."""
    manifest = json.loads(blob(images, digest(images)).read_bytes())
    change(manifest)
    data = json.dumps(manifest).encode()
    blob(images, hashes.sha256(data)).write_bytes(data)
    return hashes.sha256(data)


def descriptor(images: Path, data: bytes, media_type: str) -> dict[str, Any]:
    blob(images, hashes.sha256(data)).write_bytes(data)
    return {"digest": f"sha256:{hashes.sha256(data)}", "size": len(data), "mediaType": media_type}


def layered(images: Path, data: bytes) -> str:
    """An image whose one layer has this content, and whose configuration agrees."""
    layer = descriptor(images, data, LAYER)
    config = json.dumps({"rootfs": {"diff_ids": [layer["digest"]]}}).encode()

    def change(manifest: dict[str, Any]) -> None:
        manifest["layers"] = [layer]
        manifest["config"] = descriptor(images, config, manifest["config"]["mediaType"])

    return replaced(images, change)


def tar(*infos: tarfile.TarInfo, content: bytes = b"evil") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info in infos:
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


TOP = member("manager", tarfile.DIRTYPE)
HOSTILE = {
    "a parent": (member("manager/../../evil"),),
    "an absolute path": (member("/tmp/evil-of-an-image"),),
    "another name": (member("evil"),),
    "a note": (member("image.json"),),
    "a link": (TOP, member("manager/evil", tarfile.SYMTYPE, "/etc")),
    "a file below a link": (TOP, member("manager/x", tarfile.SYMTYPE, "/tmp"), member("manager/x/evil")),
    "a hard link": (TOP, member("manager/evil", tarfile.LNKTYPE, "/etc/passwd")),
    "a device": (TOP, member("manager/evil", tarfile.CHRTYPE)),
    "a pipe": (TOP, member("manager/evil", tarfile.FIFOTYPE)),
    "a file twice": (TOP, member("manager/x"), member("manager/x")),
    "a file as a directory": (TOP, member("manager/x"), member("manager/x/y")),
    "no directory": (member("manager/x"),),
    "a dot": (TOP, member("manager/./x")),
    "an empty part": (TOP, member("manager//x")),
    "a deep directory": (
        TOP,
        *(member("manager/" + "/".join("d" * depth), tarfile.DIRTYPE) for depth in range(1, 1500)),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_layer_writes_only_below_its_directory(images: Path, tmp_path: Path, name: str) -> None:
    sha256 = layered(images, tar(*map(copy.copy, HOSTILE[name])))
    with pytest.raises(PluginsError):
        run(images, sha256, tmp_path / "plugins")
    assert is_clean(tmp_path / "plugins")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_nothing_is_written_through_a_link_in_the_directory(
    images: Path, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    """A directory that all users can write to is allowed, and one of them may know the names that a pull uses."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "victim").write_text("as it was")
    link(tmp_path / "victim", tmp_path / "plugins" / ".layer")
    run(images, digest(images), tmp_path / "plugins")
    assert (tmp_path / "victim").read_text() == "as it was"
    assert (tmp_path / "plugins" / "manager").is_dir()


def header(name: str, kind: bytes, size: int) -> bytes:
    info = member(name, kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "data",
    [
        header("long", tarfile.GNUTYPE_LONGNAME, 1 << 40),
        header("long", tarfile.XHDTYPE, 1 << 40),
        header("long", tarfile.GNUTYPE_LONGNAME, 0) * 5000,
        TOP.tobuf() + header("manager/x", tarfile.REGTYPE, -1024),
        TOP.tobuf() + header("manager/" + "x" * 300, tarfile.REGTYPE, 0),
        header("manager/x", tarfile.REGTYPE, 0),
    ],
    ids=["long name", "attributes", "names without end", "negative", "a name that is too long", "no directory"],
)
def test_headers_that_no_layer_has_are_reported(images: Path, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(RegistryError, match="a layer with other content"):
        run(images, layered(images, data + b"\0" * 1024), tmp_path / "plugins")
    assert is_clean(tmp_path / "plugins")


def test_a_pipe_in_place_of_a_file_is_not_waited_for(images: Path, tmp_path: Path) -> None:
    sha256 = digest(images)
    for path in (blob(images, sha256), images / "index.json"):
        path.unlink()
        os.mkfifo(path)
    for layout in (Layout(images, sha256=sha256), Layout(images)):
        with pytest.raises(RegistryError, match="Not a regular file"):
            layout.manifest()
    assert not list(tmp_path.glob("plugins"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 2000,
        tar(TOP, member("manager/x"), content=b"x" * 900)[:1300],
        b"\x1f\x8b" + b"x" * 600,
        b"\0" * 1024,
    ],
    ids=["empty", "noise", "cut", "gzip", "no file"],
)
def test_a_layer_that_is_no_archive_is_refused_or_empty(images: Path, tmp_path: Path, data: bytes) -> None:
    sha256 = layered(images, data)
    try:
        run(images, sha256, tmp_path / "plugins")
    except RegistryError:
        assert is_clean(tmp_path / "plugins")
    assert not (tmp_path / "plugins/manager").exists()


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no layers": lambda manifest: manifest.update(layers=[]),
    "layers of another kind": lambda manifest: manifest["layers"][0].update(mediaType=f"{LAYER}+gzip"),
    "too many layers": lambda manifest: manifest.update(layers=manifest["layers"] * 5),
    "layers in another order": lambda manifest: manifest["layers"].reverse(),
    "a layer less": lambda manifest: manifest["layers"].pop(),
    "a digest of another kind": lambda manifest: manifest["layers"][0].update(digest="md5:00"),
    "a path for a digest": lambda manifest: manifest["layers"][0].update(digest="sha256:../../../etc/passwd"),
    "a negative size": lambda manifest: manifest["layers"][0].update(size=-1),
    "a size that is a text": lambda manifest: manifest["layers"][0].update(size="12"),
    "another size": lambda manifest: manifest["layers"][0].update(size=12),
    "no configuration": lambda manifest: manifest.pop("config"),
    "a huge configuration": lambda manifest: manifest["config"].update(size=1 << 40),
    "annotations that are a list": lambda manifest: manifest.update(annotations=["x"]),
    "layers that are a text": lambda manifest: manifest.update(layers="x"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_is_not_ours_is_refused(images: Path, tmp_path: Path, name: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        MANIFESTS[name](manifest)

    with pytest.raises((RegistryError, HashMismatch)):
        run(images, replaced(images, change), tmp_path / "plugins")
    assert is_clean(tmp_path / "plugins")


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"[" * 100_000, b'{"layers": 1}', b"\xff"])
def test_a_manifest_that_is_none_is_refused(images: Path, tmp_path: Path, data: bytes) -> None:
    blob(images, hashes.sha256(data)).write_bytes(data)
    with pytest.raises(RegistryError):
        run(images, hashes.sha256(data), tmp_path / "plugins")
    assert is_clean(tmp_path / "plugins")


@pytest.mark.parametrize("listing", ["{", '{"manifests": [{}, {}]}', '{"manifests": [{"digest": "x"}]}', None])
def test_a_directory_without_its_list_of_images_is_refused(images: Path, tmp_path: Path, listing: str | None) -> None:
    if listing is None:
        (images / "index.json").unlink()
    else:
        (images / "index.json").write_text(listing)
    with pytest.raises(RegistryError):
        pull.run(Layout(images), tmp_path / "plugins", settings=Settings.from_environment(), reporter=SILENT)
