from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.kit.repositories import Repository, git_environment
from vllm_plugins.core.errors import SourceError
from vllm_plugins.documents.lock import CommitSha
from vllm_plugins.documents.manifest import GitSource
from vllm_plugins.sources import _git, git_news

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from vllm_plugins.sources._git import Access
    from vllm_plugins.sources._git import Repository as Fetched
    from vllm_plugins.sources.git_news import News


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.init(tmp_path / "repository")


def news(repository: Repository, locked: str, ref: str | None = None, *, version: str = "9999") -> News:
    source = GitSource(url=repository.url, ref=ref)
    return git_news.read(
        source,
        CommitSha(locked),
        release=("tiny", version),
        environ={**git_environment(), "PATH": os.environ["PATH"]},
        plugin="it",
    )


def test_the_commits_of_a_branch_since_the_locked_one_are_counted(repository: Repository) -> None:
    locked = repository.commit("one")
    assert news(repository, locked).behind == 0
    repository.commit("two")
    last = repository.commit("three")
    for ref in (None, "HEAD", "main", "refs/heads/main"):
        found = news(repository, locked, ref)
        assert (found.commit, found.behind, found.tag) == (last, 2, None)
    assert news(repository, locked, "main").branch == "main"


def test_a_commit_and_a_tag_are_compared_with_the_default_branch(repository: Repository) -> None:
    locked = repository.commit("one")
    repository.tag("v1.0", "annotated")
    repository.commit("two")
    repository.tag("v1.1rc1")
    repository.commit("three")
    repository.tag("v1.1")
    for ref in ("v1.0", locked, locked[:8]):
        found = news(repository, locked, ref)
        assert (found.commit, found.behind, found.tag, found.branch) == (locked, 2, "v1.1", "the default branch")


def test_a_tag_goes_before_a_branch_of_its_name(repository: Repository) -> None:
    locked = repository.commit("one")
    repository.tag("v1")
    repository.git("branch", "v1")
    repository.commit("two")
    assert news(repository, locked, "v1").behind == 1


def test_only_tags_of_the_same_project_are_newer(repository: Repository) -> None:
    locked = repository.commit("one")
    for tag in ("one-v1.0", "two-v3.0", "one-v1.1", "one-vx", "9.0"):
        repository.tag(tag)
        repository.commit(tag)
    assert news(repository, locked, "one-v1.0").tag == "one-v1.1"
    repository.tag("one-v0.9")
    assert news(repository, repository.head, "one-v0.9").tag == "one-v1.1"
    assert news(repository, repository.head, "two-v3.0").tag is None


def test_a_rewritten_branch_is_reported(repository: Repository) -> None:
    repository.commit("one")
    locked = repository.commit("two")
    repository.git("reset", "--hard", "--quiet", "HEAD~1")
    new = repository.commit("other")
    found = news(repository, locked, "main")
    assert (found.commit, found.behind) == (new, None)


def test_a_ref_that_is_gone_is_an_error(repository: Repository) -> None:
    locked = repository.commit("one")
    with pytest.raises(SourceError, match="git ref 'gone' is not in the repository"):
        news(repository, locked, "gone")


@pytest.mark.parametrize("reads_history", [True, False])
@pytest.mark.parametrize("is_behind", [True, False])
def test_a_repository_is_fetched_once_whatever_is_new(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, *, is_behind: bool, reads_history: bool
) -> None:
    """Its branch and a tag of the locked commit are asked for together."""
    fetched: list[tuple[str, ...]] = []
    commits = _git.commits

    def counted(access: Access, *refs: str) -> AbstractContextManager[Fetched]:
        fetched.append(refs)
        return commits(access, *refs)

    monkeypatch.setattr(_git, "commits", counted)
    requires = "setuptools-scm" if reads_history else "hatchling"
    project = f'[build-system]\nrequires = ["{requires}"]\n[project]\nname = "tiny"\nversion = "1.0"\n'
    locked = repository.commit("one", {"pyproject.toml": project})
    repository.tag("v2.0", "annotated")
    if is_behind:
        repository.commit("two")
    found = news(repository, locked, "main", version="1.0")
    assert (found.behind, found.own_tag) == (int(is_behind), "v2.0" if reads_history else None)
    assert len(fetched) == 1
