"""pip and uv as programs: every option of theirs is known here, and only the honoured ones reach them."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from vllm_plugins.packages import installers, programs
from vllm_plugins.packages._configuration import options
from vllm_plugins.packages.installers import Pip
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from pathlib import Path

OPTION = re.compile(r"^ +(?:-\w, )?--([a-z][a-z0-9-]+)", re.MULTILINE)
VARIABLE = re.compile(r"\[env: (UV_[A-Z_]+)=")
CONFIG = PipConfig(
    index_url="https://ada:s3cret@index.example/simple",
    extra_index_urls=("https://two.example/simple", "https://three.example/simple"),
    find_links=("https://links.example/with%20space",),
    cert="/certificates.pem",
    client_cert="/client.pem",
    trusted_hosts=("two.example",),
    timeout=7,
    retries=2,
)


def _help(*command: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "COLUMNS": "1000"}
    done = subprocess.run([*command, "--help"], env=env, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def uv_help() -> str:
    program = str(installers.find_uv())
    return _help(program, "pip", "install") + _help(program, "pip", "compile")


def test_every_option_of_pip_is_honoured_or_ignored() -> None:
    found = set(OPTION.findall(_help(*programs.PIP, "install")))
    assert "index-url" in found
    assert found - options.PIP_HONOURED - options.PIP_IGNORED == set(), "add it to _configuration.options"


def test_every_option_of_uv_is_honoured_or_ignored(uv_help: str) -> None:
    found = set(OPTION.findall(uv_help))
    assert "default-index" in found
    assert found - options.UV_HONOURED - options.UV_IGNORED == set(), "add it to _configuration.options"


def test_every_variable_of_uv_is_honoured_or_belongs_to_an_ignored_option(uv_help: str) -> None:
    other_names = {
        "UV_INSECURE_HOST": "allow-insecure-host",
        "UV_WORKING_DIR": "directory",
        "UV_SYSTEM_PYTHON": "system",
    }
    for variable in set(VARIABLE.findall(uv_help)) - options.UV_VARIABLES:
        option = other_names.get(variable, variable.removeprefix("UV_").lower().replace("_", "-"))
        assert option in options.UV_IGNORED, f"add {variable} to _configuration.options"


def test_no_option_is_honoured_and_ignored() -> None:
    assert not options.PIP_HONOURED & options.PIP_IGNORED
    assert not options.UV_HONOURED & options.UV_IGNORED
    assert not options.CHOICE & (options.PIP_HONOURED | options.UV_HONOURED)


def test_pip_gets_the_honoured_keys_and_nothing_else_of_its_configuration() -> None:
    environ = {"PATH": "/bin", "PIP_USER": "1", "PIP_TARGET": "/x", "PIP_INDEX_URL": "https://other", "UV_INDEX": "x"}
    found = programs.pip_environment(CONFIG, environ)
    assert {key: value for key, value in found.items() if key.startswith(("PIP_", "UV_"))} == {
        "PIP_CERT": "/certificates.pem",
        "PIP_CLIENT_CERT": "/client.pem",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_EXTRA_INDEX_URL": "https://two.example/simple https://three.example/simple",
        "PIP_FIND_LINKS": "https://links.example/with%20space",
        "PIP_INDEX_URL": "https://ada:s3cret@index.example/simple",
        "PIP_NO_INPUT": "1",
        "PIP_RETRIES": "2",
        "PIP_TIMEOUT": "7",
        "PIP_TRUSTED_HOST": "two.example",
    }
    assert found["PATH"] == "/bin"


def test_uv_gets_the_honoured_keys_and_nothing_else_of_its_configuration(tmp_path: Path) -> None:
    environ = {"UV_COMPILE_BYTECODE": "1", "UV_INDEX_URL": "x", "UV_HTTP_CONNECT_TIMEOUT": "3", "UV_OVERRIDE": "/x"}
    wheels = tmp_path / "with space"
    wheels.mkdir()
    config = replace(CONFIG, extra_index_urls=(), find_links=(wheels.as_uri(),))
    found = programs.uv_environment(config, tmp_path, {**environ, "PIP_USER": "1", "VIRTUAL_ENV": "/x"})
    assert found == {
        "NO_COLOR": "1",
        "SSL_CERT_FILE": "/certificates.pem",
        "SSL_CLIENT_CERT": "/client.pem",
        "UV_DEFAULT_INDEX": "https://ada:s3cret@index.example/simple",
        "UV_FIND_LINKS": wheels.as_uri(),
        "UV_HTTP_CONNECT_TIMEOUT": "3",
        "UV_HTTP_RETRIES": "2",
        "UV_HTTP_TIMEOUT": "7",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "two.example",
        "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }


def test_uv_gets_only_the_paths_of_find_links_that_exist(tmp_path: Path) -> None:
    wheels = tmp_path / "wheel house"
    wheels.mkdir()
    places = ((tmp_path / "missing").as_uri(), wheels.as_uri(), "https://links.example/page")
    found = programs.uv_environment(replace(CONFIG, find_links=places), tmp_path, {})
    assert found["UV_FIND_LINKS"] == f"{wheels.as_uri()},https://links.example/page"


def test_several_indexes_are_configured_by_a_file_without_their_logins(tmp_path: Path) -> None:
    found = programs.uv_environment(CONFIG, tmp_path, {})
    assert found["UV_CONFIG_FILE"] == str(tmp_path / "uv.toml")
    assert (found["UV_INDEX_I0_USERNAME"], found["UV_INDEX_I0_PASSWORD"]) == ("ada", "s3cret")
    assert "UV_NO_CONFIG" not in found
    text = (tmp_path / "uv.toml").read_text()
    assert "s3cret" not in text
    indexes = tomllib.loads(text)["index"]
    assert [index["url"] for index in indexes] == ["https://index.example/simple", *CONFIG.extra_index_urls]
    assert [index.get("default", False) for index in indexes] == [True, False, False]
    assert all(index["ignore-error-codes"] == [401, 403, 404, 410] for index in indexes)


def test_without_an_index_pip_is_told_to_use_none(tmp_path: Path) -> None:
    found = programs.pip_environment(PipConfig.without_index(), {})
    assert found["PIP_NO_INDEX"] == "1"
    assert "PIP_INDEX_URL" not in found
    assert "UV_DEFAULT_INDEX" not in programs.uv_environment(PipConfig.without_index(), tmp_path, {})


@pytest.mark.parametrize("config", [replace(CONFIG, no_proxy_env=True), replace(CONFIG, proxy="http://proxy:1")])
def test_a_proxy_of_the_environment_gives_way_to_pips_configuration(config: PipConfig, tmp_path: Path) -> None:
    environ = {"https_proxy": "http://environment:1", "HTTP_PROXY": "http://environment:1"}
    for env in (programs.pip_environment(config, environ), programs.uv_environment(config, tmp_path, environ)):
        assert "http://environment:1" not in env.values()
    assert programs.pip_environment(CONFIG, environ)["https_proxy"] == "http://environment:1"


def test_pip_finds_a_wheel_in_any_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LC_ALL", "POSIX"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")):
        monkeypatch.setenv(name, value)
    wheel = projects.wheel(tmp_path / "rädchen", "tiny")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"tiny @ {wheel.as_uri()} --hash=sha256:{digest}\n", encoding="utf-8")
    target = tmp_path / "target"
    target.mkdir()
    Pip(config=PipConfig.without_index()).install(requirements, target, offline=True)
    assert list(target.glob("tiny-1.0.dist-info"))
