"""Logins for registries of images from credential helpers, which are programs of others."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core.errors import RegistryError
from vllm_plugins.packages.images import _docker_logins

if TYPE_CHECKING:
    from pathlib import Path

HOST = "registry.example"


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of a user whose registry has a helper of its own, ``docker-credential-odd``."""
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {HOST: "odd"}}))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return {"DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path)}


def helper(directory: Path, text: str) -> None:
    path = directory / "docker-credential-odd"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("yes line | head -c 9000000 >&2; exit 1", "exit status 1: line"),
        ("printf '%09999d' 1 >&2; exit 1", f"exit status 1: {'0' * 300}"),
        ("echo first >&2; echo got ghp_abcdefghijklmnop >&2; exit 1", "exit status 1: got ****"),
        ("echo the vault is sealed; exit 2", "exit status 2: the vault is sealed"),
        ("exit 3", "exit status 3: no output"),
        ("head -c 9999 /dev/urandom", None),
        ("echo '['", None),
    ],
)
def test_what_a_helper_says_of_its_failure_is_one_line_without_its_secret(
    tmp_path: Path, environ: dict[str, str], text: str, found: str | None
) -> None:
    helper(tmp_path, text)
    with pytest.raises(RegistryError, match="the credential helper docker-credential-odd failed") as caught:
        _docker_logins.find(HOST, environ)
    assert found is None or caught.value.found == found
    assert len(str(caught.value)) < 1000


def test_a_helper_that_waits_is_ended(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path, 'echo \'{"Username": "ada", "Secret": "hunter2"}\'; exec sleep 30')
    monkeypatch.setattr(_docker_logins, "_PATIENCE", 1)
    with pytest.raises(RegistryError) as caught:
        _docker_logins.find(HOST, environ)
    assert "did not end within 1 seconds" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_helper_may_leave_a_process_behind(tmp_path: Path, environ: dict[str, str]) -> None:
    helper(tmp_path, 'sleep 30 & echo \'{"Username": "ada", "Secret": "hunter2"}\'')
    found = _docker_logins.find(HOST, environ)
    assert found == _docker_logins.Login(user="ada", password="hunter2")


def test_without_a_home_directory_no_file_of_the_working_directory_names_a_helper(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, a user may have a number and no name."""
    helper(tmp_path, f"touch {tmp_path / 'ran'}; exit 1")
    (tmp_path / "~" / ".docker").mkdir(parents=True)
    (tmp_path / "config.json").rename(tmp_path / "~" / ".docker" / "config.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert _docker_logins.find(HOST, {"PATH": environ.get("PATH", "")}) is None
    assert not (tmp_path / "ran").exists()
