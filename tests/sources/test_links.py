"""Links that lead out of a checkout: which are refused, which are removed, and which stay."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.kit.repositories import Repository, git_environment
from vllm_plugins.core.errors import SourceError
from vllm_plugins.documents.manifest import GitSource
from vllm_plugins.sources import _git, _links

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://git.example/tiny"


@pytest.fixture
def checkout(tmp_path: Path) -> Repository:
    repository = Repository.init(tmp_path / "checkout")
    repository.write({"README": "", "python/pyproject.toml": "", "python-old/x": "", "shared/x": ""})
    return repository


def _link(root: Path, links: dict[str, str]) -> None:
    for path, target in links.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)


def _cut(root: Path, project: str = "") -> None:
    access = _git.connect(GitSource(url=URL, ref="main"), environ=git_environment(), plugin="tiny")
    repository = _git.Repository(root=root, remote=access.remote, env=access.env, plugin="tiny")
    _links.cut(repository, root / project)


def _refused(root: Path, project: str = "") -> str:
    with pytest.raises(SourceError, match="a symbolic link leads out of the git repository") as caught:
        _cut(root, project)
    return str(caught.value.found)


@pytest.mark.parametrize(
    "target",
    ["/etc/passwd", "/nowhere", "..", "../..", "../nowhere", ".git", ".git/config", "shared/.git", "up/../../x"],
)
def test_a_link_out_of_the_repository_is_refused(checkout: Repository, target: str) -> None:
    _link(checkout.path, {"up": ".", "link": target})
    assert _refused(checkout.path) == f"link → {target}"


def test_an_absolute_link_is_refused_even_if_it_leads_into_the_checkout(checkout: Repository) -> None:
    """The checkout is elsewhere the next time."""
    target = str(checkout.path / "README")
    _link(checkout.path, {"link": target})
    assert _refused(checkout.path) == f"link → {target}"


def test_a_link_to_a_link_out_is_refused_as_the_link_that_is_in_the_project(checkout: Repository) -> None:
    _link(checkout.path, {"shared/link": "/etc/passwd", "python/link": "../shared/link"})
    assert _refused(checkout.path, "python") == "python/link → ../shared/link"


def test_the_refusal_names_the_repository_the_plugin_and_the_first_link(checkout: Repository) -> None:
    _link(checkout.path, {"z": "/etc/passwd", "b": "/etc/group", "python/a": "/etc/hosts"})
    with pytest.raises(SourceError) as caught:
        _cut(checkout.path)
    error = caught.value
    assert (error.where, error.required_by) == (URL, "plugin 'tiny'")
    assert (error.expected, error.found) == ("a link to a file of the repository", "b → /etc/group")
    assert "the authors of plugin 'tiny'" in str(error.next_step)
    assert (checkout.path / "z").is_symlink()


@pytest.mark.parametrize("target", ["README", ".", "shared", "nowhere", "..data/x", ".github/x", "x.git", "link"])
def test_a_link_to_a_place_of_the_repository_stays(checkout: Repository, target: str) -> None:
    _link(checkout.path, {"link": target, "python/out": "../shared/x"})
    _cut(checkout.path)
    assert os.readlink(checkout.path / "link") == target
    assert (checkout.path / "python" / "out").is_symlink()


def test_links_are_compared_with_the_real_place_of_the_checkout(checkout: Repository, tmp_path: Path) -> None:
    """The directory for temporary files may be a link."""
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "far" / "away" / "place").symlink_to(checkout.path)
    root = tmp_path / "far" / "away" / "place"
    _link(
        root, {"stays": "README", "shared/x2": "../README", "shared/out": "/etc/passwd", "python/link": "../shared"}
    )
    assert _refused(root, "python") == "shared/out → /etc/passwd"
    (root / "python" / "link").unlink()
    checkout.commit()
    _cut(root, "python")
    assert (root / "stays").is_symlink()
    assert not (root / "shared" / "out").is_symlink()


@pytest.mark.parametrize(
    "links",
    [
        {"python/src/link": "/etc/passwd"},
        {"shared/link": "/etc/passwd", "python/src/shared": "../../shared"},
        {"shared/deep/link": "/etc/passwd", "python/shared": "../shared"},
        {"c/d/link": "/etc/passwd", "b/c": "../c", "python/b": "../b"},
        {"d/link": "/etc/passwd", "c/d": "../d", "b/c": "../c", "python/b": "../b", "python/a": "../a"},
        {"b/link": "/etc/passwd", "python/a": "../shared", "python/b": "../b"},
        {"b/link": "/etc/passwd", "python/a": "src", "python/src/b": "../../b"},
        {"link": "/etc/passwd", "python/all": ".."},
        {"pythonic/link": "/etc/passwd", "python/a": "../pythonic"},
    ],
)
def test_a_link_out_that_a_build_comes_to_through_links_is_refused(
    checkout: Repository, links: dict[str, str]
) -> None:
    _link(checkout.path, links)
    assert _refused(checkout.path, "python") == f"{next(iter(links))} → /etc/passwd"


def test_a_project_that_is_a_link_is_its_real_directory(checkout: Repository) -> None:
    _link(checkout.path, {"python/link": "/etc/passwd", "project": "python"})
    assert _refused(checkout.path, "project") == "python/link → /etc/passwd"


def test_links_out_that_no_build_comes_to_are_removed_and_git_sees_no_change(checkout: Repository) -> None:
    links = {
        "a": "/etc/passwd",
        "-x": "/etc/passwd",
        "python-old/link": "..",
        "python-old/out": "../../x",
        "shared/deep/git": "../../.git",
    }
    stays = {
        "python/README": "../README",
        "python-old/shared": "../shared",
        "stays": "shared",
        "python/src": "../lib",
    }
    _link(checkout.path, links | stays | {os.fsdecode(b"b\xff \n"): "/etc"})
    links.pop("python-old/link")
    checkout.commit()
    _cut(checkout.path, "python")
    assert not any(os.path.lexists(checkout.path / path) for path in links)
    assert not os.path.lexists(os.fsencode(checkout.path) + b"/b\xff \n")
    assert {path: os.readlink(checkout.path / path) for path in stays} == stays
    assert checkout.git("status", "--porcelain") == ""


def test_links_that_lead_to_each_other_end(checkout: Repository) -> None:
    links = {"python/a": "../a", "a/b": "../b", "b/a": "../a", "b/python": "../python", "python/self": "."}
    _link(checkout.path, links | {"shared/out": "/etc/passwd"})
    checkout.commit()
    _cut(checkout.path, "python")
    assert not os.path.lexists(checkout.path / "shared" / "out")
    assert all((checkout.path / path).is_symlink() for path in links)


def test_a_link_out_in_a_submodule_is_removed_and_git_sees_no_change(checkout: Repository, tmp_path: Path) -> None:
    inner = Repository.init(tmp_path / "inner")
    _link(inner.path, {"deep/out": "/etc/passwd", "up": "../README", "own": ".git"})
    inner.commit()
    checkout.git("submodule", "--quiet", "add", inner.url, "sub")
    checkout.commit()
    _cut(checkout.path, "python")
    sub = Repository(checkout.path / "sub")
    assert not os.path.lexists(sub.path / "deep" / "out")
    assert not os.path.lexists(sub.path / "own")
    assert (sub.path / "up").is_symlink()
    assert sub.git("status", "--porcelain") == checkout.git("status", "--porcelain") == ""


def test_a_failure_of_git_at_a_removed_link_is_an_error(checkout: Repository) -> None:
    _link(checkout.path, {"shared/out": "/etc/passwd"})
    with pytest.raises(SourceError, match="git update-index failed"):
        _cut(checkout.path, "python")
