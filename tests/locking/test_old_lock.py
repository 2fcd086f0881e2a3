from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from tests.kit.repositories import Repository
from vllm_plugins.core import hashes
from vllm_plugins.core.errors import LockInvalid
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import base, lock_reader, lock_writer
from vllm_plugins.documents.lock import BaseUse, BuildRequirement, CommitSha, Lock, Package, Plugin, Target, Wheel
from vllm_plugins.locking import old_lock
from vllm_plugins.locking.old_lock import OldLock, Reuse
from vllm_plugins.locking.request import Upgrade
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = canonicalize_name
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
COMMIT = "c" * 40


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"VLLM_PLUGIN_CONFIG": str(tmp_path / "plugins.yaml")})


def package(name: str, version: str = "1.0", needs: tuple[str, ...] = ()) -> Package:
    filename = f"{name}-{version}-py3-none-any.whl"
    wheel = Wheel(filename=filename, sha256=Sha256(f"{len(name):064}"), size=1, url=f"https://example.org/{filename}")
    return Package(name=NAME(name), version=version, wheels=(wheel,), dependencies=tuple(map(NAME, needs)))


def plugin(name: str, version: str = "1.0", *, commit: str | None = None) -> Plugin:
    url = None if commit is None else f"https://example.org/{name}.git"
    return Plugin(
        name=name,
        source="pypi" if commit is None else "git",
        package=NAME(name),
        version=version,
        requested=name if commit is None else "main",
        url=url,
        commit=None if commit is None else CommitSha(commit),
    )


def lock(packages: Mapping[str, str], *plugins: Plugin, digest: str = "a") -> Lock:
    use = BaseUse(name=NAME("torch"), version="2.13.0", required_by=(("demo", ">=2"),))
    return Lock(
        manifest_sha256=Sha256(digest * 64),
        packages=tuple(package(name, version) for name, version in sorted(packages.items())),
        plugins=plugins,
        targets=(Target(python=PYTHON, platform="linux-x86_64", vllm="0.32.0", base=(use,)),),
    )


def merged(tmp_path: Path, before: Lock, ours: Lock, theirs: Lock, *, style: str = "merge") -> str:
    """What git leaves of a lock when two branches have changed it."""
    repository = Repository.init(tmp_path / "repository")
    path = repository.path / "plugins.lock"

    def commit(content: Lock) -> None:
        path.write_bytes(lock_writer.render(content))
        repository.git("add", ".")
        repository.git("commit", "--quiet", "-m", "lock")

    commit(before)
    repository.git("checkout", "--quiet", "-b", "theirs")
    commit(theirs)
    repository.git("checkout", "--quiet", "main")
    commit(ours)
    with pytest.raises(AssertionError, match="CONFLICT"):
        repository.git("-c", f"merge.conflictStyle={style}", "merge", "theirs")
    return path.read_text()


def pins(found: OldLock) -> dict[str, str]:
    assert found.lock is not None
    return {item.name: item.version for item in found.lock.packages}


@pytest.mark.parametrize("style", ["merge", "diff3", "zdiff3"])
def test_the_pins_that_both_sides_of_a_merge_agree_on_are_kept(
    settings: Settings, tmp_path: Path, style: str
) -> None:
    demo = plugin("demo", commit=COMMIT)
    before = lock({"demo": "1.0", "helper": "1.0", "zlib": "1.0"}, demo)
    ours = lock({"demo": "1.0", "helper": "2.0", "zlib": "1.5", "mine": "1.0"}, demo, plugin("mine"), digest="b")
    theirs = lock({"demo": "1.0", "helper": "3.0", "zlib": "1.5", "yours": "4.0"}, demo, plugin("yours"), digest="c")
    settings.lock.write_text(merged(tmp_path, before, ours, theirs, style=style))
    found = old_lock.read(settings, Upgrade())
    assert found.flaw == "the lock has merge conflicts"
    assert pins(found) == {"demo": "1.0", "zlib": "1.5"}
    assert found.lock is not None
    assert found.lock.plugins == (demo,)


def test_a_plugin_that_the_sides_of_a_merge_have_at_two_commits_is_not_kept(settings: Settings) -> None:
    """Its version may be the same."""
    sides = [
        lock_writer.render(lock({"demo": "1.0"}, plugin("demo", commit=commit))).decode()
        for commit in (COMMIT, "d" * 40)
    ]
    settings.lock.write_text(f"<<<<<<< ours\n{sides[0]}=======\n{sides[1]}>>>>>>> theirs\n")
    found = old_lock.read(settings, Upgrade())
    assert pins(found) == {"demo": "1.0"}
    assert found.lock is not None
    assert found.lock.plugins == ()


def test_a_side_that_lacks_a_package_of_its_plugin_keeps_the_other_plugins(settings: Settings) -> None:
    text = lock_writer.render(lock({"demo": "1.0", "gone": "1.0"}, plugin("demo", commit=COMMIT), plugin("gone")))
    start, end = text.index(b'[[packages]]\nname = "gone"'), text.index(b"[tool.vllm-plugins]")
    broken = (text[:start] + text[end:]).decode()
    settings.lock.write_text(f"<<<<<<< ours\n{broken}=======\n{broken}>>>>>>> theirs\n")
    found = old_lock.read(settings, Upgrade())
    assert found.lock is not None
    assert [item.commit for item in found.lock.plugins] == [COMMIT]
    assert pins(found) == {"demo": "1.0"}


def test_sides_that_are_not_toml_still_have_pins(settings: Settings) -> None:
    text = lock_writer.render(lock({"demo": "1.0", "helper": "2.0"}, plugin("demo"))).decode()
    settings.lock.write_text(f"{text}\n=======\nformat = = 1\n{text}>>>>>>> theirs\n")
    assert pins(old_lock.read(settings, Upgrade())) == {"demo": "1.0", "helper": "2.0"}


def test_conflicts_that_leave_nothing_readable_leave_no_pins(settings: Settings) -> None:
    settings.lock.write_text("<<<<<<< ours\n" * 5000)
    assert old_lock.read(settings, Upgrade()) == OldLock(lock=None, flaw="the lock has merge conflicts")


def test_a_missing_lock_has_no_flaw(settings: Settings) -> None:
    assert old_lock.read(settings, Upgrade()) == OldLock(lock=None)


def test_an_edited_lock_is_read_with_its_flaw(settings: Settings) -> None:
    content = lock({"demo": "1.0"}, plugin("demo"))
    settings.lock.write_bytes(lock_writer.render(content))
    assert old_lock.read(settings, Upgrade()) == OldLock(lock=content)
    settings.lock.write_bytes(lock_writer.render(content).replace(b"size = 1", b"size = 2"))
    found = old_lock.read(settings, Upgrade())
    assert (found.flaw, pins(found)) == ("the lock was edited by hand", {"demo": "1.0"})


def test_an_unreadable_lock_is_refused_unless_everything_is_upgraded(settings: Settings) -> None:
    settings.lock.write_text("what = is this")
    with pytest.raises(LockInvalid) as caught:
        old_lock.read(settings, Upgrade(names=frozenset({NAME("demo")})))
    assert caught.value.next_step is not None
    assert caught.value.next_step.endswith("vllm-plugins lock --upgrade")
    assert old_lock.read(settings, Upgrade(everything=True)) == OldLock(lock=None, flaw="the lock can't be read")


def test_a_lock_that_is_too_large_is_not_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_reader, "MAX_BYTES", 10)
    settings.lock.write_text("<<<<<<< ours\n")
    with pytest.raises(LockInvalid, match="too large"):
        old_lock.read(settings, Upgrade())
    assert old_lock.read(settings, Upgrade(everything=True)).flaw == "the lock can't be read"


def test_a_pin_that_is_none_is_not_kept_of_a_side_that_is_not_toml(settings: Settings) -> None:
    broken = "".join(
        f'[[packages]]\nname = "{name}"\nversion = "{version}"\n\n'
        for name, version in (("demo", "1.0"), ("-x", "1.0"), ("other", "one"), ("more", "2.0"), ("more", "3.0"))
    )
    settings.lock.write_text(f"<<<<<<< ours\n= =\n{broken}=======\n= =\n{broken}>>>>>>> theirs\n")
    assert pins(old_lock.read(settings, Upgrade())) == {"demo": "1.0", "more": "2.0"}


def test_what_is_upgraded_is_not_reused(tmp_path: Path) -> None:
    content = lock({"demo": "1.0"}, plugin("demo", commit=COMMIT))

    def reuse(upgrade: Upgrade) -> Reuse:
        return Reuse(old=content, upgrade=upgrade, base=base.of_here(()), wheels=tmp_path)

    assert reuse(Upgrade()).plugin("demo") == content.plugins[0]
    assert reuse(Upgrade()).plugin("other") is None
    assert reuse(Upgrade(everything=True)).plugin("demo") is None
    assert reuse(Upgrade(names=frozenset({NAME("demo")}))).plugin("demo") is None
    content = content.replace(plugins=(content.plugins[0].replace(name="mine"),))
    assert reuse(Upgrade()).plugin("mine") is not None
    for name in ("mine", "demo"):  # its name, or that of its package
        assert reuse(Upgrade(names=frozenset({NAME(name)}))).plugin("mine") is None


def test_a_built_wheel_is_reused_only_as_it_was_locked(tmp_path: Path) -> None:
    data = b"a wheel"
    wheel = Wheel(filename="demo-1.0-0_abc-py3-none-any.whl", sha256=hashes.sha256(data), size=len(data))
    built = Package(name=NAME("demo"), version="1.0", wheels=(wheel,), built_with=("hatchling==1.0",))
    hatchling = BuildRequirement(name=NAME("hatchling"), version="1.0", wheels=(wheel,))
    content = lock({}).replace(packages=(built,), build_requirements=(hatchling,))
    reuse = Reuse(old=content, upgrade=Upgrade(), base=base.of_here(()), wheels=tmp_path)
    assert reuse.built(NAME("demo")) is None
    (tmp_path / wheel.filename).write_bytes(data)
    found = reuse.built(NAME("demo"))
    assert found is not None
    assert (found.package, found.path) == (built, tmp_path / wheel.filename)
    assert found.requirements == (hatchling,)
    (tmp_path / wheel.filename).write_bytes(b"another")
    assert reuse.built(NAME("demo")) is None
    assert reuse.built(NAME("other")) is None
    (tmp_path / wheel.filename).write_bytes(data)
    unhashed = Reuse(
        old=content.replace(build_requirements=()), upgrade=Upgrade(), base=base.of_here(()), wheels=tmp_path
    )
    assert unhashed.built(NAME("demo")) is None
