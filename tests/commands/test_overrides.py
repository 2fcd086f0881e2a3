"""``overrides:`` of plugins.yaml: packages of the vLLM environment that plugins have in another version."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.kit import vllm
from tests.kit.long import long
from tests.kit.place import Place
from vllm_plugins.install import link

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.templates import Templates

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
# A plugin that writes down the version that it meets.
TINY = "import transformers\n\n\ndef register():\n    print('met', transformers.VERSION)\n"
MANIFEST = """
    plugins:
      - {name: tiny, source: pypi, package: tiny}
    overrides:
      - {package: Transformers, version: ">=5.20", reason: a model of next week}
"""
FRONT = "site/in-front"


@pytest.fixture
def world(tmp_path: Path, index: Index, base: Path, cached: Path) -> Place:
    """A base with a transformers that can be imported, and a plugin that requires a newer one."""
    vllm.distribution(base, "transformers", "4.57.1", modules={"transformers/__init__.py": "VERSION = 'old'\n"})
    vllm.distribution(base, "vllm", "0.32.0", requires=["transformers>=4.56,<5"], modules={"vllm/__init__.py": ""})
    for version in ("5.19", "5.20"):
        modules = {"transformers/__init__.py": "VERSION = 'new'\n"}
        index.wheel("transformers", version, requires=["tokens"], modules=modules)
    index.wheel("tokens", "1.0")
    index.wheel("tiny", "1.0", requires=["transformers>=5"], entry_points=POINTS, modules={"tiny.py": TINY})
    place = Place(root=tmp_path, index_url=index.url, paths=(base,), resolver="uv", cached=cached)
    place.write(MANIFEST)
    return place


@pytest.fixture
def synced(world: Place, index: Index, templates: Templates) -> Place:
    def make() -> None:
        world.run("lock")
        world.run("sync")

    return templates.fill(world, index, make)


def front(place: Place) -> Path:
    (overlay,) = place.overlays
    return overlay / FRONT


def start(place: Place, code: str = "", **env: str) -> str:
    """A process that runs some code, and then calls the hook as vLLM does."""
    lines = f"{code}\nfrom vllm_plugins.startup import hook\nhook.general()\n"
    done = place.python("-c", lines, env=env, check=False, traceback=True)
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
def test_a_lock_says_what_it_overrides_and_who_requires_the_old_version(world: Place, resolver: str) -> None:
    done = world.run("lock", "--resolver", resolver)
    assert world.versions == {"tiny": "1.0", "tokens": "1.0", "transformers": "5.20"}
    assert (
        "note: transformers 5.20 overrides 4.57.1 of the vLLM environment: a model of next week; "
        "vllm requires transformers<5,>=4.56\n"
    ) in done.stdout
    assert world.locked["tool"]["vllm-plugins"]["overrides"] == [
        {
            "package": "transformers",
            "version": "5.20",
            "replaces": "4.57.1",
            "requested": "Transformers>=5.20",
            "reason": "a model of next week",
            "against": [{"name": "vllm", "specifier": "<5,>=4.56"}],
        }
    ]
    assert world.run("lock", "--check").stdout.startswith("plugins.lock is up to date")


def test_an_override_alone_is_locked(world: Place) -> None:
    world.write(MANIFEST.replace("\n      - {name: tiny, source: pypi, package: tiny}", " []"))
    world.run("lock")
    assert world.versions == {"tokens": "1.0", "transformers": "5.20"}
    world.run("sync")
    assert [path.name for path in front(world).glob("*.dist-info")] == ["transformers-5.20.dist-info"]


def test_an_overlay_has_overrides_in_a_directory_of_their_own_and_the_base_is_unchanged(
    synced: Place, base: Path
) -> None:
    assert sorted(path.name for path in front(synced).iterdir()) == ["transformers", "transformers-5.20.dist-info"]
    assert (front(synced).parent / "tiny.py").exists()
    assert not (front(synced).parent / "transformers").exists()
    assert (base / "transformers/__init__.py").read_text() == "VERSION = 'old'\n"
    assert synced.run("verify").returncode == 0
    synced.run("lock", "--check")


def test_a_process_that_has_not_imported_the_old_one_meets_the_new_one(synced: Place) -> None:
    child = "[sys.executable, '-c', 'import transformers as t; print(t.VERSION)']"
    out = start(synced, f"import atexit, subprocess, sys\natexit.register(lambda: subprocess.run({child}))")
    assert "met new" in out
    assert "\nnew\n" in out
    assert "met new" in start(synced, VLLM_PLUGIN_VERIFY="1")


def test_a_baked_link_puts_overrides_in_front_of_every_process(synced: Place, tmp_path: Path) -> None:
    directory = tmp_path / "site"
    directory.mkdir()
    link.write(synced.store, front(synced).parents[1].name, [str(directory)])
    out = start(synced, f"import site\nsite.addsitedir({str(directory)!r})\nimport transformers")
    assert "met" not in out  # vLLM, which has inherited the path, lists and calls the plugin itself
    assert out.startswith("0\n")
    read = "import site, sys\nsite.addsitedir(sys.argv[1])\nimport transformers\nprint(transformers.VERSION)"
    assert synced.python("-c", read, directory).stdout == "new\n"


def test_a_process_that_has_imported_the_old_one_stops(synced: Place) -> None:
    out = start(synced, "import transformers")
    assert "[override-inactive]" in out
    assert (
        "transformers of the vLLM environment was imported before the lock's overrides could be put in front" in out
    )
    assert f"next: start it with vllm-plugins run, or with PYTHONPATH={front(synced)}; or run vllm-plugins" in out
    going_on = start(synced, "import transformers", VLLM_PLUGIN_ON_ERROR="continue")
    assert going_on.startswith("0\n")
    assert "going on without plugins" in going_on


def test_run_puts_overrides_in_front_of_the_first_import(synced: Place) -> None:
    code = "import transformers\nprint(transformers.VERSION)\nfrom vllm_plugins.startup import hook\nhook.general()"
    done = synced.run("run", "--", synced.interpreter, "-c", code, fresh=True)
    assert done.stdout.startswith("new\n")


def test_the_path_in_the_message_helps(synced: Place) -> None:
    path = f"{front(synced)}:{synced.environment['PYTHONPATH']}"
    out = start(synced, "import transformers", PYTHONPATH=path)
    assert "met new" in out
    assert out.startswith("0\n")


def test_the_path_of_another_lock_is_refused(synced: Place) -> None:
    path = f"{front(synced)}:{synced.environment['PYTHONPATH']}"
    synced.write(MANIFEST.replace("next week", "last week"))
    synced.run("lock")
    synced.run("sync")
    out = start(synced, "import transformers", PYTHONPATH=path, VLLM_PLUGIN_ON_ERROR="continue")
    assert "the overrides of another lock are in front of the vLLM environment in this process" in out
    assert "VLLM_PLUGIN_ON_ERROR=continue has no effect" in out
    assert not out.startswith("0\n")


def test_every_command_shows_overrides(synced: Place, tmp_path: Path) -> None:
    status = synced.run("status")
    assert "override: transformers 5.20 for 4.57.1 of the vLLM environment: a model of next week" in status.stdout
    assert synced.run("status", "--json").json["overrides"][0]["replaces"] == "4.57.1"
    audit = synced.run("audit", "--json", env={"VLLM_PLUGIN_OFFLINE": "1"}, check=False).json
    (finding,) = [item for item in audit["findings"] if item["check"] == "override"]
    assert (finding["level"], finding["package"]) == ("warn", "transformers")
    assert "vllm of it requires <5,>=4.56" in finding["what"]
    bom = json.loads(synced.run("export", "--format", "cyclonedx").stdout)
    (component,) = [item for item in bom["components"] if item["name"] == "transformers"]
    assert {"name": "vllm-plugins:overrides", "value": "transformers 4.57.1 of the vLLM environment"} in component[
        "properties"
    ]
    page = tmp_path / "page.html"
    audited = synced.run("audit", "--html", page, env={"VLLM_PLUGIN_OFFLINE": "1"}, check=False)
    assert f"Wrote the report: {page}\n" in audited.stderr
    assert '<span class="tag fail">✖ overrides</span>' in page.read_text(encoding="utf-8")


def test_another_version_in_the_base_than_the_overridden_one_is_locked_again(synced: Place, base: Path) -> None:
    (base / "transformers-4.57.1.dist-info").rename(base / "~ransformers-4.57.1.dist-info")
    vllm.distribution(base, "transformers", "4.58")
    done = synced.run("sync", check=False)
    assert done.returncode == 5
    assert "  transformers 5.20 overrides 4.57.1 of the base; the base has 4.58\n" in done.stderr
    synced.run("lock")
    synced.run("sync")


def test_an_override_that_the_base_satisfies_has_no_effect_and_says_so(world: Place, base: Path) -> None:
    (base / "transformers-4.57.1.dist-info").rename(base / "~ransformers-4.57.1.dist-info")
    vllm.distribution(base, "transformers", "5.21")
    done = world.run("lock")
    assert world.versions == {"tiny": "1.0"}
    assert (
        "note: the override of Transformers has no effect: the vLLM environment has transformers 5.21" in done.stdout
    )


def test_what_vllm_is_compiled_against_can_not_be_overridden(world: Place) -> None:
    for package in ("torch", "vllm", "Triton", "nvidia-cublas-cu12"):
        world.write(f"plugins: []\noverrides:\n  - {{package: {package}, version: '>=9', reason: speed}}\n")
        done = world.run("lock", check=False)
        assert done.returncode == 2
        assert f"'{package}' can't be overridden: vLLM is compiled against the torch, Triton and CUDA" in done.stderr


def test_an_override_needs_package_version_and_reason(world: Place) -> None:
    world.write("plugins: []\noverrides:\n  - {package: transformers, verion: '>=5'}\n  - x\n")
    done = world.run("lock", check=False)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "overrides[" in line]
    assert len(lines) == 4
    world.write("plugins: []\noverrides: transformers\n")
    assert "overrides: expected a list of mappings" in world.run("lock", check=False).stderr


def test_without_an_override_the_error_says_what_to_write(world: Place) -> None:
    world.write("plugins:\n  - {name: tiny, source: pypi, package: tiny}\n")
    done = world.run("lock", "-q", check=False)
    assert done.returncode == 6
    assert (
        'or, to have another version in front of it, write the line `overrides: [{package: transformers, version: ">=5", '
        "reason: plugins require it}]` in plugins.yaml"
    ) in done.stderr
    world.write("plugins:\n  - {name: tf, source: pypi, package: transformers, version: '>=5.20'}\n")
    done = world.run("lock", "-q", check=False)
    assert done.returncode == 5
    assert (
        'write the line `overrides: [{package: transformers, version: ">=5.20", reason: plugins require it}]` in plugins.yaml'
        in done.stderr
    )
    assert "uninstall" not in done.stderr


@pytest.mark.parametrize("locale", ["C", *long("C.UTF-8")])
def test_the_proposed_line_can_be_pasted(world: Place, locale: str) -> None:
    world.write("plugins:\n  - {name: tiny, source: pypi, package: tiny}\n")
    env = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = world.run("lock", check=False, env=env, fresh=True)
    line = done.stderr.partition("write the line `")[2].partition("` in plugins.yaml")[0]
    assert line.isascii()
    with world.manifest.open("a") as manifest:
        manifest.write(f"{line}\n")
    world.run("lock")
    assert world.versions["transformers"] == "5.20"
    shown = world.run("status", check=False).stdout
    assert "override: transformers 5.20 for 4.57.1 of the vLLM environment: plugins require it\n" in shown


def test_a_message_about_an_override_does_not_call_it_a_plugin(world: Place) -> None:
    world.write(MANIFEST.replace(">=5.20", ">=9"))
    done = world.run("lock", "-q", check=False)
    assert done.returncode == 6
    assert (
        "the override of 'transformers': plugins.yaml requires transformers>=9; no release satisfies >=9"
        in done.stderr
    )
    assert "next: change `version` of the override of 'transformers' in plugins.yaml\n" in done.stderr
    assert "plugin 'override" not in done.stderr


def test_an_override_with_which_vllm_does_not_import_is_refused(world: Place, base: Path) -> None:
    (base / "vllm/__init__.py").write_text("import transformers\nassert transformers.VERSION == 'old'\n")
    world.run("lock")
    done = world.run("sync", check=False)
    assert done.returncode == 7
    assert "vLLM can't be imported with the overrides of plugins.yaml [plugin-load-failed]" in done.stderr
    assert "  found: transformers 5.20 for 4.57.1\n" in done.stderr
    assert "  vllm: AssertionError" in done.stderr
    assert world.run("status", check=False).returncode != 0
