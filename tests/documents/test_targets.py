from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from tests.kit import pep751, values
from vllm_plugins.core.errors import LockInvalid, ManifestError, TargetMissing, UsageError
from vllm_plugins.documents import consistency, diff, lock_reader, lock_writer
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents.lock import TOOL, BaseUse, Lock, Target
from vllm_plugins.documents.lock_reader import content_sha256
from vllm_plugins.documents.manifest import RequestedTarget

PATH = Path("plugins.lock")
LINUX, ARM = "linux-x86_64", "linux-aarch64"


def target(name: str, python: str, platform: str = LINUX, **fields: Any) -> Target:
    return Target(**{"name": name, "python": python, "platform": platform, "vllm": "0.32.0", "base": (), **fields})


DEV = values.lock(values.package(), values.package("dep"), targets=(target("dev", "3.11"),))
PRODUCTION = values.lock(
    values.package(), values.package("dep", "2.0", marker='platform_machine == "aarch64"'),
    targets=(target("production", "3.12", ARM),), environments=('python_full_version < "3.12.9"',),
)  # fmt: skip


def document(*locks: Lock) -> dict[str, Any]:
    return tomllib.loads(lock_writer.render(*locks).decode())


def reread(changed: dict[str, Any]) -> tuple[Lock, ...]:
    changed["tool"][TOOL]["content-sha256"] = content_sha256(changed)
    return lock_reader.parse_all(tomlkit.dumps(changed).encode(), PATH)


def test_each_target_is_read_as_it_was_written() -> None:
    data = lock_writer.render(PRODUCTION, DEV)
    assert lock_reader.parse_all(data, PATH) == (lock_writer.normal_form(DEV), lock_writer.normal_form(PRODUCTION))
    assert lock_writer.render(DEV, PRODUCTION) == data


def test_what_is_equal_is_written_once_and_markers_tell_pip_and_uv_the_rest() -> None:
    written = document(DEV, PRODUCTION)
    pep751.read(written)
    found = [(item["name"], item["version"], item.get("marker")) for item in written["packages"]]
    there = '(python_version == "3.12" and sys_platform == "linux") and platform_machine == "aarch64"'
    assert found == [
        ("dep", "1.0", 'python_version == "3.11" and sys_platform == "linux"'),
        ("dep", "2.0", there),
        ("tiny", "1.0", None),
    ]
    assert len(written["tool"][TOOL]["plugins"]) == 1
    assert len(written["environments"]) == 2


def test_a_lock_with_one_unnamed_target_has_the_older_format() -> None:
    assert document(values.lock())["tool"][TOOL]["format"] == 1
    assert document(DEV)["tool"][TOOL]["format"] == 2


def test_an_architecture_is_in_the_markers_where_it_tells_targets_apart() -> None:
    arm = DEV.replace(
        targets=(target("arm", "3.11", ARM),), packages=(values.package(), values.package("dep", "2.0"))
    )
    markers = [item.get("marker") for item in document(DEV, arm)["packages"]]
    assert sorted(markers[:2]) == [
        f'python_version == "3.11" and sys_platform == "linux" and platform_machine == "{machine}"'
        for machine in ("aarch64", "x86_64")
    ]


def _set(path: str, value: object) -> Any:
    def change(written: dict[str, Any]) -> None:
        table: Any = written
        *parents, last = path.split(".")
        for part in parents:
            table = table[int(part)] if part.isdecimal() else table[part]
        table[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_set(f"packages.0.tool.{TOOL}.targets", ["production"]), "packages[0].marker: expected that of its targets"),
        (_set(f"packages.0.tool.{TOOL}.targets", ["nobody"]), "expected names of dev, production, found ['nobody']"),
        (_set(f"packages.0.tool.{TOOL}.targets", []), "expected names of dev, production, found []"),
        (_set("packages.0.marker", 'python_version >= "3"'), "packages[0].marker: expected that of its targets"),
        (_set("packages.2.marker", 'python_version == "3.11"'), "packages[2].marker: expected that of its targets"),
        (_set(f"packages.1.tool.{TOOL}.marker", "os_name == 'nt'"), "packages[1].marker: expected that of its targets"),
        (_set("environments", ['python_version == "3.11"']), "environments: expected those of the targets"),
        (_set(f"tool.{TOOL}.targets.1.environments", []), "environments: expected those of the targets"),
        (_set(f"tool.{TOOL}.targets.1.name", "dev"), "a name appears more than once"),
        (_set(f"tool.{TOOL}.targets.1.name", "-x"), "expected the name of a target"),
        (_set(f"tool.{TOOL}.targets.1.python", 'x" or "'), "targets: "),
        (_set(f"tool.{TOOL}.format", 1), "format: expected 2, found 1"),
        (_set(f"tool.{TOOL}.format", 3), "format 3"),
    ],
)  # fmt: skip
def test_a_lock_that_says_something_else_to_pip_and_uv_is_refused(change: Any, found: str) -> None:
    written = document(DEV, PRODUCTION)
    change(written)
    with pytest.raises(LockInvalid) as raised:
        reread(written)
    assert found in str(raised.value)


def test_a_plugin_that_is_hidden_from_a_target_leaves_packages_that_nothing_requires() -> None:
    written = document(DEV, PRODUCTION)
    written["tool"][TOOL]["plugins"][0]["targets"] = ["dev"]
    dev, production = reread(written)
    assert not any("tiny 1.0" in reason for reason in consistency.of_lock(dev))
    assert "tiny 1.0: no plugin requires it" in consistency.of_lock(production)


@pytest.mark.parametrize("key", ["targets", "marker"])
def test_a_lock_without_named_targets_can_not_hide_packages_from_itself(key: str) -> None:
    written = document(values.lock())
    written["packages"][0]["tool"] = {TOOL: {key: ["dev"] if key == "targets" else "python_version > '3'"}}
    with pytest.raises(LockInvalid, match="this key is unknown"):
        reread(written)


def test_targets_of_one_kind_must_have_the_same_packages() -> None:
    twin = DEV.replace(targets=(target("cuda", "3.11"),))
    assert lock_writer.indistinct((DEV, twin)) == []
    assert len(document(DEV, twin)["packages"]) == 2
    other = twin.replace(packages=(values.package(),))
    assert lock_writer.indistinct((DEV, other)) == ["dev and cuda: dep 1.0 and none"]
    with pytest.raises(LockInvalid, match="markers can't tell its targets from cuda"):
        lock_writer.render(DEV, other)


def test_the_target_of_a_machine_is_chosen_by_its_python_its_platform_and_its_base(tmp_path: Path) -> None:
    here = values.base(python="3.11.7", platform=LINUX)
    uses = BaseUse(name=values.NAME("vllm"), version="0.33.0", required_by=(("tiny", ">=0.33"),))
    newer = DEV.replace(targets=(target("newer", "3.11", base=(uses,)),))
    arm = DEV.replace(targets=(target("arm", "3.11", ARM),))
    data = lock_writer.render(newer, arm, DEV, PRODUCTION)

    def name(**fields: Any) -> str | None:
        return lock_reader.parse(data, PATH, base=here.replace(**fields)).targets[0].name

    assert name() == "dev"
    assert name(platform=ARM) == "arm"
    assert name(python="3.12.1", platform=ARM, markers=(("python_full_version", "3.12.1"),)) == "production"
    assert lock_reader.parse(data, PATH, base=here, target="newer").targets[0].name == "newer"
    path = tmp_path / "plugins.lock"
    path.write_bytes(data)
    assert lock_reader.read(path, base=here, target="newer").targets[0].name == "newer"
    assert lock_reader.read(path, base=here.replace(platform=ARM)).targets[0].name == "arm"
    with pytest.raises(TargetMissing) as missing:
        name(python="3.13.0")
    assert missing.value.expected is not None
    assert "production (Python 3.12 on linux-aarch64)" in missing.value.expected
    with pytest.raises(UsageError, match="the lock has no target 'cuda'") as unknown:
        lock_reader.parse(data, PATH, base=here, target="cuda")
    assert missing.value.where == unknown.value.where == str(PATH)


def test_a_lock_without_named_targets_is_read_for_every_base() -> None:
    """A check of the base says later, and with all that differs, that it is another one."""
    lock = lock_writer.normal_form(values.lock())
    data = lock_writer.render(lock)
    for base in (values.base(), values.base(python="3.9.1", platform=ARM)):
        assert lock_reader.parse(data, PATH, base=base) == lock


def test_a_newer_lock_is_reported_as_such_whatever_else_is_in_it() -> None:
    written = document(DEV, PRODUCTION)
    written["lock-version"] = "2.0"
    written["environments"] = ["a marker of a later specification"]
    with pytest.raises(LockInvalid, match="the lock was written by a newer version"):
        reread(written)


def test_a_difference_names_its_targets() -> None:
    new = DEV.replace(packages=(values.package(), values.package("dep", "3.0")))
    found = diff.between((DEV, PRODUCTION), (new, PRODUCTION))
    assert [(change.shown_name, change.old, change.new) for change in found.packages] == [("dep (dev)", "1.0", "3.0")]
    both = PRODUCTION.replace(packages=(values.package(version="1.1"), *PRODUCTION.packages[1:]))
    found = diff.between((DEV, PRODUCTION), (DEV.replace(packages=both.packages), both))
    assert ("tiny", "1.0", "1.1") in [(change.shown_name, change.old, change.new) for change in found.packages]
    assert "target production: added" in diff.between((DEV,), (DEV, PRODUCTION)).base_lines
    assert not diff.between((DEV, PRODUCTION), (DEV, PRODUCTION))


MANIFEST = "plugins: []\ntargets:\n"


def read(targets: str) -> manifests.Manifest:
    return manifests.parse((MANIFEST + targets).encode(), Path("plugins.yaml"))


def test_targets_of_a_manifest_count_for_its_lock() -> None:
    first = read("  - {name: dev, base: here}\n  - {name: arm, base: vllm==0.32.0, platform: linux-aarch64}\n")
    assert first.targets[1] == RequestedTarget(name="arm", base="vllm==0.32.0", platform=ARM, line=4)
    swapped = read("  - {name: arm, base: vllm==0.32.0, platform: linux-aarch64}\n  - {name: dev, base: here}\n")
    assert first.sha256 == swapped.sha256
    assert first.sha256 != read("  - {name: dev, base: here}\n").sha256
    none = manifests.parse(b"plugins: []\n", Path("plugins.yaml"))
    assert none.sha256 == "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"  # of "[]", as before


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        ("  name: dev\n", "targets: expected a list"),
        ("  []\n", "expected 1 to 16 targets, found 0"),
        ("  - dev\n", "targets[0]: expected a mapping with name and base"),
        ("  - {name: dev}\n", "targets[0].base: missing; expected here, the path of a snapshot"),
        ("  - {name: dev, base: here, pyton: '3.12'}\n", "targets[0].pyton: unknown key; did you mean python?"),
        (
            "  - {name: dev, base: here, python: 3.12}\n",
            "targets[0].python: expected a string, found the number 3.12",
        ),
        ("  - {name: dev, base: here, python: '3'}\n", "'3' is not a valid minor version of Python"),
        ("  - {name: dev, base: here, platform: arm}\n", "'arm' is not a valid platform"),
        ("  - {name: 'd v', base: here}\n", "'d v' is not a valid name of a target"),
        ("  - {name: dev, base: 'https://x/y'}\n", "is a URL"),
        ("  - {name: a, base: here}\n  - {name: a, base: x.json}\n", "'a' is also in line 3"),
        ("  - {name: a, base: here}\n  - {name: b, base: here}\n", "the same environment as target 'a' in line 3"),
    ],
)
def test_an_invalid_target_is_named_with_its_line(targets: str, found: str) -> None:
    with pytest.raises(ManifestError) as raised:
        read(targets)
    assert found in str(raised.value)
