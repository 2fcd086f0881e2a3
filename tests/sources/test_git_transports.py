from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.canary import CANARY
from tests.kit.git_server import find_sshd, serve_https, serve_ssh
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.place import Place

TOKEN = f"{CANARY}/with@odd%signs"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    root = tmp_path / "served"
    repository = Repository.init(root / "tiny")
    projects.project(
        repository.path, name="tiny", entry_points={"vllm.general_plugins": {"tiny": "tiny:__loader__.get_filename"}}
    )
    repository.commit()
    repository.git("tag", "--annotate", "--message", "one", "v1")
    return repository


def everything_written(place: Place) -> bytes:
    return b"".join(path.read_bytes() for path in place.root.rglob("*") if path.is_file())


def test_a_git_url_may_take_its_token_from_the_environment(
    place: Place, repository: Repository, tmp_path: Path
) -> None:
    with serve_https(repository.path.parent, tmp_path, user=TOKEN, password=TOKEN) as server:
        url = f"https://${{GIT_TOKEN}}@{server.host}/tiny/.git"
        place.write(f"plugins:\n  - {{name: tiny, source: git, url: '{url}', ref: v1}}\n")
        variables = {"GIT_SSL_CAINFO": str(server.authority), "GIT_TOKEN": TOKEN}
        done = place.run("lock", "-v", env=variables)
        place.run("sync", env=variables)
        refused = place.run("lock", "--upgrade", env={**variables, "GIT_TOKEN": "another-secret"}, check=False)
    assert place.plugin("tiny")["commit-id"] == repository.head
    assert place.plugin("tiny")["url"] == f"https://{server.host}/tiny/.git"
    assert TOKEN not in done.stdout + done.stderr
    assert TOKEN.encode() not in everything_written(place)
    assert refused.returncode == 1
    assert "another-secret" not in refused.stdout + refused.stderr
    assert refused.stderr.splitlines()[2:] == [
        "vllm-plugins: error: the git repository can't be read [source-unavailable]",
        f"  where: https://****@{server.host}/tiny/.git",
        f"  found: fatal: Authentication failed for 'https://{server.host}/tiny/.git/'",
        "  required by: plugin 'tiny'",
        "  next: check the url of plugin 'tiny' and your access to it, with git ls-remote",
    ]


@pytest.mark.skipif(find_sshd() is None, reason="no ssh server: install openssh-server")
def test_a_git_url_may_use_ssh_with_a_key(place: Place, repository: Repository, tmp_path: Path) -> None:
    scratch = tmp_path / "ssh"
    scratch.mkdir()
    with serve_ssh(scratch) as server:
        place.write(
            f"plugins:\n  - {{name: tiny, source: git, url: 'ssh://{server.host}{repository.path}', ref: v1}}\n"
        )
        place.run("lock", env={"GIT_SSH_COMMAND": server.command})
    assert place.plugin("tiny")["commit-id"] == repository.head
    assert place.versions == {"tiny": "1.0"}
