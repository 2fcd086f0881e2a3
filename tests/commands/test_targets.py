"""One lock for several environments: ``targets`` of plugins.yaml."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from typing import TYPE_CHECKING, Any

from tests.kit import pep751, projects, snapshots

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHER = "3.13" if HERE == "3.12" else "3.12"
POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
MODULES = {"tiny.py": "def register():\n    pass\n"}
MANIFEST = """
plugins:
  - {name: tiny, source: pypi, package: tiny}
targets:
  - {name: dev, base: here}
  - {name: production, base: production.json}
"""


def snapshot(place: Place, name: str = "production.json", **versions: str) -> Path:
    """This environment's, as another Python on another processor would have written it."""
    return snapshots.write(place, place.config / name, OTHER, versions)


def platform_wheels(index: Index, name: str, version: str = "1.0", **fields: Any) -> None:
    """A release with a wheel for this Python and machine, and one for the other."""
    here = f"cp{HERE.replace('.', '')}"
    there = f"cp{OTHER.replace('.', '')}"
    wheel = index.wheel(name, version, **fields)
    for tag in (f"{here}-{here}-manylinux_2_17_x86_64", f"{there}-{there}-manylinux_2_28_aarch64"):
        shutil.copyfile(wheel, wheel.with_name(f"{name}-{version}-{tag}.whl"))
    wheel.unlink()


def test_one_lock_serves_two_kinds_of_machine(place: Place, index: Index) -> None:
    snapshot(place)
    platform_wheels(index, "core")
    index.wheel("shared")
    index.wheel("only_here")
    index.wheel("only_there")
    requires = [
        "shared",
        "core",
        f"only-here; python_version == '{HERE}'",
        "only-there; platform_machine == 'aarch64'",
        "vllm>=0.30",
    ]
    index.wheel("tiny", requires=requires, entry_points=POINTS, modules=MODULES)
    place.write(MANIFEST)
    done = place.run("lock")
    assert "1 plugin for 2 targets (dev: 4 packages, production: 4 packages)" in done.stdout
    pep751.read(place.locked)

    assert place.run("lock").stdout == "plugins.lock is up to date: nothing to do\n"
    place.run("lock", "--check")
    place.run("sync")
    place.run("status")
    place.run("verify")
    assert {path.name for path in place.site.glob("*.dist-info")} == {
        f"{name}-1.0.dist-info" for name in ("tiny", "core", "shared", "only_here")
    }


def test_versions_are_shared_where_the_bases_allow_it(place: Place, index: Index) -> None:
    snapshot(place, vllm="0.33.0")
    index.wheel("dep", "1.0")
    index.wheel("dep", "2.0", requires=["vllm>=0.33"])
    index.wheel("tiny", requires=["dep"], entry_points=POINTS, modules=MODULES)
    place.write(MANIFEST)
    done = place.run("lock")
    assert [item["version"] for item in place.locked["packages"] if item["name"] == "dep"] == ["1.0"]
    assert "note: target production: dep 1.0 as in the other targets; 2.0 would fit, too\n" in done.stdout

    # A pin of one target alone is shown as such, and a diff names it.
    shutil.copyfile(place.lock, place.config / "before.lock")
    index.remove(index.directory / "dep" / "dep-1.0-py3-none-any.whl")
    index.wheel("dep", "0.9", requires=["vllm<0.33"])
    changed = place.run("upgrade").stdout
    assert "dep (dev)" in changed
    assert "dep (production)" in changed
    assert place.run("diff", place.config / "before.lock").stdout.startswith("package")
    assert sorted(item["version"] for item in place.locked["packages"] if item["name"] == "dep") == ["0.9", "2.0"]
    place.run("lock", "--check")
    assert "dep 2.0" in place.run("tree", "--target", "production").stdout
    assert "dep===0.9" in place.run("export", "--format", "requirements").stdout
    assert "dep===2.0" in place.run("export", "--format", "requirements", "--target", "production").stdout
    pep751.read(tomllib.loads(place.run("export", "--format", "pylock").stdout))


def test_targets_that_were_locked_on_two_machines_are_merged(place: Place, index: Index) -> None:
    snapshot(place)
    index.wheel("tiny", entry_points=POINTS, modules=MODULES)
    project = projects.project(place.config / "mine", name="mine")
    place.write(MANIFEST.replace("plugins:\n", "plugins:\n  - {name: mine, source: local, path: mine}\n"))
    place.run("lock")
    whole = place.lock.read_bytes()
    place.lock.unlink()

    there = place.config / "there"
    there.mkdir()
    done = place.run("lock", "--target", "production")
    assert "note: target dev is not in the lock yet: lock it with --target dev\n" in done.stdout
    refused = place.run("sync", check=False)
    assert refused.returncode == 5
    assert f"  expected: production (Python {OTHER} on linux-aarch64)\n" in refused.stderr
    assert "[target-missing]" in refused.stderr
    place.lock.rename(there / "plugins.lock")
    place.wheels.rename(there / "plugins.wheels")
    place.run("lock", "--target", "dev")
    (wheel,) = (there / "plugins.wheels").iterdir()
    wheel.rename(there / wheel.name)
    missing = place.run("lock", "--merge", there / "plugins.lock", check=False)
    assert (missing.returncode, wheel.name in missing.stderr) == (1, True)
    (there / wheel.name).rename(wheel)
    place.run("lock", "--merge", there / "plugins.lock")
    assert place.lock.read_bytes() == whole
    place.run("sync")

    place.write(MANIFEST)
    stale = place.run("lock", "--merge", there / "plugins.lock", check=False)
    assert stale.returncode == 3

    # A build that fits this machine only is refused for the other target, with the way to go on.
    backend = project / "backend.py"
    tag = f"cp{HERE.replace('.', '')}"
    backend.write_text(backend.read_text().replace("py3-none-any", f"{tag}-{tag}-linux_x86_64"))
    place.write(MANIFEST.replace("plugins:\n", "plugins:\n  - {name: mine, source: local, path: mine}\n"))
    foreign = place.run("lock", check=False)
    assert foreign.returncode == 1
    assert "run vllm-plugins lock --target production on a machine of that kind" in foreign.stderr
    place.run("lock", "--target", "dev")


def test_targets_of_the_command_line_make_the_same_lock(place: Place, index: Index) -> None:
    """But for the hash of the manifest, which has none."""

    def lock(*words: str, code: int = 0) -> str:
        done = place.run("lock", *words, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    snapshot(place, vllm="0.33.0")
    index.wheel("dep", "1.0")
    index.wheel("dep", "2.0", requires=["vllm>=0.33"])
    index.wheel("tiny", requires=["dep"], entry_points=POINTS, modules=MODULES)
    place.write(MANIFEST)
    lock()
    whole = place.locked
    place.lock.unlink()
    place.write(MANIFEST.partition("targets:")[0])

    here, there = ("--target", "dev=here"), ("--target", f"production={place.config / 'production.json'}")
    assert "1 plugin for 2 targets (dev: 2 packages, production: 2 packages)" in lock(*here, *there)
    made = place.locked
    for document in (whole, made):
        del document["tool"]["vllm-plugins"]["manifest-sha256"], document["tool"]["vllm-plugins"]["content-sha256"]
    assert made == whole
    place.run("sync")
    place.run("status")
    assert lock(*here, *there).startswith("plugins.lock is up to date: nothing to do\n")
    lock("--check", *here, *there)
    lock("--check", *there)  # the others stay as they are
    shutil.copyfile(place.lock, place.config / "other.lock")
    lock("--merge", str(place.config / "other.lock"))

    # Without the options, nothing says what the other targets are: their lock is not replaced.
    before = place.lock.read_bytes()
    for words in ([], ["--check"], ["--upgrade"]):
        said = lock(*words, code=2)
        assert "  expected: --target dev=BASE --target production=BASE\n" in said
    assert "next: give each --target a name of its own" in lock(*here, "--target", "dev=x.json", code=2)
    for word in ("=here", "a b=here", "dev=", "dev=vllm==0.33.0,python=3"):
        assert "next: give the target a name and a base" in lock("--target", word, code=2)
    assert "next: leave --base out" in lock(*here, "--base", "here", code=2)
    said = lock("--target", "dev=here,python=3.99", code=2)
    assert "this one on a machine of its kind; or correct `python` in --target" in said
    assert place.lock.read_bytes() == before
    lock("--base", "here")
    lock("--check")


def test_the_next_steps_of_targets_lead_on(place: Place) -> None:
    """Each message is met in its state, and its next step is taken there."""

    def refused(words: list[str], message: str, *, code: int = 2) -> None:
        done = place.run(*words, check=False)
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr

    other = snapshot(place)
    place.write("plugins: []\n")
    refused(
        ["lock", "--target", "dev"], "next: give its base, as in --target dev=here, or add `targets` to plugins.yaml"
    )
    place.run("lock")
    production = "plugins: []\ntargets:\n  - {name: production, base: production.json}\n"
    place.write(production)
    refused(["lock", "--base", "production.json"], "next: leave --base out: each target names its base")
    refused(["lock", "--target", "dev"], "next: name one of these with --target")
    place.run("lock", "--target", "production")
    refused(["lock", "--check", "--merge", "x.lock"], "next: vllm-plugins lock --merge x.lock")
    refused(["tree"], "next: add a target for this environment to plugins.yaml", code=5)
    refused(["tree", "--target", "dev"], "next: name one of these with --target")
    place.run("tree", "--target", "production")
    refused(["lock", "--target", "dev=here"], "next: give --target a name alone, or add the target to plugins.yaml")
    place.write(production + "  - {name: dev, base: here, python: '3.99'}\n")
    refused(["lock"], "next: lock the other targets with --target, and this one on a machine of its kind; or correct")
    place.run("lock", "--target", "production")
    place.write(production + "  - {name: mac, base: vllm==0.32.0, platform: macosx-14.0-arm64}\n")
    refused(["lock"], "next: name a snapshot as `base`, which vllm-plugins base -o base.json writes there")
    place.write(
        production + f"  - {{name: mac, base: {other.name}, python: '{OTHER}'}}\n  - {{name: dev, base: here}}\n"
    )
    place.run("lock")
    place.run("sync")


def test_outdated_packages_of_a_target_are_reported(place: Place, index: Index) -> None:
    snapshot(place, vllm="0.33.0")
    index.wheel("tiny", requires=["vllm>=0.30"], entry_points=POINTS, modules=MODULES)
    place.write(MANIFEST)
    place.run("lock")
    index.wheel("tiny", "2.0", requires=["vllm>=0.33"], entry_points=POINTS, modules=MODULES)

    def tiny(*words: str) -> tuple[Any, ...]:
        data = place.run("outdated", "--json", *words).json
        (item,) = data["packages"]
        assert data["notes"] == []
        return item["current"], item["fits"], item["newest"], *(reason["text"] for reason in item["kept_back"])

    kept = "requires vllm>=0.33; the base has vllm 0.32.0"
    assert tiny() == tiny("--target", "dev") == ("1.0", "1.0", "2.0", kept)
    # The targets share a version where they can.
    together = "fits by itself, but not together with the rest of the lock"
    assert tiny("--target", "production") == ("1.0", "1.0", "2.0", together)
    done = place.run("outdated", "--target", "nowhere", check=False)
    assert (done.returncode, "name one of these with --target" in done.stderr) == (2, True)


def test_outdated_needs_a_lock_of_the_targets_of_the_manifest(place: Place, index: Index) -> None:
    index.wheel("tiny", entry_points=POINTS, modules=MODULES)
    place.pypi("tiny")
    place.run("lock")
    snapshot(place)
    place.write(MANIFEST)
    done = place.run("outdated", check=False)
    assert done.returncode == 3
    assert (
        "the lock is out of date: plugins.yaml has targets, and the lock has none [lock-out-of-date]" in done.stderr
    )
    place.run("lock")
    place.run("outdated")


def test_targets_that_markers_can_not_tell_apart_are_refused(place: Place, index: Index) -> None:
    data: dict[str, Any] = place.run("base").json
    for item in data["distributions"]:
        item["version"] = {"vllm": "0.33.0"}.get(item["name"], item["version"])
    (place.config / "newer.json").write_text(json.dumps(data))
    index.wheel("dep", "2.0", requires=["vllm>=0.33"])
    index.wheel("dep", "1.0", requires=["vllm<0.33"])
    index.wheel("tiny", requires=["dep"], entry_points=POINTS, modules=MODULES)
    manifest = MANIFEST.replace("production.json", "newer.json")
    place.write(manifest)
    refused = place.run("lock", check=False)
    assert refused.returncode == 2
    assert "  dev and production: dep 1.0 and 2.0\n" in refused.stderr
    assert "next: move one of the targets to a plugins.yaml of its own" in refused.stderr
    place.write("\n".join(line for line in manifest.splitlines() if "newer" not in line))
    place.run("lock")
