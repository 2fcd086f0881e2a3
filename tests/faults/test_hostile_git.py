"""Git repositories that were made to do harm, and URLs and refs that would be options. Nothing of them ever runs."""

from __future__ import annotations

import itertools
import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.kit import git_server, projects
from tests.kit.repositories import Repository, git_environment

from .campaign import sample

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.place import Completed, Place


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """What hostile commands would write: it must not be there afterwards."""
    return tmp_path / "ran"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository.init(tmp_path / "served" / "tiny")
    projects.project(made.path, name="tiny")
    made.commit()
    return made


@pytest.mark.parametrize("kind", ["work tree", "bare"])
def test_the_configuration_of_a_local_directory_runs_nothing(place: Place, ran: Path, kind: str) -> None:
    """A partial clone fetches what it lacks to list its files, with the program that its own configuration names.

    An archive can bring such a work tree, and a commit can contain the files of a bare repository.
    """
    made = Repository.init(place.config / "tiny")
    projects.project(made.path, name="tiny")
    made.commit(files={"lacking/x.txt": ""})
    made.git("sparse-checkout", "set", "--cone", "--sparse-index", "src")
    tree = made.git("rev-parse", "HEAD:lacking")
    (made.path / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    for key, value in (
        ("remote.origin.url", made.path.parent.as_uri()),
        ("remote.origin.uploadpack", f"touch {ran}; false"),
        ("remote.origin.promisor", "true"),
        ("core.repositoryformatversion", "1"),
        ("extensions.partialClone", "origin"),
    ):
        made.git("config", key, value)
    if kind == "bare":
        made.git("config", "core.worktree", str(made.path))
        for path in (made.path / ".git").iterdir():
            path.rename(made.path / path.name)
        (made.path / ".git").rmdir()
        Repository.init(place.config)
    place.write("plugins:\n  - {name: tiny, source: local, path: tiny}\n")
    for words in (("lock", "--check"), ("lock",), ("status",), ("doctor",), ("lock", "--check")):
        place.run(*words, check=False)
        assert not ran.exists(), words
    subprocess.run(["git", "ls-files"], cwd=made.path, env=git_environment(), capture_output=True, check=False)
    assert ran.exists()  # git itself runs it


def entry(url: str, **keys: str) -> str:
    more = "".join(f", {key}: '{value}'" for key, value in keys.items())
    return f"plugins:\n  - {{name: tiny, source: git, url: '{url}'{more}}}\n"


def lock(place: Place, text: str, ran: Path, **env: str) -> Completed:
    """``lock`` with this manifest, which may fail: in words, with nothing run and nothing changed."""
    place.manifest.write_text(text)
    before = place.files()
    done = place.run("lock", "-q", env=env, check=False)
    assert not ran.exists()
    if done.returncode != 0:
        assert done.stderr.startswith("vllm-plugins: error: ")
        assert place.files() == before
    return done


@pytest.mark.parametrize(
    "url",
    [
        "--upload-pack=touch {ran}",
        "-u touch {ran}",
        "ext::sh -c touch% {ran}",
        "git+ext::sh -c touch% {ran}",
        "fd::17/foo",
        "ssh://-oProxyCommand=touch${{IFS}}{ran}/x",
        "ssh://user@-oProxyCommand=touch {ran}/x",
        "-oProxyCommand=touch {ran}:x",
        "file://../tiny",
        "git://127.0.0.1/tiny",
        "transport::https://127.0.0.1/tiny",
    ],
)
@pytest.mark.parametrize("how", ["written", "variable"])
def test_a_url_that_is_an_option_or_a_program(place: Place, ran: Path, url: str, how: str) -> None:
    whole = url.format(ran=ran)
    text = entry(whole.replace("'", "''")) if how == "written" else entry("${URL}")
    done = lock(place, text, ran, URL=whole, IFS=" ", GIT_ALLOW_PROTOCOL="ext:fd:git:file:https:ssh")
    assert done.returncode == (2 if how == "written" else 1)


@pytest.mark.parametrize("ref", ["--upload-pack=touch x", "-f", "main:refs/heads/x", "v1 --exec=x", "../../x", "@{-1}", "main^{/x}"])  # fmt: skip
def test_a_ref_that_is_an_option_or_an_expression(place: Place, repository: Repository, ran: Path, ref: str) -> None:
    assert lock(place, entry(repository.url, ref=ref), ran).returncode == 2


SUBMODULES = ("ext::sh -c touch% {ran}", "file://{secret}", "{secret}", "git://127.0.0.1/x", "-u./x", "ssh://-oProxyCommand=touch%20{ran}/x")  # fmt: skip
ALLOWED = (None, "ext:file:git:https:ssh")


# Without GIT_ALLOW_PROTOCOL, git itself refuses most of them.
@pytest.mark.parametrize(
    ("allowed", "url"),
    [*itertools.product(ALLOWED[1:], SUBMODULES), *sample(itertools.product(ALLOWED[:1], SUBMODULES), of=3)],
)
def test_a_submodule_that_reaches_into_this_machine(
    place: Place, tmp_path: Path, ran: Path, url: str, allowed: str | None
) -> None:
    """A repository from elsewhere, over https."""
    secret = Repository.init(tmp_path / "secret")
    secret.commit(files={"secret.txt": "of this machine"})
    made = Repository.init(tmp_path / "served" / "tiny")
    projects.project(made.path, name="tiny")
    made.submodule(secret, "sub")
    text = (made.path / ".gitmodules").read_text().replace(secret.url, url.format(ran=ran, secret=secret.path))
    made.commit(files={".gitmodules": text})
    with git_server.serve_https(made.path.parent, tmp_path, user="ada", password="ada") as server:
        done = lock(
            place,
            entry(f"https://ada:ada@{server.host}/tiny/.git"),
            ran,
            GIT_SSL_CAINFO=str(server.authority),
            **({} if allowed is None else {"GIT_ALLOW_PROTOCOL": allowed}),
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "vllm-plugins: error: a git submodule can't be fetched [source-unavailable]"


@pytest.mark.parametrize("how", ["link", "link to a file", "link in between", "nothing", "git directory"])
def test_a_subdirectory_that_leads_out(place: Place, repository: Repository, tmp_path: Path, ran: Path, how: str) -> None:  # fmt: skip
    elsewhere = projects.project(tmp_path / "elsewhere" / "project", name="tiny")
    links = {"link": elsewhere, "link to a file": elsewhere / "pyproject.toml", "link in between": elsewhere.parent}
    if how in links:
        (repository.path / "sub").symlink_to(links[how])
        repository.commit()
    below = {"link in between": "sub/project", "nothing": "no", "git directory": ".git"}.get(how, "sub")
    done = lock(place, entry(repository.url, subdirectory=below), ran)
    assert done.returncode == 1
    what = {"nothing": "is not a directory of the git repository", "git directory": "is not a Python project"}
    wanted = what.get(how, "leads out of the git repository")
    assert (
        done.stderr.splitlines()[0]
        == f"vllm-plugins: error: the subdirectory {below!r} {wanted} [source-unavailable]"
    )


HOSTILE_CONFIG = """\
[core]
\tfsmonitor = touch {ran}
\thooksPath = {hooks}
\tsshCommand = touch {ran}
\tpager = touch {ran}
\teditor = touch {ran}
\tgitProxy = touch {ran}
\taskPass = touch {ran}
\tattributesFile = {hooks}/attributes
\texcludesFile = {hooks}/excludes
[filter "evil"]
\tsmudge = touch {ran}
\tclean = touch {ran}
\tprocess = touch {ran}
\trequired = true
[diff "evil"]
\ttextconv = touch {ran}
\texternal = touch {ran}
\tcommand = touch {ran}
[uploadpack]
\tpackObjectsHook = touch {ran}
[alias]
\tls-files = !touch {ran}
[credential]
\thelper = !touch {ran}
[include]
\tpath = {hooks}/more
"""
ATTRIBUTES = "* filter=evil diff=evil export-subst ident\n"


@pytest.mark.parametrize("dynamic", [False, True], ids=["written version", "version from git"])
def test_hooks_and_filters_of_a_local_repository(place: Place, tmp_path: Path, ran: Path, dynamic: bool) -> None:
    """Its files are built, so its backend is trusted; what git would run on the way is not part of that."""
    path = place.config / "mine"
    made = Repository.init(path)
    projects.project(path, name="mine")
    if dynamic:
        text = (path / "pyproject.toml").read_text()
        (path / "pyproject.toml").write_text(text.replace("requires = []", 'requires = ["setuptools-scm"]'))
    made.commit(files={".gitattributes": ATTRIBUTES, "src/mine/id.txt": "$Id$ $Format:%H$\n"})
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman", "pre-auto-gc"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (hooks / name).chmod(0o755)
        (path / ".git" / "hooks").mkdir(exist_ok=True)
        (path / ".git" / "hooks" / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (path / ".git" / "hooks" / name).chmod(0o755)
    (hooks / "attributes").write_text(ATTRIBUTES)
    (hooks / "more").write_text(f"[core]\n\tfsmonitor = touch {ran}\n")
    with open(path / ".git" / "config", "a", encoding="utf-8") as file:
        file.write(HOSTILE_CONFIG.format(ran=ran, hooks=hooks))
    place.manifest.write_text("plugins:\n  - {name: mine, source: local, path: mine}\n")
    done = place.run("lock", "-q", check=False)
    assert not ran.exists()
    # The index of this test has no setuptools-scm: what comes after git is not reached then.
    assert done.returncode == (1 if dynamic else 0), done.stderr
    if not dynamic:
        place.run("sync", "-q")
        assert (place.site / "mine/id.txt").read_text() == "$Id$ $Format:%H$\n"  # as it lies there


def test_attributes_of_a_repository_change_no_file(place: Place, repository: Repository, ran: Path) -> None:
    """A filter needs a command, which the repository can't bring; what git itself would put in is the commit's, always."""
    repository.commit(files={".gitattributes": "* filter=evil export-subst\n", "src/tiny/id.txt": "$Format:%H$\n"})
    assert lock(place, entry(repository.url), ran).returncode == 0
    place.run("sync", "-q")
    assert (place.site / "tiny/id.txt").read_text() == "$Format:%H$\n"


@pytest.mark.parametrize("kind", ["git", "local"])
def test_file_names_that_are_hard_to_write(place: Place, tmp_path: Path, ran: Path, kind: str) -> None:
    """Line breaks, quotes, what is not UTF-8, and what looks like an option: hashed, copied, and told apart."""
    path = place.config / "mine"
    made = Repository.init(path)
    projects.project(path, name="tiny")
    names = [b"a\nb", b'"quoted"', b"\xff\xfe", b"-n", b"--output=x", b"tab\there", b"back\\slash", "ü".encode()]
    for name in names:
        with open(os.path.join(os.fsencode(path), name), "wb") as file:
            file.write(b"x")
    made.commit()
    text = entry(made.url) if kind == "git" else "plugins:\n  - {name: tiny, source: local, path: mine}\n"
    assert lock(place, text, ran).returncode == 0
    first = place.plugin("tiny")["tree-sha256"]
    for name in (names[0], names[2]):
        os.rename(os.path.join(os.fsencode(path), name), os.path.join(os.fsencode(path), name + b"2"))
        made.commit()
        place.run("lock", "-q", "--upgrade")
        assert place.plugin("tiny")["tree-sha256"] != first, name
        first = place.plugin("tiny")["tree-sha256"]


def test_a_tree_that_writes_into_the_repository(place: Place, repository: Repository, ran: Path) -> None:
    """``.git/hooks/post-checkout`` as a path of the tree, which git's own porcelain would not commit."""

    def git(*words: str, given: str = "") -> str:
        done = subprocess.run(
            ["git", *words], cwd=repository.path, env=git_environment(), input=given, capture_output=True, text=True, check=True
        )  # fmt: skip
        return done.stdout.strip()

    blob = git("hash-object", "-w", "--stdin", given=f"#!/bin/sh\ntouch {ran}\n")
    hooks = git("mktree", given=f"100755 blob {blob}\tpost-checkout\n")
    inner = git("mktree", given=f"040000 tree {hooks}\thooks\n")
    outer = git("mktree", given=git("ls-tree", "HEAD") + f"\n040000 tree {inner}\t.git\n")
    commit = git("commit-tree", "-m", "hostile", outer)
    git("update-ref", "refs/heads/hostile", commit)
    done = lock(place, entry(repository.url, ref="hostile"), ran)
    assert done.returncode == 1
    assert "invalid path '.git/hooks/post-checkout'" in done.stderr


OUT = {
    "absolute": "/etc/passwd",
    "above": "../../../..",
    "own git directory": ".git/config",
    "through a link": "up/../..",
}


@pytest.mark.parametrize("how", OUT)
def test_a_link_out_of_the_repository_is_refused(place: Place, repository: Repository, ran: Path, how: str) -> None:
    """A build follows links: the wheel would contain a file of this machine."""
    if how == "through a link":
        (repository.path / "src" / "up").symlink_to(".")
    (repository.path / "src" / "link").symlink_to(OUT[how])
    repository.commit()
    done = lock(place, entry(repository.url), ran)
    assert done.returncode == 1
    assert "a symbolic link leads out of the git repository" in done.stderr
    assert f"  found: src/link → {OUT[how]}\n" in done.stderr
    assert not place.lock.exists()


def lock_subdirectory(place: Place, repository: Repository, ran: Path) -> Completed:
    projects.project(repository.path / "python", name="tiny")
    repository.commit()
    return lock(place, entry(repository.url, subdirectory="python"), ran)


@pytest.mark.parametrize("how", ["in it", "through a link", "through two links"])
def test_a_link_out_that_a_build_of_a_subdirectory_follows_is_refused(
    place: Place, repository: Repository, ran: Path, how: str
) -> None:
    links = {
        "in it": {"python/src/link": "/etc/passwd"},
        "through a link": {"shared/link": "/etc/passwd", "python/src/shared": "../../shared"},
        "through two links": {"c/d/link": "/etc/passwd", "b/c": "../c", "python/src/b": "../../b"},
    }[how]
    for path, target in links.items():
        (repository.path / path).parent.mkdir(parents=True, exist_ok=True)
        (repository.path / path).symlink_to(target)
    done = lock_subdirectory(place, repository, ran)
    assert done.returncode == 1
    assert "a symbolic link leads out of the git repository" in done.stderr
    assert f"  found: {next(iter(links))} → /etc/passwd\n" in done.stderr


def test_a_link_out_elsewhere_in_the_repository_is_not_there_for_a_build(
    place: Place, repository: Repository, tmp_path: Path, ran: Path
) -> None:
    """Nor does git call the work tree modified, its own or that of a submodule."""
    inner = Repository.init(tmp_path / "inner")
    (inner.path / "link").symlink_to("/etc/passwd")
    inner.commit()
    repository.submodule(inner, "inner")
    (repository.path / "docs").mkdir()
    (repository.path / "docs" / "a ü").symlink_to("/etc/passwd")
    project = projects.project(repository.path / "python", name="tiny")
    with (project / "backend.py").open("a") as backend:
        backend.write(
            "\nimport os, subprocess\n"
            "assert not any(map(os.path.lexists, ('../docs/a ü', '../inner/link')))\n"
            "assert not subprocess.check_output(('git', 'status', '--porcelain', '-uno'))\n"
        )
    repository.commit()
    done = lock(place, entry(repository.url, subdirectory="python"), ran, GIT_ALLOW_PROTOCOL="file")
    assert done.returncode == 0, done.stderr


def test_links_inside_of_the_repository_are_links(place: Place, repository: Repository, ran: Path) -> None:
    """They are hashed and laid out as links, those that lead nowhere too."""
    (repository.path / "src" / "missing").symlink_to("nothing")
    (repository.path / "src" / "same").symlink_to("../src/../pyproject.toml")
    (repository.path / "loop").symlink_to("loop")
    repository.commit()
    assert lock(place, entry(repository.url), ran).returncode == 0
    first = place.plugin("tiny")["tree-sha256"]
    elsewhere = replace(place, root=place.root / "another")
    elsewhere.manifest.write_text(place.manifest.read_text())
    elsewhere.run("lock", "-q")
    assert elsewhere.plugin("tiny")["tree-sha256"] == first
