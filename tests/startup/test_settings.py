from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kit.sandbox import needs_root
from vllm_plugins.core.errors import UsageError
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.environment.mistyped import unknown
from vllm_plugins.startup.settings import Settings, default_lock, patience

HOME = {"HOME": "/home/ada"}


def read(**env: str) -> Settings:
    return Settings.from_environment({**HOME, **env})


def test_the_default_places_are_below_the_home() -> None:
    settings = read()
    assert settings.manifest == Path("/home/ada/.config/vllm/plugins.yaml")
    assert settings.lock == Path("/home/ada/.config/vllm/plugins.lock")
    assert settings.store == Path("/home/ada/.local/share/vllm-plugins")
    assert not settings.manifest_named
    assert not settings.lock_named


def test_the_lock_is_next_to_the_manifest_unless_it_is_named() -> None:
    settings = read(VLLM_PLUGIN_CONFIG="/etc/vllm/p.yaml")
    assert (settings.lock, settings.manifest_named, settings.lock_named) == (Path("/etc/vllm/p.lock"), True, False)
    settings = read(VLLM_PLUGIN_LOCK="~/p.lock")
    assert (settings.lock, settings.lock_named) == (Path("/home/ada/p.lock"), True)


def test_no_two_manifests_of_a_directory_share_a_lock() -> None:
    names = ["plugins.yaml", "plugins.yml", "dev.yaml", ".yaml"]
    locks = [default_lock(Path("/p", name)).name for name in names]
    assert locks == ["plugins.lock", "plugins.yml.lock", "dev.lock", ".yaml.lock"]


def test_the_lock_of_plugins_yaml_may_have_a_name_of_pep_751(tmp_path: Path) -> None:
    lock, other = tmp_path / "plugins.lock", tmp_path / "pylock.vllm-plugins.toml"
    other.touch()
    assert default_lock(tmp_path / "plugins.yaml") == other
    assert default_lock(tmp_path / "dev.yaml") == tmp_path / "dev.lock"
    assert read(VLLM_PLUGIN_CONFIG=str(tmp_path / "plugins.yaml")).lock == other
    lock.touch()
    with pytest.raises(UsageError, match="two locks"):
        default_lock(tmp_path / "plugins.yaml")
    assert read(VLLM_PLUGIN_CONFIG=str(tmp_path / "plugins.yaml"), VLLM_PLUGIN_LOCK=str(lock)).lock == lock
    other.unlink()
    other.symlink_to("plugins.lock")
    assert default_lock(tmp_path / "plugins.yaml") == lock
    lock.unlink()
    assert default_lock(tmp_path / "plugins.yaml") == other
    lock.symlink_to("nothing")
    with pytest.raises(UsageError):
        default_lock(tmp_path / "plugins.yaml")


def test_an_option_takes_precedence_over_a_variable() -> None:
    env = {**HOME, "VLLM_PLUGIN_CONFIG": "/a", "VLLM_PLUGIN_LOCK": "/b", "VLLM_PLUGIN_REGISTRY_DIR": "/c"}
    settings = Settings.from_environment(env, config="/x", lock="/y", registry_dir="/z")
    assert (settings.manifest, settings.lock, settings.store) == (Path("/x"), Path("/y"), Path("/z"))


def test_an_empty_variable_is_an_unset_one() -> None:
    empty = dict.fromkeys(variables.VARIABLES, "")
    assert read(**empty) == read()


def test_without_a_home_nothing_is_expected_to_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda name: name)
    assert Settings.from_environment({}).manifest == Path("/.config/vllm/plugins.yaml")
    assert Settings.from_environment({"HOME": "relative"}).manifest == Path("/.config/vllm/plugins.yaml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLM_PLUGIN_FROZEN", "yes"),
        ("VLLM_PLUGIN_OPTIONAL", "true"),
        ("VLLM_PLUGIN_ON_ERROR", "Fail"),
        ("VLLM_PLUGIN_INSTALLER", "conda"),
        ("VLLM_PLUGIN_TRUST", "all"),
        ("VLLM_PLUGIN_TIMEOUT", "1.5"),
    ],
)
def test_an_invalid_value_is_refused_with_the_valid_ones(name: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(**{name: value})
    assert caught.value.what == f"the environment variable {name} has an invalid value"
    assert caught.value.found == repr(value)
    assert caught.value.next_step is not None
    example = caught.value.next_step.rpartition(f"{name}=")[2]
    read(**{name: example})


@pytest.mark.parametrize("value", ["0", "-1", "00", "1e3", "٣", "100000000", " 5", "5s"])
def test_a_timeout_is_a_whole_number_of_seconds(value: str) -> None:
    with pytest.raises(UsageError):
        patience({"VLLM_PLUGIN_TIMEOUT": value})


def test_a_timeout_of_days_is_allowed() -> None:
    assert patience({"VLLM_PLUGIN_TIMEOUT": "9999999"}) == 9999999
    assert patience({}) == 3600


@pytest.mark.parametrize(
    ("value", "group", "name", "allowed"),
    [
        (None, "vllm.general_plugins", "a", True),
        (None, "vllm.endpoint_plugins", "a", False),
        ("a", "vllm.endpoint_plugins", "a", True),
        ("a", "vllm.general_plugins", "b", False),
        ("a, b", "vllm.general_plugins", "b", False),
        ("a,b", "vllm.general_plugins", "b", True),
        ("", "vllm.general_plugins", "a", False),
        ("", "vllm.logits_processors", "a", True),
    ],
)
def test_vllms_allowlist_counts_as_vllm_reads_it(value: str | None, group: str, name: str, *, allowed: bool) -> None:
    settings = read(**({} if value is None else {"VLLM_PLUGINS": value}))
    assert settings.lets_through(group, name) is allowed


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("VLLM_PLUGINS_CONFIG", "VLLM_PLUGIN_CONFIG"),
        ("VLLM_PLUGIN_CONFG", "VLLM_PLUGIN_CONFIG"),
        ("VLLM_PLUGIN_ONERROR", "VLLM_PLUGIN_ON_ERROR"),
        ("VLLM_PLUGINS_LOCK", "VLLM_PLUGIN_LOCK"),
        ("VLLMPLUGIN_LOCK", "VLLM_PLUGIN_LOCK"),
        ("VLLM-PLUGIN-LOCK", "VLLM_PLUGIN_LOCK"),
        ("vllm_plugin_lock", "VLLM_PLUGIN_LOCK"),
        ("VLM_PLUGIN_REGISTRY_DIR", "VLLM_PLUGIN_REGISTRY_DIR"),
        ("VLLM_PLUGIN_REGISTRY", "VLLM_PLUGIN_REGISTRY_DIR"),
        ("VLLM_PLUGIN_TIME_OUT", "VLLM_PLUGIN_TIMEOUT"),
        ("VLLM_PLUGIN_DISABLED", "VLLM_PLUGIN_DISABLE"),
    ],
)
def test_a_mistyped_variable_is_found(name: str, meant: str) -> None:
    assert unknown({**HOME, name: "1"}) == {name: meant}


def test_other_variables_are_none_of_ours() -> None:
    others = ["VLLM_PLUGINS", "VLLM_USE_V1", "PLUGIN_CONFIG", "PATH", "JENKINS_PLUGIN_LOCK", "_VLLM_PLUGINS_OVERLAY"]
    assert unknown(dict.fromkeys([*others, *variables.VARIABLES], "1")) == {}


def test_vllms_own_variables_are_read_as_vllm_does() -> None:
    assert read(VLLM_TARGET_DEVICE="cpu").ignored == (("vllm.platform_plugins", "VLLM_TARGET_DEVICE=cpu"),)
    assert read(VLLM_TARGET_DEVICE="cuda").ignored == ()
    assert read(VLLM_CONFIGURE_LOGGING="0", VLLM_LOGGING_LEVEL="DEBUG").log_level is None
    assert read(VLLM_LOGGING_LEVEL="DEBUG").log_level == "DEBUG"


def test_a_value_that_is_passed_on_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variables.FALLBACK, "before")
    assert variables.inherited(variables.FALLBACK) == "before"
    variables.pass_on(variables.FALLBACK, "")
    assert variables.inherited(variables.FALLBACK) == ""
    variables.pass_on(variables.FALLBACK, None)
    assert variables.inherited(variables.FALLBACK) is None


@pytest.mark.parametrize(
    ("mode", "trust", "is_used"), [(0o755, "owner", True), (0o777, "owner", False), (0o777, "any", True)]
)
def test_a_cache_that_others_can_write_is_not_used(tmp_path: Path, mode: int, trust: str, is_used: bool) -> None:
    """uv installs from unpacked wheels in it as they are."""
    environ = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "caches"), "VLLM_PLUGIN_TRUST": trust}
    found = Settings.from_environment(environ)
    place = tmp_path / "caches" / "vllm-plugins"
    assert found.cache == place
    place.chmod(mode)
    assert found.cache == (place if is_used else None)


@needs_root
def test_a_cache_of_another_user_is_not_used(tmp_path: Path) -> None:
    found = Settings.from_environment({"HOME": str(tmp_path)})
    place = found.cache
    assert place is not None
    os.chown(place, 12345, 12345)
    assert found.cache is None
    os.chown(place, os.geteuid(), os.getegid())
    os.chown(place.parent, 12345, 12345)
    assert found.cache is None
