"""Local directories: their hash, and the copy that a build sees."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.kit.repositories import Repository, git_environment
from vllm_plugins.core.errors import SourceError
from vllm_plugins.sources import local

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = '[build-system]\nrequires = ["hatchling"]\n[project]\nname = "tiny"\nversion = "1.0"\n'
FROM_HISTORY = PLAIN.replace("hatchling", "setuptools_scm").replace('version = "1.0"', 'dynamic = ["version"]')


def _status(copy: Path, environ: dict[str, str]) -> str:
    """What git reports as modified to a build."""
    words = ["git", "status", "--porcelain"]
    return subprocess.run(words, cwd=copy, env=environ, check=True, capture_output=True, text=True).stdout


def test_the_hash_is_that_of_the_copy(tmp_path: Path) -> None:
    Repository.init(tmp_path / "mine").commit(
        files={"pyproject.toml": PLAIN, "src/tiny.py": "", ".gitignore": "*.log\n"}
    )
    (tmp_path / "mine/x.log").touch()
    environ = git_environment()
    found = local.export(tmp_path / "mine", tmp_path / "copy", plugin="tiny", environ=environ)
    assert found.tree_sha256 == local.hash_tree(tmp_path / "mine", plugin="tiny", environ=environ)
    assert (found.commit, found.ignored) == (None, ("x.log",))
    assert not (tmp_path / "copy/.git").exists()


def test_a_copy_for_a_version_from_the_history_is_as_clean_as_the_original(tmp_path: Path) -> None:
    repository = Repository.init(tmp_path / "mine")
    repository.commit(files={"pyproject.toml": FROM_HISTORY, "src/tiny.py": "", "plugins.lock": "written by us\n"})
    repository.tag("v1.0")
    environ = git_environment()
    without = (tmp_path / "mine/plugins.lock",)
    local.export(tmp_path / "mine", tmp_path / "copy", plugin="tiny", without=without, environ=environ)
    assert Repository(tmp_path / "copy").git("describe", "--tags") == "v1.0"
    assert _status(tmp_path / "copy", environ) == ""
    (tmp_path / "mine/src/tiny.py").write_text("X = 1\n")
    local.export(tmp_path / "mine", tmp_path / "changed", plugin="tiny", environ=environ)
    assert "src/tiny.py" in _status(tmp_path / "changed", environ)


@pytest.mark.parametrize("where", ["global", "local"])
def test_line_ends_that_the_user_prefers_do_not_make_a_copy_modified(tmp_path: Path, where: str) -> None:
    """With core.autocrlf, the files of a work tree have CRLF, and its commits LF."""
    origin = Repository.init(tmp_path / "origin")
    origin.commit(files={"pyproject.toml": FROM_HISTORY, "src/tiny.py": "X = 1\nY = 2\n"})
    environ = git_environment()
    if where == "global":
        (tmp_path / "gitconfig").write_text("[core]\n\tautocrlf = true\n")
        environ["GIT_CONFIG_GLOBAL"] = str(tmp_path / "gitconfig")
    words = ["git", "clone", "--quiet", "--config", "core.autocrlf=true", origin.url, str(tmp_path / "mine")]
    subprocess.run(words if where == "local" else [*words[:3], *words[5:]], env=environ, check=True)
    assert (tmp_path / "mine/src/tiny.py").read_bytes() == b"X = 1\r\nY = 2\r\n"
    assert _status(tmp_path / "mine", environ) == ""
    local.export(tmp_path / "mine", tmp_path / "copy", plugin="tiny", environ=environ)
    assert (tmp_path / "copy/src/tiny.py").read_bytes() == b"X = 1\r\nY = 2\r\n"
    assert _status(tmp_path / "copy", environ) == ""


@pytest.mark.parametrize(
    ("name", "what"),
    [("nowhere", "does not exist"), ("file", "is not a directory"), ("empty", "is not a Python project")],
)
def test_a_path_that_can_not_be_built_is_an_error_with_the_plugins_name(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=what) as caught:
        local.hash_tree(tmp_path / name, plugin="tiny", environ=git_environment())
    assert caught.value.required_by == "plugin 'tiny'"


def test_a_work_tree_is_not_read_without_git_and_the_error_says_why(tmp_path: Path) -> None:
    Repository.init(tmp_path / "mine").commit(files={"pyproject.toml": PLAIN})
    with pytest.raises(SourceError, match="git can't be started") as caught:
        local.hash_tree(tmp_path / "mine", plugin="tiny", environ={"PATH": str(tmp_path)})
    assert caught.value.where == str(tmp_path / "mine")
    assert caught.value.required_by == "plugin 'tiny'"
    assert "ignores" in (caught.value.expected or "")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/pyproject.toml").write_text(PLAIN)
    local.hash_tree(tmp_path / "plain", plugin="tiny", environ={"PATH": str(tmp_path)})
