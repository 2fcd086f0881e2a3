"""Whatever pip is configured with works for pip, for uv and for us: certificates, logins, netrc, proxies."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.kit import gateway, projects
from tests.kit.canary import CANARY
from tests.kit.long import long

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place, ResolverName


@pytest.fixture
def resolver() -> ResolverName:
    return "auto"


SECRET = f"{CANARY}-of-the-index"
INSTALLERS = pytest.mark.parametrize("installer", ["pip", "uv"])


def address(index: Index) -> tuple[str, str]:
    """Host and path of an index."""
    parts = urlsplit(index.url)
    return f"http://{parts.netloc}", parts.path


def lock_and_install(place: Place, index: Index, installer: str) -> str:
    """An sdist too, so that a build environment is provisioned from there; returns all that was said."""
    index.wheel("plugin", requires=["helper", "built"])
    index.wheel("helper")
    index.wheel("tool")
    projects.sdist(index.directory / "built", "built")
    place.pypi("plugin")
    variables = {"VLLM_PLUGIN_INSTALLER": installer}
    said = [place.run("lock", "-v", env=variables), place.run("sync", "-v", env=variables)]
    assert set(place.versions) == {"plugin", "helper", "built"}
    return "".join(done.stdout + done.stderr for done in said)


def everything_written(place: Place) -> bytes:
    roots = (place.config, place.store)
    return b"".join(path.read_bytes() for root in roots for path in root.rglob("*") if path.is_file())


def test_the_metadata_of_a_wheel_is_requested_once(place: Place, index: Index) -> None:
    """Another wheel at the same address is asked again, and so is the same wheel at another address."""
    points = {"vllm.general_plugins": {"plugin": "plugin:register"}}
    index.wheel("plugin")
    place.pypi("plugin")
    upstream, path = address(index)
    with gateway.proxy(upstream) as server, gateway.proxy(upstream) as other:

        def lock(through: gateway.Gateway) -> int:
            """How often the wheel was asked for; uv has its own memory."""
            through.asked.clear()
            place.lock.unlink(missing_ok=True)
            replace(place, index_url=f"http://{through.host}{path}").run("lock", "--resolver", "uv")
            return sum(asked.endswith(".whl") for asked in through.asked)

        first = lock(server)
        assert first >= 1
        assert lock(server) == 0
        assert lock(other) == first
        index.wheel("plugin", entry_points=points)
        assert lock(server) >= 1
        assert place.plugin("plugin")["entry-points"][0]["name"] == "plugin"


@INSTALLERS
@pytest.mark.parametrize("how", ["netrc", *long("url")])
def test_an_index_may_require_tls_and_a_login(
    place: Place, index: Index, tmp_path: Path, how: str, installer: str
) -> None:
    upstream, path = address(index)
    with gateway.tls(upstream, tmp_path, user="ada", password=SECRET) as server:
        user = f"ada:{SECRET}@" if how == "url" else ""
        there = replace(place, index_url=f"https://{user}{server.host}{path}")
        there.variables["PIP_CERT"] = str(server.authority)
        if how == "netrc":
            netrc = there.home / ".netrc"
            netrc.write_text(f"machine 127.0.0.1 login ada password {SECRET}\n")
            netrc.chmod(0o600)
        said = lock_and_install(there, index, installer)
        refused = replace(there, index_url=f"https://ada:wrong-secret@{server.host}{path}").run(
            "lock", "--upgrade", check=False, env={"HOME": "/nonexistent"}
        )
    assert SECRET not in said
    assert SECRET.encode() not in everything_written(place)
    assert place.package("plugin")["index"] == f"https://{server.host}{path}"
    assert place.package("plugin")["wheels"][0]["url"].startswith(f"https://{server.host}/")
    assert refused.returncode == 1
    assert "wrong-secret" not in refused.stdout + refused.stderr
    assert "error: the index can't be read [source-unavailable]\n" in refused.stderr
    assert "401" in refused.stderr


@INSTALLERS
def test_an_index_may_be_reached_through_a_proxy_only(place: Place, index: Index, installer: str) -> None:
    upstream, path = address(index)
    with gateway.proxy(upstream) as server:
        there = replace(place, index_url=f"http://index.invalid{path}")
        there.variables.update(PIP_PROXY=f"http://{server.host}", PIP_TRUSTED_HOST="index.invalid")
        lock_and_install(there, index, installer)
    assert any("index.invalid" in asked for asked in server.asked)
    assert place.package("plugin")["index"] == f"http://index.invalid{path}"


def test_a_certificate_that_is_not_trusted_is_an_error(place: Place, index: Index, tmp_path: Path) -> None:
    upstream, path = address(index)
    index.wheel("plugin")
    place.pypi("plugin")
    with gateway.tls(upstream, tmp_path, user="ada", password=SECRET) as server:
        there = replace(place, index_url=f"https://ada:{SECRET}@{server.host}{path}")
        done = there.run("lock", "-q", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "vllm-plugins: error: the index can't be read [source-unavailable]"
    assert "certificate" in done.stderr
    assert SECRET not in done.stderr
    assert not place.lock.exists()


def test_an_index_that_does_not_answer_is_an_error(place: Place) -> None:
    place.pypi("plugin")
    done = place.run("lock", "-q", env={"PIP_INDEX_URL": "http://127.0.0.1:9/simple/"}, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "vllm-plugins: error: the index can't be read [source-unavailable]"
    assert "127.0.0.1" in done.stderr


@INSTALLERS
def test_an_index_may_be_plain_html_without_hashes(place: Place, tmp_path: Path, installer: str) -> None:
    """PEP 503 alone, as a static file server has it."""
    root = tmp_path / "static"
    projects.wheel(root / "plugin", "plugin", requires=["helper"])
    projects.wheel(root / "helper", "helper")
    for directory in root.iterdir():
        anchors = "".join(f'<a href="{file.name}">{file.name}</a>' for file in sorted(directory.iterdir()))
        (directory / "index.html").write_text(f"<!DOCTYPE html><html><body>{anchors}</body></html>")
    (root / "index.html").write_text('<a href="plugin/">plugin</a><a href="helper/">helper</a>')
    argv = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(root), "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().split("port ")[1].split()[0]
            there = replace(place, index_url=f"http://127.0.0.1:{port}/")
            place.pypi("plugin")
            there.run("lock")
            there.run("sync", "--installer", installer)
        finally:
            server.terminate()
    (wheel,) = place.package("helper")["wheels"]
    data = (root / "helper" / wheel["name"]).read_bytes()
    assert wheel["hashes"] == {"sha256": hashlib.sha256(data).hexdigest()}
    assert wheel["size"] == len(data)


@INSTALLERS
def test_a_keyring_knows_the_login_of_an_index(place: Place, index: Index, tmp_path: Path, installer: str) -> None:
    password = "of the keyring / 1"
    upstream, path = address(index)
    program = tmp_path / "bin" / "keyring"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntest \"$1 $3\" = 'get ada' && echo '{password}'\n")
    program.chmod(0o755)
    with gateway.tls(upstream, tmp_path, user="ada", password=password) as server:
        there = replace(place, index_url=f"https://ada@{server.host}{path}")
        there.variables["PIP_CERT"] = str(server.authority)
        there.variables["PIP_KEYRING_PROVIDER"] = "subprocess"
        there.variables["PATH"] = f"{program.parent}:{place.environment['PATH']}"
        said = lock_and_install(there, index, installer)
    assert password not in said
    assert password.encode() not in everything_written(place)
