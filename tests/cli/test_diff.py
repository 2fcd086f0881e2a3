from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.kit import values
from tests.kit.repositories import Repository
from vllm_plugins.documents import lock_writer

if TYPE_CHECKING:
    from tests.kit.place import Place
    from vllm_plugins.documents.lock import Lock


def write(place: Place, lock: Lock) -> None:
    place.lock.write_bytes(lock_writer.render(lock))


@pytest.fixture
def repository(bare_place: Place) -> Repository:
    """A repository with two commits of a lock in a directory, and a third lock in the work tree."""
    repository = Repository.init(bare_place.root)
    for version in ("1.0", "2.0"):
        write(bare_place, values.lock(values.package(version=version)))
        repository.git("add", "config/plugins.lock")
        repository.git("commit", "--quiet", "--message", version)
    write(bare_place, values.lock(values.package(version="3.0")))
    return repository


def changes(place: Place, *words: str) -> list[tuple[str, str]]:
    return [
        (item["old"]["version"], item["new"]["version"])
        for item in place.run("diff", *words, "--json").json["packages"]
    ]


def test_a_lock_is_compared_with_a_commit(bare_place: Place, repository: Repository) -> None:
    assert changes(bare_place, "HEAD") == [("2.0", "3.0")]
    assert changes(bare_place, "HEAD~1") == [("1.0", "3.0")]
    assert changes(bare_place, "HEAD~1", "main") == [("1.0", "2.0")]
    assert changes(bare_place, repository.git("rev-parse", "--short", "HEAD")) == [("2.0", "3.0")]
    assert bare_place.run("diff", "HEAD", "--exit-code", check=False).returncode == 1


def test_a_file_with_the_name_of_a_revision_is_not_compared_in_its_place(
    bare_place: Place, repository: Repository
) -> None:
    """A change under review could have a file ``origin/main``: a copy of its own lock, with which nothing changes."""
    write(bare_place, values.lock(values.package(version="9.0")))
    os.rename(bare_place.lock, bare_place.root / "main")
    repository.git("checkout", "--quiet", "config/plugins.lock")
    for word in ("main", "HEAD"):
        (bare_place.root / word).write_bytes((bare_place.root / "main").read_bytes())
        for words in ([word], ["HEAD~1", word]):
            done = bare_place.run("diff", *words, check=False)
            assert (done.returncode, f"{word!r} is a file, and a revision of git, too" in done.stderr) == (2, True)
        # As the error says.
        assert changes(bare_place, f"./{word}") == [("9.0", "2.0")]
        assert changes(bare_place, f"{word}^0") == []
    write(bare_place, values.lock(values.package(version="9.0")))
    assert changes(bare_place, str(bare_place.root / "main")) == []
    assert changes(bare_place, os.path.relpath(bare_place.lock, bare_place.root)) == []


def test_a_tag_with_the_name_of_a_branch_is_not_compared_in_its_place(
    bare_place: Place, repository: Repository
) -> None:
    """git takes the tag. Whoever may push tags, and not to main, could make one of that name."""
    repository.git("update-ref", "refs/remotes/origin/main", "HEAD~1")
    assert changes(bare_place, "origin/main") == [("1.0", "3.0")]
    repository.git("tag", "origin/main", "HEAD")
    for setting in ("true", "false"):
        repository.git("config", "core.warnAmbiguousRefs", setting)
        done = bare_place.run("diff", "origin/main", check=False)
        assert (done.returncode, "'origin/main' is the name of several branches or tags" in done.stderr) == (2, True)
    assert changes(bare_place, "refs/remotes/origin/main") == [("1.0", "3.0")]  # as the error says


def test_the_repository_is_that_of_the_lock_whatever_the_environment_says(
    bare_place: Place, repository: Repository
) -> None:
    elsewhere = Repository.init(bare_place.root / "elsewhere")
    bare_place.variables["GIT_DIR"] = str(elsewhere.path / ".git")
    assert changes(bare_place, "HEAD") == [("2.0", "3.0")]
    link = bare_place.root / "link.lock"
    link.symlink_to(bare_place.lock)
    assert changes(bare_place, "HEAD", "--lock", str(link)) == [("2.0", "3.0")]


def test_line_ends_that_git_converts_do_not_count(bare_place: Place, repository: Repository) -> None:
    repository.git("config", "core.autocrlf", "true")
    write(bare_place, values.lock(values.package(version="2.0")))
    assert bare_place.run("diff", "HEAD").stdout == "the locks are the same\n"


def test_a_partial_clone_runs_no_program_of_its_configuration(bare_place: Place, repository: Repository) -> None:
    blob = repository.git("rev-parse", "HEAD:config/plugins.lock")
    (repository.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    ran = bare_place.root / "ran"
    for key, value in {
        "extensions.partialClone": "origin",
        "remote.origin.url": str(repository.path),
        "remote.origin.uploadpack": f"touch {ran}; git-upload-pack",
    }.items():
        repository.git("config", key, value)
    done = bare_place.run("diff", "HEAD", check=False)
    assert (done.returncode, ran.exists()) == (1, False)
    assert "found: fatal: transport 'file' not allowed\n" in done.stderr


@pytest.mark.parametrize("revision", ["nowhere", "HEAD~7", "-x", "HEAD:config", "HEAD^{tree}"])
def test_an_unknown_revision_is_refused(bare_place: Place, repository: Repository, revision: str) -> None:
    done = bare_place.run("diff", "--", revision, check=False)
    assert done.returncode == 2
    assert f"{revision!r} is neither a file, nor the key of an overlay, nor a revision of git" in done.stderr


def test_a_directory_without_a_repository_is_reported(bare_place: Place) -> None:
    write(bare_place, values.lock())
    done = bare_place.run("diff", "HEAD", check=False)
    assert done.returncode == 2
    assert f"and the git repository of {bare_place.config}" in done.stderr


def test_a_lock_that_was_not_committed_is_reported(bare_place: Place, repository: Repository) -> None:
    repository.git("rm", "--quiet", "--cached", "config/plugins.lock")
    repository.git("commit", "--quiet", "--message", "without")
    done = bare_place.run("diff", "HEAD", check=False)
    assert done.returncode == 2
    assert "plugins.lock is not committed in HEAD [usage]" in done.stderr
    assert "git log --oneline -- plugins.lock" in done.stderr
    assert changes(bare_place, "HEAD~1") == [("2.0", "3.0")]


def test_a_link_in_the_place_of_the_lock_is_reported(bare_place: Place, repository: Repository) -> None:
    bare_place.lock.unlink()
    bare_place.lock.symlink_to("elsewhere.lock")
    repository.git("add", "config/plugins.lock")
    repository.git("commit", "--quiet", "--message", "link")
    bare_place.lock.unlink()
    write(bare_place, values.lock())
    done = bare_place.run("diff", "HEAD", check=False)
    assert "plugins.lock is not a lock in HEAD [usage]" in done.stderr
    assert "found: a symbolic link" in done.stderr


def test_what_is_committed_must_be_a_lock(bare_place: Place, repository: Repository) -> None:
    repository.commit(files={"config/plugins.lock": "plugins = [\n"})
    done = bare_place.run("diff", "HEAD", check=False)
    assert done.returncode == 3
    assert "where: HEAD:plugins.lock" in done.stderr


def test_markdown_shows_foreign_text_as_it_is(bare_place: Place, repository: Repository) -> None:
    (plugin,) = values.lock().plugins
    odd = plugin.replace(requested="`tiny` @ada [x](https://example.org) | <b>")
    write(bare_place, values.lock(values.package(version="3.0"), plugins=(odd,)))
    lines = bare_place.run("diff", "HEAD", "--markdown").stdout.splitlines()
    assert lines[:3] == [
        "| package | old | new | required by |",
        "|---|---|---|---|",
        "| `tiny` | `2.0` | `3.0` | `tiny` |",
    ]
    assert "**Plugins**" in lines
    assert "- `` plugin tiny: requested tiny → `tiny` @ada [x](https://example.org) | <b> ``" in lines
    write(bare_place, values.lock(values.package(version="2.0")))
    assert bare_place.run("diff", "HEAD", "--markdown").stdout == "the locks are the same\n"
