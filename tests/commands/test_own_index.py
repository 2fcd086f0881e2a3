"""``indexes:`` of plugins.yaml: a plugin comes from its own index alone, and nothing else is asked of that index."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.kit import gateway
from tests.kit.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.gateway import Gateway
    from tests.kit.index import Index, Server

USER, PASSWORD = "VLLM_PLUGIN_INDEX_TEAM_1_USERNAME", "VLLM_PLUGIN_INDEX_TEAM_1_PASSWORD"
SECRET = "canary-only-of-the-own-index"
POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
TINY = "def register():\n    pass\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A place whose general index and whose own index, ``team-1``, note what they are asked."""

    place: Place
    general: Index
    own: Index
    asked: Gateway
    asked_own: Gateway

    def names(self) -> tuple[set[str], set[str]]:
        """The distributions that the general index and the own index were asked for, since the last call."""
        found = tuple({_name(path) for path in server.asked} for server in (self.asked, self.asked_own))
        self.asked.asked.clear()
        self.asked_own.asked.clear()
        return found[0], found[1]

    def write(self, *plugins: str) -> None:
        """A manifest with the index and these plugins."""
        lines = "".join(f"\n  - {plugin}" for plugin in plugins)
        url = f"http://{self.asked_own.host}{urlsplit(self.own.url).path}"
        self.place.write(f"indexes:\n  team-1: {{url: '{url}'}}\nplugins:{lines}\n")


def _name(path: str) -> str:
    """``/index/simple/tiny/`` and ``/index/resources/tiny/tiny-1.0-….whl`` are both of ``tiny``."""
    return path.strip("/").split("/")[2]


@pytest.fixture
def world(tmp_path: Path, index: Index, index_server: Server, vllm: Path, cached: Path) -> Iterator[World]:
    own = index_server.index("own-index")
    own.clear()
    parts = urlsplit(index.url)
    upstream = f"http://{parts.netloc}"
    with gateway.proxy(upstream) as asked, gateway.login(upstream, user="ada", password=SECRET) as asked_own:
        place = Place(
            root=tmp_path,
            index_url=f"http://{asked.host}{parts.path}",
            paths=(vllm,),
            resolver="uv",
            cached=cached,
        )
        place.variables.update({USER: "ada", PASSWORD: SECRET})
        own.wheel("tiny", "1.0", requires=["tool>=1"], entry_points=POINTS, modules={"tiny.py": TINY})
        index.wheel("tiny", "9.0", requires=["tool>=1"], entry_points=POINTS, modules={"tiny.py": "# hostile\n"})
        index.wheel("tool", "1.0")
        own.wheel("tool", "7.0")
        yield World(place=place, general=index, own=own, asked=asked, asked_own=asked_own)


TINY_THERE = "{name: tiny, source: pypi, package: Tiny, index: team-1}"


def test_exported_requirements_name_its_wheel_by_url(world: World) -> None:
    world.write(TINY_THERE)
    world.place.run("lock")
    (url,) = [wheel["url"] for wheel in world.place.package("tiny")["wheels"]]
    lines = world.place.run("export", "--format", "requirements").stdout.splitlines()
    assert f"tiny @ {url} \\" in lines
    assert any(line.startswith("# tiny is for the index 'team-1' alone: http://") for line in lines)
    assert any(line.startswith("tool===1.0 ") for line in lines)
    for tag in ("cp310-cp310-manylinux_2_28_x86_64", "py3-none-any"):
        world.own.wheel("tiny", "1.0", tag=tag, entry_points=POINTS, requires=["tool>=1"])
    world.place.lock.unlink()
    world.place.run("lock")
    text = world.place.run("export", "--format", "requirements").stdout
    assert "\ntiny===1.0 \\\n" in text
    assert "(pip asks all its indexes; the hashes refuse other files)" in text
    assert SECRET not in text


def test_each_index_is_asked_for_its_own_packages_alone(world: World) -> None:
    place = world.place
    world.write(TINY_THERE)

    def run(*words: str, own: bool = True) -> str:
        done = place.run(*words)
        assert re.search(r"^not run: .*\bchanged\b", done.stdout, re.MULTILINE) is None
        general, asked = world.names()
        assert general <= {"tool"}, words
        assert asked == ({"tiny"} if own else set()), words
        return done.stdout

    run("lock")
    assert place.versions == {"tiny": "1.0", "tool": "1.0"}
    assert SECRET not in place.lock.read_text()
    (plugin,) = place.locked["tool"]["vllm-plugins"]["plugins"]
    assert (plugin["index"], plugin["index-url"]) == ("team-1", place.locked["packages"][0]["index"])
    run("lock", "--check")
    run("sync", "--no-load-check", "--installer", "pip")
    assert "1.0 from team-1" in place.run("status").stdout
    run("bundle", "-o", str(place.root / "bundle"))
    assert "tiny: it comes from the index 'team-1' alone" in run("audit")
    world.own.wheel("tiny", "1.1", requires=["tool>=1"], entry_points=POINTS, modules={"tiny.py": TINY})
    assert "1.1" in run("outdated")
    run("upgrade")
    assert place.versions == {"tiny": "1.1", "tool": "1.0"}
    place.manifest.unlink()  # a lock alone, as in production
    place.variables.update({"VLLM_PLUGIN_CONFIG": "", "VLLM_PLUGIN_LOCK": str(place.lock)})
    run("sync", "--no-load-check", "--installer", "uv")


def test_pip_compile_does_not_ask_for_what_has_an_index_of_its_own(world: World) -> None:
    world.write(TINY_THERE)
    world.place.run("lock", "--resolver", "pip-compile")
    assert world.place.versions == {"tiny": "1.0", "tool": "1.0"}
    assert world.names() == ({"tool"}, {"tiny"})


def test_another_plugin_that_requires_it_gets_it_from_its_own_index(world: World) -> None:
    world.general.wheel("other", "1.0", requires=["tiny<2"])
    world.own.wheel("tiny", "2.0", requires=["tool>=1"])
    world.write(TINY_THERE, "{name: other, source: pypi, package: other}")
    world.place.run("lock")
    assert world.place.versions == {"other": "1.0", "tiny": "1.0", "tool": "1.0"}
    assert world.names() == ({"other", "tool"}, {"tiny"})


def test_what_the_own_index_does_not_have_is_not_looked_for_elsewhere(world: World) -> None:
    world.write("{name: tool, source: pypi, package: tool, version: '<7', index: team-1}")
    done = world.place.run("lock", check=False)
    assert done.returncode == 6
    assert "no release satisfies <7; there is 7.0" in done.stderr
    world.write("{name: gone, source: pypi, package: gone, index: team-1}")
    done = world.place.run("lock", "-q", check=False)
    assert done.returncode == 6
    assert f"index: http://{world.asked_own.host}" in done.stderr
    assert "next: correct `package` or `index` of plugin 'gone' in plugins.yaml\n" in done.stderr
    assert world.place.index_url is not None
    assert world.place.index_url not in done.stderr
    assert world.names()[0] == set()


def test_an_sdist_of_the_own_index_is_built(world: World) -> None:
    world.own.sdist("built", "1.0", modules={"built.py": ""})
    world.write("{name: built, source: pypi, package: built, index: team-1}")
    world.place.run("lock")
    assert world.place.versions == {"built": "1.0"}
    assert "built" not in world.names()[0]
    for wheel in world.place.wheels.iterdir():
        wheel.unlink()
    world.place.run("sync")
    assert world.names() == (set(), {"built"})


def test_a_build_can_not_require_what_has_an_index_of_its_own(world: World, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["tiny"]\nbuild-backend = "tiny"\n[project]\nname = "x"\nversion = "1"\n'
    )
    world.write(TINY_THERE, f"{{name: x, source: local, path: '{project}'}}")
    done = world.place.run("lock", "-q", check=False)
    assert done.returncode == 1
    assert "the build requires a package that builds can't have" in done.stderr
    assert "tiny comes from the index 'team-1' of plugins.yaml alone, which no build uses" in done.stderr
    assert "tiny" not in world.names()[0]


def test_the_next_steps_of_refusals_lead_on(world: World) -> None:
    world.write("{name: tool, source: pypi, package: tools, index: team-1}")
    world.place.variables[PASSWORD] = "wrong-one"
    done = world.place.run("lock", check=False)
    assert done.returncode == 1
    assert "[source-unavailable]" in done.stderr
    step = f"check the network, the URL of index 'team-1' in plugins.yaml, and its login: {USER} and {PASSWORD}"
    assert f"next: {step}\n" in done.stderr
    assert "wrong-one" not in done.stderr
    assert world.names() == (set(), set())
    world.place.variables[PASSWORD] = SECRET
    done = world.place.run("lock", check=False)
    assert done.returncode == 6
    assert "next: correct `package` or `index` of plugin 'tool' in plugins.yaml\n" in done.stderr
    world.write("{name: tool, source: pypi, package: tool, index: team-1}")
    world.place.run("lock")
    assert world.place.versions == {"tool": "7.0"}


def test_netrc_has_the_login_where_no_variable_has_it(world: World) -> None:
    del world.place.variables[USER], world.place.variables[PASSWORD]
    netrc = world.place.home / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login ada password {SECRET}\n")
    netrc.chmod(0o600)
    world.write(TINY_THERE)
    world.place.run("lock")
    assert world.place.versions == {"tiny": "1.0", "tool": "1.0"}


def test_another_index_in_plugins_yaml_makes_the_lock_out_of_date(world: World) -> None:
    world.write(TINY_THERE)
    world.place.run("lock")
    world.place.write(world.place.manifest.read_text().replace("/own-index/", "/elsewhere/"))
    assert world.place.run("sync", check=False).returncode == 3
