"""containerd, which runs the images of most clusters, pulls an image of plugins and mounts it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import registry, tiny
from tests.kit.sandbox import read_only

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

needed = [name for name in ("containerd", "ctr", "docker-registry") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(
    bool(needed) or "VLLM_PYTHON" not in os.environ or os.geteuid() != 0,
    reason=f"needs root, VLLM_PYTHON, and {', '.join(needed) or 'nothing else'}: tox -e container",
)

# Neither a listener on TCP nor a runtime: images and snapshots only.
CONFIG = """\
version = 2
root = "{root}/data"
state = "{root}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
address = "{root}/socket"
[ttrpc]
address = "{root}/ttrpc"
"""
SNAPSHOTTERS = ("native", "overlayfs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Containerd:
    """A daemon with all of its files below ``root``."""

    root: Path

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = ["ctr", "--address", str(self.root / "socket"), "--namespace", "test", *map(str, words)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
        return done

    def lines(self, *words: str) -> list[list[str]]:
        """The lines of a table, as words, without its head."""
        return [line.split() for line in self.run(*words).stdout.splitlines()[1:]]

    def has(self, snapshotter: str) -> bool:
        """Whether it can use a snapshotter on this file system."""
        return any(row[1] == snapshotter and row[-1] == "ok" for row in self.lines("plugins", "ls") if len(row) > 1)

    @contextmanager
    def mounted(self, image: str, snapshotter: str, at: Path) -> Iterator[Path]:
        """The content of an image, read-only, as an image volume has it."""
        at.mkdir()
        self.run("images", "mount", "--snapshotter", snapshotter, image, at)
        try:
            yield at
        finally:
            self.run("images", "unmount", "--rm", "--snapshotter", snapshotter, at)


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    root = Path(tempfile.mkdtemp(prefix="containerd-", dir="/tmp"))  # a socket's path has at most 107 characters
    (root / "config.toml").write_text(CONFIG.format(root=root))
    daemon = Containerd(root=root)
    with (
        open(root / "log", "wb") as log,
        subprocess.Popen(["containerd", "--config", root / "config.toml"], stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while daemon.run("version", check=False).returncode != 0:
                assert process.poll() is None, (root / "log").read_text()
                assert time.monotonic() < deadline, (root / "log").read_text()
                time.sleep(0.1)
            yield daemon
        finally:
            process.terminate()
    shutil.rmtree(root)


@pytest.fixture
def installed(place: Place, index: Index, templates: Templates) -> Place:
    return templates.fill(place, index, lambda: tiny.install(place, index))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    with registry.serve(tmp_path) as served:
        yield served


def tree(root: Path) -> dict[str, tuple[int, int, int, float, bytes | None]]:
    """Kind and mode, owner, group, time and content of all below a directory."""
    found = {}
    for path in sorted(root.rglob("*")):
        facts = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[str(path.relative_to(root))] = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_mtime, content)
    return found


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The names that the specification of OCI images gives to the first layer, the first two, and so on."""
    chain = diff_ids[:1]
    for diff_id in diff_ids[1:]:
        chain.append(f"sha256:{hashlib.sha256(f'{chain[-1]} {diff_id}'.encode()).hexdigest()}")
    return chain


@pytest.mark.parametrize("snapshotter", SNAPSHOTTERS)
def test_the_image_is_pulled_by_digest_unpacked_and_used(
    installed: Place, containerd: Containerd, host: str, tmp_path: Path, snapshotter: str
) -> None:
    if not containerd.has(snapshotter):
        pytest.skip(f"containerd has no {snapshotter} on this file system")
    image = installed.run("push", f"{host}/team/plugins:v1", "--json").json["image"]
    containerd.run("images", "pull", "--plain-http", "--snapshotter", snapshotter, image)
    manifest = json.loads(containerd.run("content", "get", image.partition("@")[2]).stdout)
    config = json.loads(containerd.run("content", "get", manifest["config"]["digest"]).stdout)
    snapshots = {row[0] for row in containerd.lines("snapshots", "--snapshotter", snapshotter, "ls")}
    assert snapshots >= {*chain_ids(config["rootfs"]["diff_ids"])}

    into = tmp_path / "pulled"
    variables = installed.run("pull", image, "-o", into, "--json").json["variables"]
    with containerd.mounted(image, snapshotter, tmp_path / "mounted") as mounted:
        found = tree(mounted)
        assert {(owner, group, time) for _, owner, group, time, _ in found.values()} == {(0, 0, 0.0)}
        pulled = {name: facts for name, facts in tree(into).items() if name not in ("image.json", "pull.lock")}
        assert {name: (facts[0], facts[-1]) for name, facts in found.items()} == {
            name: (facts[0], facts[-1]) for name, facts in pulled.items()
        }
        # What a start has: the image, and the packages of vLLM.
        env = {name: value.replace(str(into), str(mounted)) for name, value in variables.items()}
        words, sandbox = read_only(mounted)
        code = "import sys; from vllm_plugins.startup import hook; hook.general(); print('tiny' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-I", *words, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env={**env, **sandbox},
        )
        assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    containerd.run("images", "remove", "--sync", image)


def replaced(layout: Path, change: Any) -> None:
    """Change the configuration of an image in a layout, and all that names it."""
    index = json.loads((layout / "index.json").read_text())
    (entry,) = index["manifests"]
    blobs = layout / "blobs/sha256"

    def read(descriptor: Any) -> Any:
        return json.loads((blobs / descriptor["digest"].partition(":")[2]).read_text())

    def write(descriptor: Any, content: Any) -> None:
        data = json.dumps(content).encode()
        sha256 = hashlib.sha256(data).hexdigest()
        (blobs / sha256).write_bytes(data)
        descriptor.update(digest=f"sha256:{sha256}", size=len(data))

    manifest = read(entry)
    config = read(manifest["config"])
    change(config, manifest)
    write(manifest["config"], config)
    write(entry, manifest)
    (layout / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config, _: config["rootfs"]["diff_ids"].reverse(), "wrong diff id"),
        (lambda config, _: config["rootfs"]["diff_ids"].pop(), "mismatched image rootfs and manifest layers"),
        (
            lambda _, manifest: manifest["layers"][0].update(mediaType="application/octet-stream"),
            "no processor for media-type",
        ),
    ],
    ids=["another order of diff_ids", "one diff_id fewer", "a media type other than tar"],
)
def test_containerd_would_notice_a_wrong_configuration(
    installed: Place, containerd: Containerd, tmp_path: Path, change: Any, message: str
) -> None:
    """The test above says something: these differ by one field from the image that is accepted."""
    layout = tmp_path / "images"
    installed.run("push", f"oci:{layout}:v1")
    replaced(layout, change)
    subprocess.run(["tar", "-C", layout, "-cf", tmp_path / "images.tar", "."], check=True)
    words = ("images", "import", "--snapshotter", "native", "--base-name", "test/wrong", tmp_path / "images.tar")
    done = containerd.run(*words, check=False)
    assert done.returncode != 0, done.stdout
    assert message in done.stderr
