"""What ``lock`` says of plugins that can't be locked, or not at their newest release, with either resolver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import tomlkit

from tests.kit import projects
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
BOTH = pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
POINTS = {"vllm.general_plugins": {"it": "it:register"}}


def failure(place: Place, code: int, *words: str) -> list[str]:
    """The lines of the error of a lock that fails."""
    done = place.run("lock", "-q", *words, check=False)
    assert done.returncode == code, done.stderr
    assert not place.lock.exists()
    return done.stderr.removeprefix("vllm-plugins: error: ").splitlines()


@BOTH
def test_every_unfit_plugin_is_reported_in_one_run(place: Place, index: Index, resolver: str) -> None:
    index.wheel("mac", tag="cp312-cp312-macosx_11_0_arm64")
    index.wheel("future", requires_python=">=3.99")
    index.wheel("near", requires=["middle>=1"])
    index.wheel("middle", requires=["absent==9.9"])
    index.wheel("far", "1.0", requires=["deep<2"])
    index.wheel("far", "2.0", requires=["deep>=1"])
    index.wheel("deep", requires=["transformers<4"])
    index.wheel("good", requires=["vllm>=0.20"])
    place.pypi("mac", "future", "near", "far", "good")
    lines = failure(place, 6, "--resolver", resolver)
    assert lines[0] == "the plugins 'mac', 'future', 'near', 'far' do not fit this environment [no-resolution]"
    assert lines[1].startswith("  plugin 'mac': mac 1.0 has only wheels for cp312 macosx_11_0_arm64; the base is")
    assert lines[2].startswith("  plugin 'future': future 1.0 requires Python >=3.99; the base has Python 3.")
    assert lines[3] == (
        "  plugin 'near': near 1.0 → middle 1.0 requires absent==9.9; no index has a distribution of this name"
    )
    assert lines[4] == (
        "  plugin 'far': far 2.0 → deep 1.0 requires transformers<4; the base has transformers 4.57.1 "
        "(the same or another reason rules out 1 other release)"
    )
    assert "set `enabled: false` for the plugins 'mac', 'future', 'near', 'far' in plugins.yaml" in lines[-1]
    names = ("mac", "future", "near", "far", "good")
    entries = [{"name": name, "source": "pypi", "package": name, "enabled": name == "good"} for name in names]
    place.write(json.dumps({"plugins": entries}))
    place.run("lock", "-q", "--resolver", resolver)
    assert place.versions == {"good": "1.0"}


@BOTH
def test_a_placeholder_is_refused_until_version_accepts_it(place: Place, index: Index, resolver: str) -> None:
    index.wheel("back", "0.0.0")
    index.wheel("back", "2.0", requires=["vllm<0.30"], entry_points=POINTS)
    place.pypi("back")
    lines = failure(place, 6, "--resolver", resolver)
    assert lines[1:3] == [
        "  plugin 'back': back 0.0.0 has no entry points of vLLM, and back 2.0 has: it may be a placeholder",
        "    passed over: back 2.0: requires vllm<0.30; the base has vllm 0.32.0",
    ]
    assert (
        lines[-1] == "  next: set `enabled: false` for plugin 'back', or use another environment"
    )  # not the placeholder
    place.pypi("back==0.0.0")
    done = place.run("lock", "-q", "--resolver", resolver)
    assert "note: plugin 'back' is locked at back 0.0.0; the newest release is 2.0" in done.stdout
    assert place.plugin("back")["passed-over"] == "2.0"
    index.wheel("back", "3.0", requires=["vllm<0.30"], entry_points=POINTS)
    assert place.run("lock", "--check", "-q").returncode == 0


@BOTH
def test_a_placeholder_is_reported_in_the_same_run_as_plugins_that_do_not_fit(
    place: Place, index: Index, resolver: str
) -> None:
    index.wheel("back", "0.0.0")
    index.wheel("back", "2.0", requires=["vllm<0.30"], entry_points=POINTS)
    index.wheel("near", requires=["vllm<0.30"], entry_points=POINTS)
    place.pypi("back", "near")
    text = "\n".join(failure(place, 6, "--resolver", resolver))
    assert "plugin 'near': near 1.0 requires vllm<0.30" in text
    assert "plugin 'back': back 0.0.0 has no entry points of vLLM" in text


@BOTH
def test_a_release_that_requires_a_url_is_passed_over_and_not_fetched(
    place: Place, index: Index, resolver: str
) -> None:
    index.wheel("demo", requires=["helper"], entry_points=POINTS)
    index.wheel("helper", "1.0")
    index.wheel("helper", "2.0", requires=["other @ git+https://example.invalid/other"])
    index.wheel("silent", "1.0", entry_points=POINTS)
    index.wheel("silent", "2.0", requires=["other @ git+https://example.invalid/other"], entry_points=POINTS)
    place.pypi("demo")
    place.run("lock", "-q", "--resolver", resolver)
    assert place.versions == {"demo": "1.0", "helper": "1.0"}
    place.lock.unlink()
    place.pypi("silent")
    text = "\n".join(failure(place, 6, "--resolver", resolver))
    assert "passed over: silent 2.0: requires other by URL: git+https://example.invalid/other" in text


@BOTH
def test_a_missing_directory_of_links_is_as_an_empty_one(place: Place, index: Index, resolver: str) -> None:
    index.wheel("demo", entry_points=POINTS)
    place.pypi("demo")
    place.run("lock", "-q", "--resolver", resolver, env={"PIP_FIND_LINKS": str(place.config / "absent")})
    assert place.versions == {"demo": "1.0"}


@BOTH
def test_a_plugin_whose_wheel_can_not_be_read_again_is_not_reported_as_unfit(
    place: Place, index: Index, resolver: str
) -> None:
    wheel = index.wheel("demo", entry_points=POINTS)
    place.pypi("demo")
    place.run("lock", "-q", "--resolver", resolver)  # its metadata is in our cache from now on
    place.lock.unlink()
    wheel.write_bytes(b"log in")
    done = place.run("lock", "-q", "--resolver", resolver, check=False)
    assert done.returncode in (1, 4), done.stderr


@BOTH
def test_a_plugin_that_follows_vllm_is_locked_at_the_release_for_this_one(
    place: Place, index: Index, resolver: str
) -> None:
    for minor in range(30, 36):
        index.wheel("follower", f"0.{minor}.1", requires=[f"vllm==0.{minor}.0"], entry_points=POINTS)
    place.pypi("follower")
    done = place.run("lock", "-q", "--resolver", resolver, "--json")
    assert place.versions == {"follower": "0.32.1"}
    (note,) = done.json["notes"]
    assert "the newest release is 0.35.1" in note
    assert "follower 0.33.1: requires vllm==0.33.0; the base has vllm 0.32.0" in note
    place.pypi("follower")
    assert place.run("lock", "--check", "-q").returncode == 0


@BOTH
def test_a_repository_that_a_dependency_names_is_not_run(place: Place, index: Index, resolver: str) -> None:
    index.wheel("unrelated")
    trace = place.root / "ran"
    other = place.root / "other"
    other.mkdir()
    (other / "setup.py").write_text(f"open({str(trace)!r}, 'w')\nfrom setuptools import setup\nsetup(name='other')\n")
    repository = Repository.init(other)
    repository.git("add", ".")
    repository.git("commit", "--quiet", "-m", "first")
    index.wheel("middle", requires=[f"other @ git+{repository.url}"])
    projects.project(place.config / "plug", name="plug", requires=["middle"])
    place.write("plugins:\n  - {name: plug, source: local, path: plug}\n")
    lines = failure(place, 6, "--resolver", resolver)
    assert lines[1].startswith("  plugin 'plug': plug 1.0 → middle 1.0 requires other by URL: git+file:")
    assert not trace.exists()


def old_sdist(directory: Path, *requires: str) -> None:
    """An sdist whose build requires something of its own."""
    path = projects.sdist(directory, "old", "0.1", modules={"old.py": ""})
    unpacked = directory / "unpacked"
    subprocess.run(["tar", "-xf", path, "--one-top-level=unpacked"], cwd=directory, check=True)
    (project,) = unpacked.iterdir()
    document = tomlkit.parse((project / "pyproject.toml").read_text())
    document["build-system"]["requires"] = list(requires)
    (project / "pyproject.toml").write_text(tomlkit.dumps(document))
    subprocess.run(["tar", "-czf", path, "-C", unpacked, project.name], check=True)
    subprocess.run(["rm", "-r", unpacked], check=True)


@BOTH
def test_an_old_sdist_behind_a_wheel_that_does_not_fit_is_not_built(
    place: Place, index: Index, resolver: str
) -> None:
    index.wheel("old", "1.0", requires=["vllm<0.30"])
    old_sdist(index.directory / "old", "torch==2.7.0")
    index.wheel("needs-old", requires=["old"])
    place.pypi("old", "needs-old")
    done = place.run("lock", "--resolver", resolver, check=False)
    assert done.returncode == 6
    assert "Building" not in done.stderr
    assert "plugin 'old': old 1.0 requires vllm<0.30; the base has vllm 0.32.0" in done.stderr
    assert "plugin 'needs-old': needs-old 1.0 → old 1.0 requires vllm<0.30" in done.stderr


def test_an_sdist_whose_build_requires_another_torch_is_refused_by_name(place: Place, index: Index) -> None:
    old_sdist(index.directory / "old", "torch==2.7.0")
    index.wheel("needs-old", requires=["old"])
    place.pypi("needs-old")
    lines = failure(place, 1)
    assert lines[0] == "the build of old 0.1 requires another torch than the base has [build-failed]"
    assert "  required by: plugin 'needs-old', through needs-old 1.0" in lines


def test_a_failed_build_of_an_sdist_names_the_sdist_the_plugin_and_the_module(place: Place, index: Index) -> None:
    path = index.sdist("broken")
    unpacked = place.root / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", path, "-C", unpacked], check=True)
    (project,) = unpacked.iterdir()
    (project / "backend.py").write_text("import a_module_that_is_absent\n")
    subprocess.run(["tar", "-czf", path, "-C", unpacked, project.name], check=True)
    index.wheel("demo", requires=["broken"])
    place.pypi("demo")
    lines = failure(place, 1)
    assert lines[0].startswith("the sdist of broken 1.0 can't be built: ")
    assert "  found: its build imports a_module_that_is_absent, which is not there" in lines
    assert "  required by: plugin 'demo', through demo 1.0" in lines
    assert lines[-1].endswith("set `enabled: false` for plugin 'demo' in plugins.yaml")


@BOTH
def test_resolving_builds_nothing_that_is_not_locked(place: Place, index: Index, resolver: str) -> None:
    trace = place.root / "built"
    index.sdist("helper", "1.0")
    index.wheel("helper", "2.0", requires=["torch<2"])
    index.wheel("helper", "1.5")
    index.sdist("helper", "3.0")
    index.wheel("demo", requires=["helper"])
    place.pypi("demo")
    done = place.run("lock", "--resolver", resolver)
    assert "Building" not in done.stderr
    assert place.versions == {"demo": "1.0", "helper": "1.5"}
    assert not trace.exists()


@BOTH
def test_an_index_that_can_not_be_read_is_not_an_empty_one(place: Place, resolver: str) -> None:
    place.pypi("demo")
    lines = failure_with(place, resolver, {"PIP_INDEX_URL": "http://127.0.0.1:9/simple/"})
    assert lines[0] == "the index can't be read [source-unavailable]"


def failure_with(place: Place, resolver: str, env: dict[str, str]) -> list[str]:
    done = place.run("lock", "-q", "--resolver", resolver, env=env, check=False)
    assert done.returncode == 1
    return done.stderr.removeprefix("vllm-plugins: error: ").splitlines()


def test_a_killed_resolver_leaves_nothing_behind_after_the_next_run(place: Place, index: Index) -> None:
    index.wheel("demo")
    place.pypi("demo")
    temporary = place.root / "temporary"
    temporary.mkdir()
    environment = {**place.environment, "TMPDIR": str(temporary)}
    words = [place.interpreter, "-m", "vllm_plugins", "lock", "-q"]
    with subprocess.Popen(words, env=environment, start_new_session=True) as process:
        while process.poll() is None and not list(temporary.glob("*/solve/resolve/tmp")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    place.lock.unlink(missing_ok=True)
    place.run("lock", "-q", env={"TMPDIR": str(temporary)})
    assert os.listdir(temporary) == []


@BOTH
@pytest.mark.parametrize("tag", ["py3-none-any;x", "py3-none-any x", "py3-none-'any'"])
def test_a_wheel_whose_name_can_not_be_locked_is_named_with_its_plugin(
    place: Place, index: Index, resolver: str, tag: str
) -> None:
    index.wheel("demo", requires=["odd"], entry_points=POINTS)
    odd = index.wheel("odd")
    odd.rename(odd.with_name(f"odd-1.0-{tag}.whl"))
    index.wheel("odd", "0.9").rename(odd.with_name(f"odd-0.9-{tag}.whl"))
    place.pypi("demo")
    lines = failure(place, 6, "--resolver", resolver)
    assert lines[0].startswith("plugin 'demo' does not fit this environment")
    index.wheel("odd", "0.8")
    odd.with_name(f"odd-0.8-cp39-{tag}.whl").write_bytes(b"of another machine")
    place.run("lock", "-q", "--resolver", resolver)
    assert place.versions == {"demo": "1.0", "odd": "0.8"}
    assert [wheel["name"] for wheel in place.package("odd")["wheels"]] == ["odd-0.8-py3-none-any.whl"]


@BOTH
def test_a_fitting_wheel_with_an_odd_name_is_passed_over_and_named(place: Place, index: Index, resolver: str) -> None:
    index.wheel("demo", requires=["odd"], entry_points=POINTS)
    index.wheel("odd", "1.0")
    odd = index.wheel("odd", "2.0")
    odd.rename(odd.with_name("odd-2.0-1;x-py3-none-any.whl"))
    place.pypi("demo")
    place.run("lock", "-q", "--resolver", resolver)
    assert place.versions == {"demo": "1.0", "odd": "1.0"}
    place.lock.unlink()
    index.wheel("demo", requires=["odd>1"], entry_points=POINTS)
    assert failure(place, 6, "--resolver", resolver)[1] == (
        "  plugin 'demo': demo 1.0 → odd 2.0 has a wheel whose file name is not valid: 'odd-2.0-1;x-py3-none-any.whl'"
    )
