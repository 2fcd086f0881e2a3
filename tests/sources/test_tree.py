"""Directory trees: which files a build sees, and what their hash depends on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.kit.repositories import Repository, git_environment
from vllm_plugins.core.errors import SourceError
from vllm_plugins.sources import _listing, _tree

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PROJECT = {"pyproject.toml": "[project]\nname = 'tiny'\n", "src/tiny.py": "X = 1\n"}


def _write(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PROJECT.get(name, name), errors="surrogateescape")
    return root


def _listed(root: Path, without: Iterable[Path] = ()) -> list[str]:
    entries, _ = _listing.list_source(root, environ=git_environment(), without=without)
    return [os.fsdecode(entry.path) for entry in entries]


def _hash(root: Path) -> str:
    return _tree.sha256(_tree.walk(root))


def test_outside_of_git_a_build_sees_all_files_except_those_that_tools_leave(tmp_path: Path) -> None:
    _write(
        tmp_path, "pyproject.toml", "src/tiny.py", "src/data.bin", ".hidden", "src/build/inner.py", "dist/__init__.py"
    )
    _write(tmp_path, "src/__pycache__/tiny.pyc", "tiny.egg-info/PKG-INFO", "build/lib/tiny.py", ".git_not", ".tox/x")
    _write(tmp_path, "env/pyvenv.cfg", "env/lib/x.py", ".venv/pyvenv.cfg", "x.pyc")
    assert _listed(tmp_path) == [
        ".git_not",
        ".hidden",
        "dist/__init__.py",
        "pyproject.toml",
        "src/build/inner.py",
        "src/data.bin",
        "src/tiny.py",
    ]


def test_in_git_a_build_sees_tracked_and_new_files_and_no_ignored_or_deleted_ones(tmp_path: Path) -> None:
    repository = Repository.init(tmp_path)
    files = {**PROJECT, ".gitignore": "*.log\nsecret/\n", "gone.py": "", "kept.log": ""}
    repository.write(files)
    repository.git("add", "--force", "kept.log")
    repository.commit()
    (tmp_path / "gone.py").unlink()
    _write(tmp_path, "new.py", "new.log", "secret/key", "src/__pycache__/x.pyc")
    assert _listed(tmp_path) == [".gitignore", "kept.log", "new.py", "pyproject.toml", "src/tiny.py"]


def test_a_project_that_an_outer_repository_ignores_is_read_as_if_there_was_no_git(tmp_path: Path) -> None:
    Repository.init(tmp_path).commit(files={".gitignore": "*\n"})
    _write(tmp_path / "inner", "pyproject.toml", "src/tiny.py")
    entries, top = _listing.list_source(tmp_path / "inner", environ=git_environment())
    assert [os.fsdecode(entry.path) for entry in entries] == ["pyproject.toml", "src/tiny.py"]
    assert top is None


def test_a_build_sees_the_files_of_submodules_and_of_nested_repositories(tmp_path: Path) -> None:
    other = Repository.init(tmp_path / "other")
    other.commit(files={"inner.py": "", ".gitignore": "*.log\n"})
    repository = Repository.init(tmp_path / "mine")
    repository.write(PROJECT)
    repository.submodule(other, "vendor/other")
    repository.commit()
    Repository.init(tmp_path / "mine/nested").commit(files={"nested.py": ""})
    _write(tmp_path / "mine", "vendor/other/new.log", "vendor/other/new.py")
    listed = _listed(tmp_path / "mine")
    assert {"vendor/other/inner.py", "vendor/other/new.py", "nested/nested.py"} <= set(listed)
    assert "vendor/other/new.log" not in listed
    assert not [name for name in listed if ".git/" in name]


@pytest.mark.parametrize(
    "name", ["with space", "with\nbreak", 'with "quotes"', "ümlaut", "with\\backslash", "\udcff"]
)
def test_any_file_name_is_seen_in_git_and_outside(tmp_path: Path, name: str) -> None:
    plain = _write(tmp_path / "plain", "pyproject.toml", name)
    repository = Repository.init(tmp_path / "git")
    repository.write(PROJECT)
    (tmp_path / "git" / name).touch()
    repository.commit()
    assert name in _listed(plain)
    assert name in _listed(repository.path)


def test_paths_that_are_left_out_are_not_seen(tmp_path: Path) -> None:
    root = _write(tmp_path / "root", "pyproject.toml", "plugins.lock", "plugins.wheels/x.whl", "plugins.wheels2")
    without = (root / "plugins.lock", root / "plugins.wheels", tmp_path / "elsewhere")
    assert _listed(root, without) == ["plugins.wheels2", "pyproject.toml"]
    assert _listing.inside(root, without) == ("plugins.lock", "plugins.wheels")


def test_a_link_that_stays_inside_is_kept_and_any_other_is_replaced_by_its_target(tmp_path: Path) -> None:
    outside = _write(tmp_path / "outside", "file.py", "directory/deep.py", "directory/__pycache__/x.pyc")
    root = _write(tmp_path / "root", "pyproject.toml", "src/tiny.py")
    for name, target in {
        "inside": "src/tiny.py",
        "file": "../outside/file.py",
        "directory": str(outside / "directory"),
        "absolute": str(root / "src/tiny.py"),
        "broken": "nowhere",
    }.items():
        (root / name).symlink_to(target)
    entries, _ = _listing.list_source(root, environ=git_environment())
    copied = tmp_path / "copied"
    _tree.copy(entries, copied)
    assert os.readlink(copied / "inside") == "src/tiny.py"
    assert os.readlink(copied / "broken") == "nowhere"
    for name in ("file", "absolute", "directory/deep.py"):
        assert not (copied / name).is_symlink()
        assert (copied / name).is_file()
    assert not (copied / "directory/__pycache__").exists()
    assert _tree.sha256(entries) == _hash(copied)


def test_the_hash_does_not_depend_on_place_times_or_umask(tmp_path: Path) -> None:
    one = _write(tmp_path / "one", "a.py", "b/c.py")
    two = _write(tmp_path / "two/deeper", "b/c.py", "a.py")
    (two / "a.py").chmod(0o600)
    os.utime(two / "a.py", (1, 1))
    assert _hash(one) == _hash(two)


def test_the_hash_depends_on_names_contents_executable_bits_and_links(tmp_path: Path) -> None:
    def changed(number: int) -> str:
        root = _write(tmp_path / str(number), "a.py", "b/c.py")
        match number:
            case 1:
                (root / "a.py").write_text("other")
            case 2:
                (root / "a.py").rename(root / "d.py")
            case 3:
                (root / "a.py").chmod(0o755)
            case 4:
                (root / "a.py").unlink()
                (root / "a.py").symlink_to("b/c.py")
            case 5:
                (root / "a.py").unlink()
                (root / "a.py").symlink_to("b")
            case 6:
                (root / "e.py").touch()
        return _hash(root)

    assert len({changed(number) for number in range(7)}) == 7


def test_a_copy_has_sane_modes(tmp_path: Path) -> None:
    root = _write(tmp_path / "root", "pyproject.toml", "run.sh")
    (root / "pyproject.toml").chmod(0o666)
    (root / "run.sh").chmod(0o700)
    _tree.copy(_tree.walk(root), tmp_path / "copy")
    assert (tmp_path / "copy/pyproject.toml").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "copy/run.sh").stat().st_mode & 0o777 == 0o755


def test_a_damaged_repository_is_an_error_that_names_the_directory(tmp_path: Path) -> None:
    repository = Repository.init(tmp_path)
    repository.commit(files=PROJECT)
    (tmp_path / ".git/index").write_bytes(b"damaged")
    with pytest.raises(SourceError, match="can't list the files") as caught:
        _listed(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_a_directory_is_removed_when_filling_it_fails(tmp_path: Path) -> None:
    with _tree.filled_or_removed(tmp_path / "good"):
        _write(tmp_path / "good", "x")
    assert (tmp_path / "good/x").exists()
    with pytest.raises(NotADirectoryError), _tree.filled_or_removed(tmp_path / "bad"):
        _write(tmp_path / "bad", "x", "x/y/z")
    assert not (tmp_path / "bad").exists()
