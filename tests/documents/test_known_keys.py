from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomlkit
from packaging import pylock

from tests.kit import values
from vllm_plugins.core.errors import InstallError, LockInvalid
from vllm_plugins.documents import lock_reader, lock_writer, selection
from vllm_plugins.documents._lock import known_keys
from vllm_plugins.documents.lock import TOOL
from vllm_plugins.documents.lock_reader import content_sha256

if TYPE_CHECKING:
    from vllm_plugins.documents.lock import Package

# Where each table of PEP 751 stands in a lock.
TABLES = {
    "": pylock.Pylock,
    "packages.": pylock.Package,
    "packages.wheels.": pylock.PackageWheel,
    "packages.directory.": pylock.PackageDirectory,
}
PEP_751 = sorted(
    prefix + field.name.replace("_", "-") for prefix, table in TABLES.items() for field in dataclasses.fields(table)
)


def document(*packages: Package) -> dict[str, Any]:
    return tomllib.loads(lock_writer.render(values.lock(*packages)).decode())


def read(changed: dict[str, Any]) -> None:
    changed["tool"][TOOL]["content-sha256"] = content_sha256(changed)
    lock_reader.parse(tomlkit.dumps(changed).encode(), Path("plugins.lock"))


def put(table: dict[str, Any], path: str, value: object) -> None:
    """Set a key; of a list of tables, in its first."""
    *parents, last = path.split(".")
    for name in parents:
        below: Any = table.setdefault(name, {})
        table = below[0] if isinstance(below, list) else below
    table[last] = value


@pytest.mark.parametrize("key", PEP_751)
def test_each_key_of_pep_751_has_a_treatment(key: str) -> None:
    assert key in known_keys.KEYS


# Not read from the table: who changes that by mistake must meet a test.
REFUSED = (
    "requires-python",
    "extras",
    "dependency-groups",
    "default-groups",
    "packages.vcs",
    "packages.directory.subdirectory",
    "packages.archive",
    "packages.sdist",
)


def test_these_keys_are_refused_and_no_others() -> None:
    assert [key for key, treatment in known_keys.KEYS.items() if treatment == "refused"] == [*REFUSED]
    assert set(known_keys.KEYS.values()) == {"refused", "honoured", "harmless"}


@pytest.mark.parametrize("key", REFUSED)
def test_a_key_that_would_change_what_is_installed_is_refused(key: str) -> None:
    package = values.package()
    if key.startswith("packages.directory"):
        package = package.replace(wheels=(), directory="../tiny")
    changed = document(package)
    hashes = {"sha256": "a" * 64}
    value: object = {
        "requires-python": "<3",
        "extras": ["x"],
        "packages.vcs": {"type": "git", "url": "https://example.org", "commit-id": "0" * 40},
        "packages.archive": {"url": "https://example.org/x.zip", "hashes": hashes},
        "packages.sdist": {"name": "tiny-1.0.tar.gz", "url": "https://example.org/tiny-1.0.tar.gz", "hashes": hashes},
        "packages.directory.subdirectory": "evil",
    }.get(key, ["x"])
    put(changed, key, value)
    if key in ("packages.vcs", "packages.archive"):
        del changed["packages"][0]["wheels"]
    with pytest.raises(LockInvalid) as caught:
        read(changed)
    by_itself = key.rpartition(".")[2] in str(caught.value.found)
    assert by_itself or "only wheels and editable directories are installed" in str(caught.value.found)


@pytest.mark.parametrize(
    "key",
    [
        "new",
        "packages.new",
        "packages.wheels.new",
        "packages.tool.vllm-plugins.new",
        "tool.vllm-plugins.new",
        "tool.vllm-plugins.plugins.new",
        "tool.vllm-plugins.plugins.entry-points.new",
        "tool.vllm-plugins.targets.new",
    ],
)
def test_an_unknown_key_is_refused(key: str) -> None:
    changed = document()
    put(changed, key, 1)
    with pytest.raises(LockInvalid) as caught:
        read(changed)
    assert "new: this key is unknown" in str(caught.value.found)


@pytest.mark.parametrize(
    "key", ["packages.marker", "tool.vllm-plugins.overrides", ".packages", ".created-by", ".", ""]
)
def test_a_key_that_is_written_like_a_path_is_unknown(key: str) -> None:
    """TOML has quoted keys. Nothing reads `"packages.marker"`, so it must not count as one that is honoured."""
    changed = document()
    changed[key] = "x"
    with pytest.raises(LockInvalid) as caught:
        read(changed)
    assert f"{key}: this key is unknown" in str(caught.value.found)
    changed = document()
    changed["packages"][0]["wheels.hashes"] = {}
    changed["tool"]["vllm-plugins.format"] = changed["packages"][0].setdefault("tool", {})["vllm-plugins.x"] = 1
    assert [place for place, _ in known_keys.refused(changed)] == ["packages[0].wheels.hashes"]


@pytest.mark.parametrize("key", ["tool.other", "packages.tool.other"])
def test_the_tables_of_other_programs_are_theirs(key: str) -> None:
    changed = document()
    put(changed, key, {"anything": [{"goes": 1}]})
    read(changed)


@pytest.mark.parametrize("marker", ["'x' in extras", "'dev' in dependency_groups", 'extra == "x"'])
def test_a_marker_that_nobody_can_make_true_is_refused(marker: str) -> None:
    changed = document()
    changed["packages"][0]["marker"] = marker
    with pytest.raises(LockInvalid) as caught:
        read(changed)
    assert "packages[0].marker" in str(caught.value.found)


def test_a_wheel_with_a_path_and_a_url_is_refused() -> None:
    changed = document(values.package(wheels=(values.wheel(url=None),)))
    changed["packages"][0]["wheels"][0]["url"] = "https://example.org/tiny-1.0-py3-none-any.whl"
    with pytest.raises(LockInvalid) as caught:
        read(changed)
    assert "expected a path or a URL, found both" in str(caught.value.found)


def test_a_plugin_that_is_not_among_the_selected_is_an_error(tmp_path: Path) -> None:
    lock = values.lock(values.package(marker='python_full_version < "3"'), values.package("other"))
    with pytest.raises(InstallError) as caught:
        selection.select(lock, values.settings(tmp_path))
    assert caught.value.details == ("plugin 'tiny': tiny",)


def test_what_a_lock_is_written_with_is_known() -> None:
    example = (Path(__file__).parents[2] / "plugins.lock.example").read_bytes()
    golden = (Path(__file__).parents[1] / "golden" / "plugins.lock").read_bytes()
    for data in (example, golden):
        assert list(known_keys.refused(tomllib.loads(data.decode()))) == []


def test_an_unknown_key_of_a_dependency_is_refused() -> None:
    ((key, _),) = known_keys.refused({"packages": [{"dependencies": [{"name": "x", "new": 1}]}]})
    assert key == "packages[0].dependencies[0].new"


def test_what_is_no_table_has_no_keys() -> None:
    """The reader of the lock refuses it."""
    for value in ("x", 5, True, None):
        assert list(known_keys.refused({"packages": value, "tool": {"vllm-plugins": value}})) == []


def test_the_reason_and_the_place_of_each_refused_key_are_told() -> None:
    unknown = "this key is unknown (a newer version's?), and may change what is installed"
    ours = "this key of PEP 751 would change what is installed, and this program does not follow it"
    hidden = "this text contains the invisible character U+"
    found = known_keys.refused(
        {
            "extras": [],
            "created-by": "a\tb\nc",
            "packages": [{"name": "x"}, {"sdist": {}, "wheels": [{"url": "x\u200b"}, {"new": 1}]}],
            "tool": {
                "vllm-plugins": {
                    "accepted-manifests": ["x", ["y", "\x7f"]],
                    "targets": {"name": {"a": {"\u00ad": "b", "c": "\u00a0"}}},
                }
            },
        }
    )
    assert list(found) == [
        ("extras", ours),
        ("created-by", f"{hidden}0009"),
        ("packages[1].sdist", ours),
        ("packages[1].wheels[0].url", f"{hidden}200B"),
        ("packages[1].wheels[1].new", unknown),
        ("tool.vllm-plugins.accepted-manifests[1][1]", f"{hidden}007F"),
        ("tool.vllm-plugins.targets.name.a", f"{hidden}00AD"),
        ("tool.vllm-plugins.targets.name.a.c", f"{hidden}00A0"),
    ]


def test_what_follows_the_table_of_another_program_is_looked_at() -> None:
    ((key, _),) = known_keys.refused({"tool": {"other": {"new": 1}, "vllm-plugins": {"new": 1}}})
    assert key == "tool.vllm-plugins.new"


def test_what_a_lock_may_be_written_with_is_known() -> None:
    """The keys that neither of those locks has."""
    override = dict.fromkeys(("package", "version", "replaces", "requested", "reason"), "x")
    tool = {
        "accepted-manifests": [],
        "overrides": [{**override, "against": [{"name": "x", "specifier": ">1"}]}],
        "plugins": [{"passed-over": "", "loads": [], "provided": True, "dependencies": []}],
    }
    package = {"dependencies": [{"name": "x"}], "tool": {"vllm-plugins": {"find-links": True}}}
    assert list(known_keys.refused({"packages": [package], "tool": {"vllm-plugins": tool}})) == []


EVIL = f"\nevil==1.0 --hash=sha256:{'e' * 64}"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"tool.{TOOL}.targets.platform", f"linux-x86_64{EVIL}"),
        (f"tool.{TOOL}.plugins.index-url", f"https://x/{EVIL}"),
        (f"tool.{TOOL}.plugins.requested", "tiny\u202e"),
        (f"tool.{TOOL}.plugins.loads", ["tiny:\u2028a"]),
        (f"tool.{TOOL}.plugins.entry-points", [{"group": "vllm.x", "name": "a\u200b", "value": "b:c"}]),
        ("packages.index", f"https://x/\r{EVIL}"),
        ("packages.attestation-identities", [{"kind": "GitHub", "a\u2029": "b"}]),
        ("created-by", "vllm\x1b[2Jplugins"),
    ],
)
def test_a_text_that_nobody_sees_in_a_review_is_refused(path: str, value: object) -> None:
    """A line break could add lines to a requirements file that is exported."""
    changed = document(values.package())
    put(changed, path, value)
    with pytest.raises(LockInvalid) as caught:
        read(changed)
    assert "contains the invisible character U+" in str(caught.value.found)


@pytest.mark.parametrize(
    "url",
    [
        f"https://x/tiny-1.0-py3-none-any.whl --hash=sha256:{'e' * 64}",
        "https://x/${HOME}/tiny-1.0-py3-none-any.whl",
        "https://x/tiny-1.0-py3-none-any.whl\u00a0x",
        "https://",
        "ftp://x/tiny-1.0-py3-none-any.whl",
    ],
)
def test_the_address_of_a_wheel_adds_no_option_to_a_requirements_file(url: str) -> None:
    changed = document(values.package())
    put(changed, "packages.wheels.url", url)
    with pytest.raises(LockInvalid) as caught:
        read(changed)
    assert caught.value.found
