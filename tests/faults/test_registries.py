"""A real registry of images: uploads, logins, and connections that break."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.kit import faulty, registry, tiny
from tests.kit.registry import PASSWORD, USER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

pytestmark = pytest.mark.skipif(registry.PROGRAM is None, reason="needs docker-registry, a package of Debian")


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    host: str
    root: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry on this machine that demands a login."""
    root = tmp_path_factory.mktemp("registry")
    with registry.serve(root, login=True) as host:
        yield Server(host=host, root=root)


@pytest.fixture
def installed(place: Place, index: Index, templates: Templates) -> Place:
    def make() -> None:
        tiny.install(place, index)

    return templates.fill(place, index, make)


def log_in(place: Place, host: str, *, password: str = PASSWORD) -> None:
    """Write the file that ``docker login`` would."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    directory = place.home / ".docker"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_an_image_goes_to_a_registry_and_comes_back(installed: Place, server: Server, tmp_path: Path) -> None:
    log_in(installed, server.host)
    name = f"{server.host}/team/plugins"
    first = installed.run("push", f"{name}:v1", "--json").json
    assert first["uploaded_size"] == first["size"]
    second = installed.run("push", f"{name}:v2", "--json").json
    assert (second["digest"], second["uploaded_size"]) == (first["digest"], 0)
    for number, image in enumerate((f"{name}:v2", first["image"], f"{name}:v1@{first['digest']}")):
        into = tmp_path / str(number)
        done = installed.run("pull", image, "-o", str(into), "--json").json
        assert done["digest"] == first["digest"]
        assert (into / "plugins.lock").read_bytes() == installed.lock.read_bytes()


@pytest.mark.parametrize("password", [None, "wrong-password"])
def test_a_login_is_demanded_and_never_shown(installed: Place, server: Server, password: str | None) -> None:
    if password is not None:
        log_in(installed, server.host, password=password)
    done = installed.run("push", f"{server.host}/team/plugins:v1", check=False)
    assert done.returncode == 1
    assert f"the registry {server.host} can't be used [registry-failed]" in done.stderr
    assert f"next: log in: docker login {server.host}" in done.stderr
    assert "wrong-password" not in done.stdout + done.stderr


def test_a_credential_helper_is_asked(installed: Place, server: Server, tmp_path: Path) -> None:
    helper = tmp_path / "docker-credential-test"
    answer = json.dumps({"Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\nread -r host\n[ \"$1 $host\" = 'get {server.host}' ] && echo '{answer}'\n")
    helper.chmod(0o755)
    directory = installed.home / ".docker"
    directory.mkdir()
    config = directory / "config.json"
    config.write_text(json.dumps({"credHelpers": {server.host: "test"}}))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    installed.run("push", f"{server.host}/helped/plugins:v1", env=env)
    helper.write_text("#!/bin/sh\necho the vault is sealed >&2; exit 1\n")
    done = installed.run("push", f"{server.host}/helped/plugins:v1", env=env, check=False)
    assert done.returncode == 1
    assert "the credential helper docker-credential-test failed" in done.stderr
    assert "the vault is sealed" in done.stderr
    config.write_text(json.dumps({"credHelpers": {server.host: "absent"}}))
    done = installed.run("push", f"{server.host}/helped/plugins:v1", env=env, check=False)
    assert "docker-credential-absent failed" in done.stderr


def test_a_missing_image_is_reported_plainly(installed: Place, server: Server, tmp_path: Path) -> None:
    log_in(installed, server.host)
    done = installed.run("pull", f"{server.host}/team/nothing:v1", "-o", str(tmp_path / "x"), check=False)
    assert done.returncode == 1
    assert "404 Not Found" in done.stderr
    assert "next: check the name of the image, its tag and its digest" in done.stderr


def test_a_layer_that_was_changed_in_the_registry_does_not_arrive(
    installed: Place, server: Server, tmp_path: Path
) -> None:
    log_in(installed, server.host)
    pushed = installed.run("push", f"{server.host}/changed/plugins:v1", "--json").json
    sha256 = pushed["layers"][1]["digest"].removeprefix("sha256:")
    data = server.root / f"data/docker/registry/v2/blobs/sha256/{sha256[:2]}/{sha256}/data"
    data.write_bytes(data.read_bytes().replace(b"register", b"Register"))
    into = tmp_path / "plugins"
    done = installed.run("pull", pushed["image"], "-o", str(into), check=False)
    assert done.returncode == 4
    assert "the registry sends another image than the one that was asked for [hash-mismatch]" in done.stderr
    assert {path.name for path in into.iterdir()} <= {"pull.lock"}


@pytest.mark.parametrize("fault", ["reset", "hang", "half", "garbage", "drip", "500", "loop"])
def test_a_broken_network_ends_in_an_error_and_leaves_nothing(
    installed: Place, server: Server, tmp_path: Path, fault: str
) -> None:
    faults = {
        "reset": faulty.reset, "hang": faulty.hang, "half": faulty.half, "garbage": faulty.garbage,
        "drip": faulty.drip, "500": faulty.status(500), "loop": faulty.redirect("{path}"),
    }  # fmt: skip
    log_in(installed, server.host)
    pushed = installed.run("push", f"{server.host}/broken/plugins:v1", "--json").json
    into = tmp_path / "plugins"
    with faulty.serve(f"http://{server.host}") as network:
        host = network.address.removeprefix("http://")
        log_in(installed, host)
        network.plan = lambda path: faults[fault] if "/blobs/" in path else None
        env = {"PIP_TIMEOUT": "1", "PIP_RETRIES": "1", "VLLM_PLUGIN_TIMEOUT": "4"}
        image = f"{host}/broken/plugins@{pushed['digest']}"
        done = installed.run("pull", image, "-o", str(into), env=env, check=False)
    assert done.returncode == 1
    assert f"the registry {host} can't be used [registry-failed]" in done.stderr
    assert not {path.name for path in into.iterdir()} - {"pull.lock"}
