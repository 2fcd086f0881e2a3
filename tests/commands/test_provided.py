"""Plugins whose package the vLLM environment has: used from there, with what their extras require."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects, vllm
from tests.kit.place import Place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index

MANIFEST = """
    plugins:
      - {name: sound, source: pypi, package: vllm, extras: [audio]}
      - {name: models, source: pypi, package: Transformers, version: ">=4.50"}
"""


@pytest.fixture
def own(tmp_path: Path, index: Index, base: Path, cached: Path) -> Place:
    """A base whose vLLM has extras: of ``audio``, the base has one package, and another extra is named."""
    extras = {
        "audio": ["soundfile>=1", "numbers-of>=2", "vllm[video]"],
        "video": ["frames"],
        "bench": ["pandas-like"],
    }
    vllm.distribution(base, "vllm", "0.32.0", requires=["transformers>=4.56"], extras=extras)
    vllm.distribution(base, "numbers-of", "2.5")
    index.wheel("soundfile", "1.2", requires=["cffi-like", "numbers-of"])
    index.wheel("cffi-like", "3.0")
    index.wheel("frames", "0.1")
    place = Place(root=tmp_path, index_url=index.url, paths=(base,), resolver="uv", cached=cached)
    place.write(MANIFEST)
    return place


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
def test_an_extra_of_the_base_locks_what_it_adds_and_nothing_else(own: Place, resolver: str) -> None:
    done = own.run("lock", "--resolver", resolver)
    assert own.versions == {"cffi-like": "3.0", "frames": "0.1", "soundfile": "1.2"}
    assert "note: plugin 'sound' is provided by the vLLM environment: vllm 0.32.0\n" in done.stdout
    sound, models = own.plugin("sound"), own.plugin("models")
    assert (sound["provided"], sound["version"], sound["requested"]) == (True, "0.32.0", "vllm[audio]")
    assert sound["dependencies"] == ["frames", "soundfile"]
    assert (models["provided"], models["version"]) == (True, "4.57.1")
    assert "dependencies" not in models
    (target,) = own.locked["tool"]["vllm-plugins"]["targets"]
    assert target["base"] == [
        {
            "name": "numbers-of",
            "version": "2.5",
            "required-by": [{"name": "plugin sound", "specifier": ">=2"}, {"name": "soundfile", "specifier": ""}],
        },
        {
            "name": "transformers",
            "version": "4.57.1",
            "required-by": [{"name": "plugin models", "specifier": ">=4.50"}],
        },
        {
            "name": "vllm",
            "version": "0.32.0",
            "required-by": [{"name": "plugin sound", "specifier": ""}],
        },
    ]
    assert own.run("lock", "--check").stdout.startswith("plugins.lock is up to date")
    assert own.run("lock").stdout == "plugins.lock is up to date: nothing to do\n"


def test_a_snapshot_of_the_base_has_the_extras(own: Place, bare_place: Place) -> None:
    own.run("lock")
    there = own.lock.read_bytes()
    own.run("base", "-o", own.root / "base.json")
    bare_place.run("lock", "--base", own.root / "base.json", "--upgrade")
    assert own.lock.read_bytes() == there


def test_every_command_says_who_provides_a_plugin(own: Place) -> None:
    own.run("lock")
    done = own.run("sync")
    assert "models 4.57.1 of the vLLM environment" in done.stdout
    rows = own.run("status").stdout.splitlines()
    assert " ".join(rows[2].split()) == "models pypi yes 4.57.1 provided yes those of the vLLM environment"
    assert "plugin 'models' is provided by the vLLM environment (transformers 4.57.1 when it was locked)" in (
        own.run("doctor", check=False).stdout
    )
    registry = own.registry["plugins"]
    assert (registry["models"]["status"], registry["models"]["version"]) == ("provided", "4.57.1")
    assert '"plugin sound" -> "soundfile"' in own.run("export", "--format", "dot").stdout
    assert '"plugin models" -> "base transformers" [label=">=4.50"' in own.run("export", "--format", "dot").stdout
    own.run("export", "--format", "cyclonedx")
    own.run("verify")


def test_a_base_that_no_longer_satisfies_the_manifest_is_refused(own: Place, base: Path) -> None:
    own.run("lock")
    own.run("sync")
    for path in base.glob("transformers-*"):
        path.rename(path.with_name("~" + path.name))
    vllm.distribution(base, "transformers", "4.40")
    done = own.run("sync", check=False)
    assert done.returncode == 5
    assert "  plugin models requires transformers>=4.50; the base has 4.40\n" in done.stderr


def test_extras_of_another_release_are_locked_again(own: Place, base: Path) -> None:
    own.run("lock")
    for path in base.glob("vllm-*"):
        path.rename(path.with_name("~" + path.name))
    vllm.distribution(base, "vllm", "0.33.0", extras={"audio": ["frames"]})
    done = own.run("sync", check=False)
    assert done.returncode == 5
    assert (
        "  plugin sound: what the extras audio require was locked for vllm 0.32.0; the base has 0.33.0\n"
        in done.stderr
    )
    own.run("lock")
    assert own.versions == {"frames": "0.1"}
    own.run("sync")


def test_a_locked_package_that_the_base_has_since_is_used_from_there(own: Place, base: Path, index: Index) -> None:
    index.wheel("late", "1.0")
    own.pypi("late")
    own.run("lock")
    assert own.versions == {"late": "1.0"}
    vllm.distribution(base, "late", "1.1")
    done = own.run("sync", check=False)
    assert done.returncode == 5
    assert done.stderr.endswith("next: vllm-plugins lock, in this environment\n")
    own.run("lock")
    assert own.versions == {}
    assert own.plugin("late")["version"] == "1.1"
    own.run("sync")


def test_an_extra_that_the_base_does_not_have_is_named(own: Place) -> None:
    own.write("plugins: [{name: sound, source: pypi, package: vllm, extras: [adio]}]")
    done = own.run("lock", "-q", check=False)
    assert done.returncode == 6
    assert done.stderr.splitlines()[:3] == [
        "vllm-plugins: error: vllm 0.32.0 of the vLLM environment has no extra adio [no-resolution]",
        "  expected: one of audio, bench, video",
        "  found: adio",
    ]


def test_what_an_extra_requires_and_no_index_has_is_named_with_its_path(own: Place) -> None:
    own.write("plugins: [{name: bench, source: pypi, package: vllm, extras: [bench]}]")
    done = own.run("lock", "-q", check=False)
    assert done.returncode == 6
    assert "  plugin 'bench': vllm 0.32.0 requires pandas-like; extra" in done.stderr
    assert "no index has a distribution of this name" in done.stderr
    assert "next: set `enabled: false` for plugin 'bench' in plugins.yaml" in done.stderr


def test_objects_that_vllm_loads_are_checked_in_the_base_too(own: Place, base: Path) -> None:
    vllm.distribution(base, "parsers", "1.0", modules={"parsers.py": "class Tool:\n    pass\n"})
    own.write("plugins: [{name: parsers, source: pypi, package: parsers, loads: ['parsers:Tool']}]")
    own.run("lock")
    own.run("sync")
    own.write("plugins: [{name: parsers, source: pypi, package: parsers, loads: ['parsers:Toool']}]")
    own.run("lock")
    done = own.run("sync", check=False)
    assert done.returncode == 7
    assert "parsers:Toool" in done.stderr


def test_a_plugin_from_a_source_that_the_base_has_too_is_refused(own: Place, base: Path) -> None:
    vllm.distribution(base, "tiny", "1.0")
    projects.project(own.root / "mine", name="tiny")
    own.write(f"plugins: [{{name: tiny, source: local, path: {own.root / 'mine'}}}]")
    done = own.run("lock", "-q", check=False)
    assert done.returncode == 5
    assert "plugin 'tiny' is tiny from its own source; the base has tiny 1.0, which comes first" in done.stderr
    assert "write `source: pypi` and `package: tiny` for plugin 'tiny'" in done.stderr
    assert "next: to use its own source, run `python -m pip uninstall tiny` with the Python of vLLM" in done.stderr
    vllm.distribution(base, "needy", "1.0", requires=["Tiny>=1"])
    assert "uninstall" not in own.run("lock", "-q", check=False).stderr
    for name in ("tiny", "needy"):
        shutil.rmtree(base / f"{name}-1.0.dist-info")
        shutil.rmtree(base / name)
    own.run("lock")


def test_a_source_directory_on_pythonpath_is_named_where_a_build_has_left_its_metadata(place: Place) -> None:
    """pip can't uninstall what is there, and each build of the editable plugin writes it again."""
    project = projects.project(place.config / "tiny", name="tiny")
    (project / "src/tiny.egg-info").mkdir()
    (project / "src/tiny.egg-info/PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    place.write("plugins:\n  - {name: tiny, source: local, path: tiny, editable: true}\n")
    done = replace(place, paths=(project / "src", *place.paths)).run("lock", "-q", check=False)
    assert done.returncode == 5
    step = f"take {project / 'src'} out of PYTHONPATH, as tiny.egg-info of a build is there, and lock again; "
    assert f"  next: to use its own source, {step}" in done.stderr
    place.run("lock")
    place.run("sync")
