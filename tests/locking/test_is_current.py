"""A lock that is up to date is kept without a look at any index: it agrees with all that it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import projects, values
from vllm_plugins.core import hashes
from vllm_plugins.core.errors import UsageError
from vllm_plugins.documents import lock as locks
from vllm_plugins.documents import lock_writer
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents.lock import BaseUse, Lock, Plugin, Wheel
from vllm_plugins.locking import old_lock
from vllm_plugins.locking.request import Request, Upgrade
from vllm_plugins.sources import local, pyproject

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.startup.settings import Settings

LOCAL = "plugins:\n  - {name: tiny, source: local, path: project}\n"
EDITABLE = "plugins:\n  - {name: tiny, source: local, path: project, editable: true}\n"
FILE = "plugins:\n  - {name: tiny, source: file, path: parser.py}\n"
REMOTE = "plugins:\n  - {name: tiny, source: file, url: 'https://example.org/parser.py'}\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return values.settings(tmp_path)


def is_current(settings: Settings, lock: Lock, manifest: str = values.MANIFEST, **base: Any) -> bool:
    named = manifests.parse(manifest.encode(), settings.manifest)
    return old_lock.is_current(lock, named, values.base(**base), settings)


def locked(settings: Settings, manifest: str, **fields: Any) -> Lock:
    """A lock of a plugin that was built while locking, whose wheel is there."""
    data, digest = b"a built wheel", fields.get("file_sha256")
    name = values.NAME("tiny") if digest is None else locks.file_package("tiny")
    version = "1.0" if digest is None else locks.file_version(digest)
    filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    wheel = Wheel(filename=filename, sha256=hashes.sha256(data), size=len(data))
    settings.wheels.mkdir(parents=True, exist_ok=True)
    (settings.wheels / wheel.filename).write_bytes(data)
    entry = Plugin(name="tiny", package=name, version=version, **fields)
    return values.lock(values.package(name, version, wheels=(wheel,)), plugins=(entry,), manifest=manifest)


def test_a_lock_of_an_index_is_current_where_nothing_changed(settings: Settings) -> None:
    assert is_current(settings, values.lock())


def test_a_lock_of_another_manifest_is_not_current(settings: Settings) -> None:
    other = "plugins:\n  - {name: tiny, source: pypi, package: tiny, version: '>=1'}\n"
    assert not is_current(settings, values.lock(), other)


def test_a_manifest_that_was_accepted_earlier_is_locked_again(settings: Settings) -> None:
    """A start takes a lock with such a manifest; `lock` writes the hash of the manifest that there is now."""
    other = "plugins:\n  - {name: tiny, source: pypi, package: tiny, version: '>=1'}\n"
    digest = manifests.parse(other.encode(), settings.manifest).sha256
    assert not is_current(settings, values.lock(accepted_manifests=(digest,)), other)


def test_a_lock_for_another_base_is_not_current(settings: Settings) -> None:
    uses = (BaseUse(name=values.NAME("torch"), version="2.13.0+cpu", required_by=(("tiny", ">=2"),)),)
    assert is_current(settings, values.lock(uses=uses))
    assert not is_current(settings, values.lock(uses=uses), distributions={"vllm": "0.32.0", "torch": "1.0"})


def test_a_lock_without_hashes_of_a_build_is_not_current(settings: Settings) -> None:
    package = values.package(built_with=("tool==1.0",))
    assert not is_current(settings, values.lock(values.package("other"), package))


def test_a_lock_with_a_missing_or_another_wheel_is_not_current(settings: Settings) -> None:
    git = "plugins:\n  - {name: tiny, source: git, url: 'https://example.org/tiny.git'}\n"
    fields = {"source": "git", "requested": "HEAD", "url": "https://example.org/tiny.git", "commit": "c" * 40}
    lock = locked(settings, git, **fields, tree_sha256="a" * 64)
    assert is_current(settings, lock, git)
    (path,) = settings.wheels.iterdir()
    path.write_bytes(b"another wheel")
    assert not is_current(settings, lock, git)
    path.unlink()
    assert not is_current(settings, lock, git)


def project(settings: Settings) -> Path:
    return projects.project(settings.manifest.parent / "project", name="tiny")


def test_a_lock_of_a_changed_directory_is_not_current(settings: Settings) -> None:
    directory = project(settings)
    tree = local.hash_tree(directory, plugin="tiny")
    lock = locked(settings, LOCAL, source="local", requested="project", tree_sha256=tree)
    assert is_current(settings, lock, LOCAL)
    (directory / "src/tiny/more.py").write_text("")
    assert not is_current(settings, lock, LOCAL)


def test_what_locking_writes_into_a_directory_does_not_change_it(tmp_path: Path) -> None:
    """A manifest may lie in the directory of its plugin, and so may the lock and the wheels."""
    directory = projects.project(tmp_path / "config", name="tiny")
    settings = values.settings(tmp_path)
    here = "plugins:\n  - {name: tiny, source: local, path: .}\n"
    tree = local.hash_tree(directory, plugin="tiny", without=settings.written)
    lock = locked(settings, here, source="local", requested=".", tree_sha256=tree)
    settings.lock.write_text("a lock")
    assert is_current(settings, lock, here)


def test_a_lock_of_an_editable_directory_is_current_until_its_project_changes(settings: Settings) -> None:
    directory = project(settings)
    digest = pyproject.sha256(directory)
    fields: dict[str, Any] = {"source": "local", "requested": "project", "editable": True}
    entry = Plugin(name="tiny", package=values.NAME("tiny"), version="1.0", project_sha256=digest, **fields)
    package = values.package(wheels=(), directory="project")
    lock = values.lock(package, plugins=(entry,), manifest=EDITABLE)
    assert is_current(settings, lock, EDITABLE)
    (directory / "src/tiny/more.py").write_text("")
    assert is_current(settings, lock, EDITABLE)
    (directory / "pyproject.toml").write_text('[project]\nname = "tiny"\nversion = "2.0"\n')
    assert not is_current(settings, lock, EDITABLE)


def test_a_lock_of_a_changed_file_is_not_current(settings: Settings) -> None:
    path = settings.manifest.parent / "parser.py"
    path.write_text("X = 1\n")
    fields: dict[str, Any] = {"source": "file", "filename": "parser.py", "file_sha256": hashes.of_file(path)}
    fields["loads"] = ("parser",)
    lock = locked(settings, FILE, requested="parser.py", **fields)
    assert is_current(settings, lock, FILE)
    path.write_text("X = 2\n")
    assert not is_current(settings, lock, FILE)


def test_a_lock_of_a_file_elsewhere_is_current(settings: Settings) -> None:
    """Its hash is in the lock, and it is not fetched to find out."""
    remote = REMOTE.replace("}", f", sha256: {'e' * 64}}}")
    fields: dict[str, Any] = {"source": "file", "filename": "parser.py", "file_sha256": "e" * 64}
    fields["loads"] = ("parser",)
    url = "https://example.org/parser.py"
    assert is_current(settings, locked(settings, remote, requested=url, url=url, **fields), remote)


def test_a_lock_without_a_local_plugin_is_not_current(settings: Settings) -> None:
    project(settings)
    assert not old_lock._is_unchanged(
        values.lock(plugins=()),
        "tiny",
        manifests.LocalSource(path="project"),
        manifests.parse(LOCAL.encode(), settings.manifest),
        settings,
    )


def test_the_lock_of_another_manifest_is_not_overwritten(settings: Settings) -> None:
    other = values.lock(manifest_name="other.yaml")
    settings.manifest.write_text(values.MANIFEST)
    settings.manifest.with_name("other.yaml").write_text(values.MANIFEST)
    with pytest.raises(UsageError):
        old_lock.require_own(other, settings, Request())
    old_lock.require_own(other, settings, Request(dry_run=True))
    old_lock.require_own(None, settings, Request())
    old_lock.require_own(values.lock(), settings, Request())


def test_a_check_compares_no_name_of_a_manifest(settings: Settings) -> None:
    old, new = values.lock(manifest_name="other.yaml"), values.lock(manifest_name="more.yaml")
    assert old_lock.named_as(new, old, settings, Request(check=True)).manifest_name == "other.yaml"
    assert old_lock.named_as(new, old, settings, Request()).manifest_name is None
    assert old_lock.named_as(new, None, settings, Request(check=True)).manifest_name is None


def test_of_several_targets_the_one_of_this_base_is_read(settings: Settings) -> None:
    lock = values.lock()
    (target,) = lock.targets
    old = lock.replace(targets=(target.replace(name="a", python="3.9"),))
    new = lock.replace(targets=(target.replace(name="b"),))
    settings.lock.write_bytes(lock_writer.render(old, new))

    def name(base: Base | None) -> str | None:
        found = old_lock.read(settings, Upgrade(), base=base).lock
        assert found is not None
        return found.target_name

    assert name(values.base()) == "b"
    assert name(None) == "a"
    every = old_lock.read_all(settings, Upgrade())
    assert [lock and lock.target_name for lock in map(every.named, ("a", "b", "c"))] == ["a", "b", None]


def test_what_is_reused_of_a_lock_knows_whether_it_is_sound(settings: Settings, tmp_path: Path) -> None:
    lock, base, upgrade = values.lock(), values.base(), Upgrade()
    found = old_lock.OldLock(lock=lock).reuse(upgrade, base=base, wheels=settings.wheels)
    assert (found.old, found.upgrade, found.base, found.wheels, found.is_sound) == (
        *(lock, upgrade, base, settings.wheels, True),
    )
    edited = old_lock.OldLock(lock=lock, flaw="the lock was edited by hand", wheels=tmp_path / "own")
    again = edited.reuse(upgrade, base=base, wheels=settings.wheels)
    assert (again.wheels, again.is_sound) == (tmp_path / "own", False)
