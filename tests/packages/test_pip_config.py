"""Where packages come from: what pip reports of its configuration, and what uv's configuration adds."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit import interpreters
from vllm_plugins.core import process
from vllm_plugins.core.errors import UsageError
from vllm_plugins.packages import pip_config, programs
from vllm_plugins.packages._net import keyring
from vllm_plugins.startup import settings

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "https://index.example/simple"


pytestmark = pytest.mark.usefixtures("home")


def _pip_conf(home: Path, *lines: str, section: str = "global") -> None:
    path = home / ".config/pip/pip.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((f"[{section}]", *lines)) + "\n")


def _uv_toml(home: Path, text: str) -> None:
    path = home / ".config/uv/uv.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_file_says_where_packages_come_from(home: Path) -> None:
    _pip_conf(
        home,
        f"index-url = {INDEX}",
        "extra-index-url = https://two.example/simple\n    https://three.example/simple",
        "trusted-host = two.example three.example",
        "find-links = ~/links",
        "timeout = 3",
        "retries = 1",
    )
    found = pip_config.read()
    assert found.indexes == (INDEX, "https://two.example/simple", "https://three.example/simple")
    assert found.trusted_hosts == ("two.example", "three.example")
    assert found.find_links == ((home / "links").as_uri(),)
    assert (found.timeout, found.retries, found.ignored) == (3, 1, ())


def test_variables_go_before_the_section_install_and_that_before_global(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pip_conf(home, "index-url = https://global.example", "[install]", "index-url = https://install.example")
    assert pip_config.read().index_url == "https://install.example"
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    assert pip_config.read().index_url == INDEX


def test_a_second_name_of_an_option_counts(home: Path) -> None:
    _pip_conf(home, f"pypi-url = {INDEX}", "default-timeout = 4")
    found = pip_config.read()
    assert (found.index_url, found.timeout) == (INDEX, 4)


def test_a_configuration_file_of_a_relative_name_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "own.conf").write_text(f"[global]\nindex-url = {INDEX}\n")
    monkeypatch.chdir(home)
    monkeypatch.setenv("PIP_CONFIG_FILE", "own.conf")
    assert pip_config.read().index_url == INDEX


@pytest.mark.parametrize(
    "line",
    ["quiet = 3", "verbose = 2", "isolated = true", "no-color = true", "log = /nowhere/x", "python = /nowhere"],
)
def test_how_much_pip_prints_makes_no_difference(home: Path, line: str) -> None:
    _pip_conf(home, f"index-url = {INDEX}", line)
    assert pip_config.read().index_url == INDEX


@pytest.mark.parametrize("name", ["PIP_QUIET", "PIP_ISOLATED", "PIP_VERBOSE", "PIP_DEBUG"])
def test_a_quiet_isolated_or_verbose_pip_of_the_environment_makes_no_difference(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    _pip_conf(home, "extra-index-url = https://two.example/simple")
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    assert pip_config.read().indexes == (INDEX, "https://two.example/simple")


def test_an_empty_answer_of_pip_is_an_error(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pip_conf(home, "index_url = https://one.example", "index-url = https://two.example")  # left to pip
    _program(tmp_path / "silent", "#!/bin/sh\nexit 0\n")
    monkeypatch.setattr("vllm_plugins.packages.programs.PIP", (str(tmp_path / "silent"),))
    with pytest.raises(UsageError, match="does not report its configuration"):
        pip_config.read()


def test_a_pip_without_a_default_index_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "other", "#!/bin/sh\necho other output\n")
    monkeypatch.setattr("vllm_plugins.packages.programs.PIP", (str(tmp_path / "other"),))
    with pytest.raises(UsageError, match="default index"):
        pip_config.read()


def test_without_configuration_the_index_is_pips_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip is asked for it once."""
    default = pip_config.read().index_url
    assert str(default).startswith("https://")
    _program(tmp_path / "other", "#!/bin/sh\nexit 1\n")
    monkeypatch.setattr("vllm_plugins.packages.programs.PIP", (str(tmp_path / "other"),))
    assert pip_config.read().index_url == default


@pytest.mark.parametrize("line", ["no-index = true", "no-index = 1"])
def test_without_an_index_none_is_used_whatever_uv_says(
    home: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    _pip_conf(home, line, f"index-url = {INDEX}", "find-links = /srv")
    monkeypatch.setenv("UV_DEFAULT_INDEX", INDEX)
    monkeypatch.setenv("UV_INDEX", INDEX)
    found = pip_config.read()
    assert (found.index_url, found.indexes, found.find_links) == (None, (), ("file:///srv",))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("timeout = soon", "timeout"),
        ("timeout = -1", "timeout"),
        ("timeout = nan", "timeout"),
        ("retries = inf", "retries"),
        ("keyring-provider = wallet", "keyring"),
    ],
)
def test_a_value_that_is_not_valid_is_an_error_with_its_key(home: Path, line: str, what: str) -> None:
    _pip_conf(home, f"index-url = {INDEX}", line)
    with pytest.raises(UsageError, match=what):
        pip_config.read()


def test_a_timeout_of_zero_is_as_long_as_a_call_may_take(home: Path) -> None:
    _pip_conf(home, f"index-url = {INDEX}", "timeout = 0")  # with which pip waits without an end
    assert pip_config.read().timeout == settings.PATIENCE


def test_keys_that_choose_versions_have_no_effect_and_are_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pip_conf(home, f"index-url = {INDEX}", "constraint = /none.txt", "user = true", "pre = true")
    monkeypatch.setenv("UV_EXCLUDE_NEWER", "2020-01-01")
    monkeypatch.setenv("UV_OVERRIDE", "/none.txt")
    assert pip_config.read().ignored == (
        "constraint of pip.conf",
        "pre of pip.conf",
        "UV_EXCLUDE_NEWER",
        "UV_OVERRIDE",
    )
    monkeypatch.setenv("PIP_CONSTRAINT", "/none.txt")
    assert pip_config.read().ignored[:2] == ("PIP_CONSTRAINT", "pre of pip.conf")


def test_variables_of_uv_add_indexes_and_name_the_default_where_pip_has_none(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")
    monkeypatch.setenv("UV_INDEX", "inner=https://inner.example/simple https://second.example/simple")
    monkeypatch.setenv("UV_INDEX_INNER_USERNAME", "ada")
    monkeypatch.setenv("UV_INDEX_INNER_PASSWORD", "s3:cret")
    monkeypatch.setenv("UV_FIND_LINKS", "/links")
    monkeypatch.setenv("UV_INSECURE_HOST", "inner.example")
    extra = ("https://ada:s3%3Acret@inner.example/simple", "https://second.example/simple")
    found = pip_config.read()
    assert found.indexes == ("https://uv.example/simple", *extra)
    assert (found.find_links, found.trusted_hosts) == (("file:///links",), ("inner.example",))
    assert "s3:cret" in found.secrets
    _pip_conf(home, f"index-url = {INDEX}", "extra-index-url = https://two.example/simple")
    assert pip_config.read().indexes == (INDEX, "https://two.example/simple", *extra)


def test_uv_toml_counts_where_nothing_else_names_an_index(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _uv_toml(
        home,
        '[[index]]\nname = "inner"\nurl = "https://inner.example/simple"\n'
        '[[index]]\nurl = "https://uv.example/simple"\ndefault = true\n'
        '[[index]]\nname = "torch"\nurl = "https://torch.example"\nexplicit = true\n'
        '[pip]\nfind-links = ["/links"]\nallow-insecure-host = ["inner.example"]\nexclude-newer = "2020-01-01"\n',
    )
    found = pip_config.read()
    assert found.indexes == ("https://uv.example/simple", "https://inner.example/simple")
    assert (found.find_links, found.trusted_hosts) == (("file:///links",), ("inner.example",))
    assert found.ignored == ("exclude-newer of uv.toml",)
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    assert pip_config.read().indexes == (INDEX,)


def test_an_index_of_uv_may_be_a_directory_which_counts_from_the_file_that_names_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _uv_toml(
        home,
        'find-links = ["links", "~/more"]\n[[index]]\nurl = "./simple"\n[[index]]\nurl = "/srv"\ndefault = true\n',
    )
    found = pip_config.read()
    here = (home / ".config/uv").as_uri()
    assert found.indexes == ("file:///srv", f"{here}/simple")
    assert found.find_links == (f"{here}/links", (home / "more").as_uri())
    monkeypatch.chdir(home)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "one")
    monkeypatch.setenv("UV_INDEX", "named=/two three")
    assert pip_config.read().indexes == tuple(f"{home.as_uri()}/one file:///two {home.as_uri()}/three".split())


@pytest.mark.parametrize("default", [True, False])
def test_a_flat_index_of_uv_is_a_place_of_files(home: Path, *, default: bool) -> None:
    flat = f'[[index]]\nurl = "/wheels"\nformat = "flat"\ndefault = {str(default).lower()}\n'
    _uv_toml(
        home,
        flat
        + '[[index]]\nurl = "https://inner.example/simple"\n[[index]]\nurl = "/x"\nformat = "flat"\nexplicit = true\n',
    )
    found = pip_config.read()
    assert found.find_links == ("file:///wheels",)
    assert found.indexes[-1] == "https://inner.example/simple"
    assert len(found.indexes) == (1 if default else 2)
    _uv_toml(home, flat)
    found = pip_config.read()
    assert found.find_links == ("file:///wheels",)
    assert (found.index_url is None) == default
    assert found.no_index == (
        ("none: the default index of uv.toml, which is flat, forbids all indexes",) if default else ()
    )


def test_the_index_of_pip_may_be_a_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "simple").mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("PIP_INDEX_URL", "simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", str(home / "simple"))
    assert pip_config.read().indexes == ((home / "simple").as_uri(),) * 2


@pytest.mark.parametrize("key", ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"])
@pytest.mark.parametrize(
    "url", ["index.example/simple", '"https://ada:hunter2@index.example/simple"', "index.example:8080"]
)
def test_an_index_that_is_no_url_is_an_error(monkeypatch: pytest.MonkeyPatch, key: str, url: str) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f" {INDEX} ")  # a slip of a shell
    assert pip_config.read().index_url == INDEX
    monkeypatch.setenv(key, url)
    with pytest.raises(UsageError, match="the URL of an index in pip's or uv's configuration is not valid") as caught:
        pip_config.read()
    assert "hunter2" not in str(caught.value)


def test_uv_toml_and_pyproject_of_the_working_directory_do_not_count(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = home / "work"
    work.mkdir()
    (work / "uv.toml").write_text('index-url = "https://evil.example"\n')
    (work / "pyproject.toml").write_text('[tool.uv]\nindex-url = "https://evil.example"\n')
    (work / "pip.py").write_text("raise SystemExit('the pip.py of the working directory was run')\n")
    monkeypatch.chdir(work)
    assert "evil" not in str(pip_config.read().index_url)


def test_uv_toml_says_how_to_reach_an_index_whoever_names_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _uv_toml(
        home, 'native-tls = true\nallow-insecure-host = ["index.example"]\nno-index = true\nresolution = "lowest"\n'
    )
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    found = pip_config.read()
    assert (found.indexes, found.trusted_hosts, found.system_certs) == ((INDEX,), ("index.example",), True)
    assert programs.uv_environment(found, home)["UV_SYSTEM_CERTS"] == "true"
    assert found.ignored == ("resolution of uv.toml",)


def test_a_damaged_uv_toml_is_an_error_where_it_could_name_the_index(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _uv_toml(home, "[[index]\n")
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    assert pip_config.read().index_url == INDEX
    monkeypatch.delenv("PIP_INDEX_URL")
    with pytest.raises(UsageError, match="uv's configuration") as caught:
        pip_config.read()
    assert str(caught.value.where).endswith("uv.toml")


KEYRING = """#!/bin/sh
echo "$@" >>"$HOME/keyring.log"
case "$*" in
"--mode=creds --output=json get https://index.example/simple/") echo '{"username": "ada", "password": "%s"}';;
*) exit 1;;
esac
"""


def test_a_keyring_program_gives_the_login_of_an_index(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(home / "bin/keyring", KEYRING % "s3cret/of a keyring")
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    monkeypatch.setenv("PIP_KEYRING_PROVIDER", "subprocess")
    found = pip_config.read()
    assert found.index_url == "https://ada:s3cret%2Fof%20a%20keyring@index.example/simple"
    assert "s3cret/of a keyring" in found.secrets


def test_an_older_keyring_program_gives_the_password_of_a_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(home / "bin/keyring", '#!/bin/sh\ntest "$1 $2 $3" = "get index.example ada" && echo s3cret\n')
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PIP_KEYRING_PROVIDER", "subprocess")
    monkeypatch.setenv("PIP_INDEX_URL", "https://ada@index.example/simple")
    assert pip_config.read().index_url == "https://ada:s3cret@index.example/simple"


def test_the_library_keyring_is_asked_in_a_process_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from types import SimpleNamespace\n"
        "def get_credential(service, user):\n"
        "    known = service == 'index.example'\n"
        "    return SimpleNamespace(username='ada', password='s3cret') if known else None\n"
    )
    python = interpreters.make(home / "env", modules={"keyring.py": code})
    monkeypatch.setattr(process, "PYTHON", (python, "-P"))
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    monkeypatch.setenv("PIP_KEYRING_PROVIDER", "import")
    assert pip_config.read().index_url == "https://ada:s3cret@index.example/simple"
    assert "keyring" not in sys.modules


@pytest.mark.parametrize("provider", [None, "auto", "disabled", "subprocess", "import"])
def test_a_keyring_that_is_not_named_or_fails_changes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, provider: str | None
) -> None:
    log = home / "keyring.log"
    _program(home / "bin/keyring", f"#!/bin/sh\necho asked >>'{log}'\nexit 1\n")
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    if provider is not None:
        monkeypatch.setenv("PIP_KEYRING_PROVIDER", provider)
    assert pip_config.read().index_url == INDEX
    assert log.exists() == (provider == "subprocess")


def test_a_keyring_that_waits_for_somebody_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be asked three times for each index."""
    _program(home / "bin/keyring", "#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(keyring, "_PATIENCE", 1)
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    monkeypatch.setenv("PIP_KEYRING_PROVIDER", "subprocess")
    with pytest.raises(UsageError, match="the keyring did not answer within 1 seconds") as caught:
        pip_config.read()
    assert caught.value.next_step == "unlock the keyring, or unset PIP_KEYRING_PROVIDER and UV_KEYRING_PROVIDER"
    monkeypatch.delenv("PIP_KEYRING_PROVIDER")
    assert pip_config.read().index_url == INDEX


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://index.example/hf_abcdefghijklmnopqrstuvwx/simple", "get index.example\n"),  # a token in the path
        ("https://--help/simple", ""),
    ],
)
def test_a_keyring_is_told_no_secret_and_no_option(
    home: Path, monkeypatch: pytest.MonkeyPatch, url: str, asked: str
) -> None:
    """Each user of the machine can read the words of a command line."""
    log = home / "keyring.log"
    log.touch()
    _program(home / "bin/keyring", f"#!/bin/sh\nshift 2; echo \"$@\" >>'{log}'\nexit 1\n")
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert keyring.with_login(url, "subprocess") == url
    assert log.read_text() == asked


@pytest.mark.parametrize(
    "answer", ['{"username": null, "password": "x"}', '{"username": "x", "password": [1]}', "[]"]
)
def test_what_is_no_login_is_not_sent(home: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    _program(home / "bin/keyring", f"#!/bin/sh\necho '{answer}'\n")
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert keyring.with_login(INDEX, "subprocess") == INDEX


def test_a_login_of_netrc_goes_before_the_keyring(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(home / "bin/keyring", KEYRING % "s3cret")
    (home / ".netrc").write_text("machine index.example login ada password other\n")
    (home / ".netrc").chmod(0o600)
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    monkeypatch.setenv("PIP_KEYRING_PROVIDER", "subprocess")
    assert pip_config.read().index_url == INDEX


@pytest.mark.parametrize("key", ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_PROXY", "UV_INDEX"])
def test_a_url_that_is_not_valid_is_an_error(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    monkeypatch.setenv(key, "http://ada:hunter2@[::1/simple")
    with pytest.raises(UsageError, match="a URL of pip's or uv's configuration is not valid") as caught:
        pip_config.read()
    assert caught.value.found == "Invalid IPv6 URL"
    assert "hunter2" not in str(caught.value)
