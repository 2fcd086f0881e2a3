"""Tokens and passwords: in no file, no output, no error, and no command line, wherever they come from.

(``tests/conftest.py`` also looks for the one secret of all tests in all that a session has written.)
"""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.kit import canary, gateway, projects
from tests.kit.canary import CANARY
from tests.kit.git_server import serve_https
from tests.kit.repositories import Repository
from vllm_plugins.core.redact import redact

from .campaign import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

POINTS = {"vllm.general_plugins": {"plugin": "plugin:register"}}
HOW = ("variable", "pip.conf", "netrc", "extra index", "find-links")


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A place whose index and whose git server want the secret; ``said`` is all that commands have printed."""

    place: Place
    said: list[str]
    whole: bool  # or, in CI, the commands alone that use the login

    def run(self, *words: str, fails: bool = False, **env: str) -> None:
        """A command, which must not show the secret."""
        done = self.place.run(*words, env=env, check=False)
        assert (done.returncode != 0) == fails, (words, done.stdout, done.stderr)
        self.said.append(f"{words}\n{done.stdout}\n{done.stderr}")
        assert CANARY not in self.said[-1], words


@pytest.fixture(params=HOW)
def world(place: Place, index: Index, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    index.wheel("plugin", requires=["helper", "built"], entry_points=POINTS, modules={"plugin.py": "def register():\n    pass\n"})  # fmt: skip
    index.wheel("helper")
    index.sdist("built")
    repository = Repository.init(tmp_path / "served" / "tiny")
    projects.project(repository.path, name="tiny", entry_points={"vllm.general_plugins": {"tiny": "tiny:__loader__.get_filename"}})  # fmt: skip
    repository.commit()
    scratch = tmp_path / "certificates"
    for part in ("index", "git"):
        (scratch / part).mkdir(parents=True)
    parts = urlsplit(index.url)
    with (
        gateway.tls(f"http://{parts.netloc}", scratch / "index", user="ada", password=CANARY) as server,
        serve_https(repository.path.parent, scratch / "git", user=CANARY, password=CANARY) as git,
    ):
        there = configured(place, server.host, parts.path, how=request.param, certificate=server.authority)
        there.variables.update(GIT_SSL_CAINFO=str(git.authority), GIT_TOKEN=CANARY)
        there.write(
            f"""
            plugins:
              - {{name: plugin, source: pypi, package: plugin}}
              - {{name: tiny, source: git, url: 'https://${{GIT_TOKEN}}@{git.host}/tiny/.git'}}
            """
        )
        yield World(place=there, said=[], whole=LONG or request.param == HOW[0])


def configured(place: Place, host: str, path: str, *, how: str, certificate: Path | None) -> Place:
    """A place in which pip knows the login, in one of the ways that people use."""
    login, plain = f"https://ada:{CANARY}@{host}{path}", f"https://{host}{path}"
    place.variables["PIP_CERT"] = str(certificate)
    if how == "netrc":
        netrc = place.home / ".netrc"
        netrc.write_text(f"machine 127.0.0.1 login ada password {CANARY}\n")
        netrc.chmod(0o600)
        return replace(place, index_url=plain)
    if how == "pip.conf":
        (place.home / "pip.conf").write_text(f"[global]\nindex-url = {login}\n")
        place.variables.update(PIP_CONFIG_FILE=str(place.home / "pip.conf"), PIP_INDEX_URL="")
        return replace(place, index_url="")
    if how == "extra index":
        place.variables["PIP_EXTRA_INDEX_URL"] = login
        return place
    if how == "find-links":
        place.variables["PIP_FIND_LINKS"] = f"{login}plugin/"
        return place
    return replace(place, index_url=login)


def test_every_command(world: World, tmp_path: Path) -> None:
    with canary.seen_in_command_lines() as seen:
        world.run("lock", "-v", "--resolver", "pip-compile")
        world.run("lock", "-v", "--upgrade", "--resolver", "uv")
        if world.whole:
            world.run("lock", "--json", "--upgrade")
        for installer in ("pip", "uv"):
            world.run("sync", "-v", "--reinstall", "--installer", installer)
        for command in ("status", "verify", "bundle", "doctor", "history") if world.whole else ("bundle", "doctor"):
            world.run(command, "--json")
            world.run(command, "-v")
        for kind in ("requirements", "pylock", "cyclonedx", "dot") if world.whole else ("requirements",):
            world.run("export", "--format", kind, "-o", str(tmp_path / f"exported.{kind}"))
        world.run("diff", str(world.place.lock), world.place.overlay.name, "--json")
        world.run("audit", "--offline", "--json", "--html", str(tmp_path / "audit.html"))
        # What is built again in the locked environment, from its commit.
        for wheel in world.place.wheels.glob("tiny-*.whl"):
            wheel.unlink()
        world.run("bundle", "-v")
        done = world.place.python("-m", "tests.kit.loader", "general", env={"VLLM_PLUGIN_VERIFY": "1"})
        world.said.append(done.stdout + done.stderr)
    assert seen == set()
    assert canary.traces(tmp_path) == []
    assert not canary.is_in("\n".join(world.said).encode())
    assert world.place.plugin("tiny")["url"].startswith("https://127.0.0.1:")


def test_every_failure(world: World, tmp_path: Path) -> None:
    """An index and a git server that refuse this secret, name it in what they say, or are gone."""
    wrong = f"{CANARY}wrong"
    world.run("lock", "-q")
    text = json.dumps(world.place.variables | {"index": world.place.index_url}).replace(CANARY, wrong)
    env = {key: value for key, value in json.loads(text).items() if key.startswith("PIP_") and value}
    if world.place.index_url:
        env.setdefault("PIP_INDEX_URL", json.loads(text)["index"])
    gone = {"PIP_INDEX_URL": f"https://ada:{CANARY}@127.0.0.1:9/simple/"}
    with canary.seen_in_command_lines() as seen:
        world.run("lock", "--upgrade", "-v", fails=True, GIT_TOKEN=wrong)
        if world.whole:
            world.run("lock", "--upgrade", "-v", fails=True, **gone)
        world.run("lock", "--upgrade", "-v", "--resolver", "uv", "--json", fails=True, **gone)
        for installer in ("pip", "uv"):
            world.run("sync", "-v", "--installer", installer, "--json", fails=True, **gone, PIP_EXTRA_INDEX_URL="", PIP_FIND_LINKS="", XDG_CACHE_HOME=str(tmp_path / installer))  # fmt: skip
        for command in ("lock", "sync"):
            done = world.place.run(command, "-v", env={**env, "XDG_CACHE_HOME": str(tmp_path / "other")}, check=False)
            assert CANARY not in done.stdout + done.stderr
    assert seen == set()
    assert canary.traces(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://{CANARY}@host/x", "https://****@host/x"),
        (f"https://ada:{CANARY}@host/x", "https://****@host/x"),
        (f"ssh://git:{CANARY}@host/x", "ssh://git:****@host/x"),
        (f"say {CANARY}!", "say ****!"),
        (f"https://a:{CANARY}@one/ and https://b:{CANARY}@two/", "https://****@one/ and https://****@two/"),
        (f"git+https://ada:{CANARY}@host/x", "git+https://****@host/x"),
    ],
)
def test_what_is_shown_of_a_text(text: str, shown: str) -> None:
    assert redact(text, [CANARY]) == shown


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """Else it would prove nothing: plain, in base64, and in a file's name; but not where a test put it."""
    for number in range(3):
        (tmp_path / f"coded{number}").write_bytes(base64.b64encode(b"x" * number + CANARY.encode() + b"rest"))
    (tmp_path / "plain").write_text(f"a {CANARY} b")
    (tmp_path / f"name-{CANARY}").write_text("")
    (tmp_path / ".netrc").write_text(CANARY)
    (tmp_path / "innocent").write_text("nothing")
    found = {path.rpartition("/")[2] for path in canary.traces(tmp_path)}
    for path in tmp_path.iterdir():
        path.unlink()  # the end of the session looks, too
    assert found == {"coded0", "coded1", "coded2", "plain", f"name-{CANARY}"}


def test_the_search_sees_a_command_line() -> None:
    other = "of-this-test-alone"  # another test may look for the secret at this moment
    with canary.seen_in_command_lines(other) as seen, subprocess.Popen(["sh", "-c", "sleep 0.3", other]) as process:
        process.wait()
    assert seen == {f"sh -c sleep 0.3 {other} "}
