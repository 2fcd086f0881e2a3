from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import values
from vllm_plugins.documents import diff
from vllm_plugins.documents.diff import Change
from vllm_plugins.documents.lock import BaseUse, BuildRequirement, Lock, Override, Package, Plugin, Target, Wheel

if TYPE_CHECKING:
    from vllm_plugins.startup import Record

# A rollback changes the first. The second is the version of the plugin's package, which is compared.
UNSEEN = {(Lock, "accepted_manifests"), (Lock, "manifest_name"), (Plugin, "version")}
OTHER = {
    "packages": (values.package(), values.package("more")),
    "plugins": (),
    "targets": (),
    "wheels": (values.wheel(sha256="b" * 64),),
    "dependencies": ("more",),
    "base": (BaseUse(name=values.NAME("torch"), version="2.0", required_by=(("tiny", ">=1"),)),),
    "overrides": (
        Override(package=values.NAME("more"), version="2.0", replaces="1.0", requested="more>=2", reason="new"),
    ),
    "build_requirements": (BuildRequirement(name=values.NAME("more"), version="1", wheels=(values.wheel("more"),)),),
    "editable": True,
    "size": 11,
    "entry_points": (("vllm.general_plugins", "other", "tiny:other"),),
}


def _changes(old: Lock, new: Lock) -> list[object]:
    return [*diff.compare(old, new), *_lines(old, new)]


def _with(lock: Lock, record: Record) -> Lock:
    """The lock with this record in the place of the one of its class."""
    match record:
        case Lock():
            return record
        case Package():
            return lock.replace(packages=(record,))
        case Plugin():
            return lock.replace(plugins=(record,))
        case Target():
            return lock.replace(targets=(record,))
        case _:
            return lock.replace(packages=(lock.packages[0].replace(wheels=(record,)),))


def _fields() -> list[tuple[type[Record], str]]:
    kinds: tuple[type[Record], ...] = (Lock, Package, Plugin, Target, Wheel)
    return [(kind, name) for kind in kinds for name in kind.__annotations__ if (kind, name) not in UNSEEN]


@pytest.mark.parametrize(("kind", "name"), _fields(), ids=lambda item: getattr(item, "__name__", item))
def test_a_change_of_any_field_of_a_lock_is_shown(kind: type[Record], name: str) -> None:
    old = values.lock()
    (plugin,), (target,), (package,) = old.plugins, old.targets, old.packages
    records: dict[type[Record], Record] = {
        Lock: old,
        Package: package,
        Plugin: plugin,
        Target: target,
        Wheel: package.wheels[0],
    }
    record = records[kind]
    was = getattr(record, name)
    other = OTHER.get(name, ("changed",) if isinstance(was, tuple) else "changed")
    assert was != other
    new = _with(old, record.replace(**{name: other}))
    assert _changes(old, old) == []
    assert _changes(old, new) != []


def test_the_names_that_vllm_is_given_are_listed_one_by_one() -> None:
    lock = values.lock()
    (plugin,) = lock.plugins
    old = lock.replace(plugins=(plugin.replace(loads=("tiny:Old", "tiny:Same")),))
    new = lock.replace(plugins=(plugin.replace(loads=("tiny:Same", "tiny:New")),))
    assert _lines(old, new) == [
        "plugin tiny: adds `loads` tiny:New",
        "plugin tiny: removes `loads` tiny:Old",
    ]
    assert "plugin tiny: adds `loads` tiny:New" in _lines(lock.replace(plugins=()), new)


def _lock(*packages: Package, **plugin: Any) -> Lock:
    """The lock of the plugin `tiny`, with other fields of the plugin."""
    whole = values.lock(*packages)
    return whole.replace(plugins=(whole.plugins[0].replace(**plugin),))


def test_packages_are_added_changed_and_removed_in_the_order_of_their_names() -> None:
    helper = values.NAME("helper")
    old = _lock(values.package(dependencies=(helper,)), values.package("helper", "1.5"), values.package("zoo", "3"))
    new = _lock(
        values.package("tiny", "2.0", dependencies=(helper,)),
        values.package("helper", "1.5"),
        values.package("added", "1"),
    )
    assert diff.compare(old, new) == (
        Change(name="added", old=None, new="1", plugins=()),
        Change(name="tiny", old="1.0", new="2.0", plugins=("tiny",)),
        Change(name="zoo", old="3", new=None, plugins=()),
    )


def test_a_package_is_shown_with_the_plugins_that_require_it_or_did() -> None:
    helper, deeper = values.NAME("helper"), values.NAME("deeper")
    with_both = _lock(
        values.package(dependencies=(helper,)),
        values.package("helper", dependencies=(deeper,)),
        values.package("deeper"),
    )
    without = _lock(values.package())
    for old, new in ((with_both, without), (without, with_both)):
        assert {change.name: change.plugins for change in diff.compare(old, new)} == {
            "deeper": ("tiny",),
            "helper": ("tiny",),
            "tiny": ("tiny",),
        }


def test_without_an_old_lock_each_package_is_added() -> None:
    assert diff.compare(None, values.lock()) == (Change(name="tiny", old=None, new="1.0", plugins=("tiny",)),)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"wheels": (values.wheel(sha256="b" * 64),)}, "1.0 (other files)"),
        ({"dependencies": (values.NAME("helper"),)}, "1.0 (other dependencies)"),
        ({"requires_python": ">=3.9"}, "1.0 (other details)"),
        ({"marker": "python_version < '4'"}, "1.0 (other details)"),
        ({"built_with": ("hatchling==1.27.0",)}, "1.0 (other details)"),
        ({"index": "https://other.example.org/simple/"}, "1.0 from https://other.example.org/simple/"),
        ({"version": "2.0", "index": "https://other.example.org/simple/"}, "2.0 from https://other.example.org/simple/"),
        ({"wheels": (), "directory": "../tiny"}, "1.0 editable"),
    ],
)  # fmt: skip
def test_a_package_of_the_same_version_may_differ(fields: dict[str, Any], text: str) -> None:
    old = _lock(values.package(index="https://packages.example.org/simple/"))
    new = _lock(values.package(**{"index": "https://packages.example.org/simple/", **fields}))
    assert [(change.old, change.new) for change in diff.compare(old, new)] == [("1.0", text)]


@pytest.mark.parametrize(
    ("was", "now", "texts"),
    [
        ({"commit": "1" * 40}, {"commit": "2" * 40}, ("1.0 @1111111", "1.0 @2222222")),
        ({"tree_sha256": "1" * 64}, {"tree_sha256": "2" * 64}, ("1.0 #1111111", "1.0 #2222222")),
        ({"commit": "1" * 40, "tree_sha256": "3" * 64}, {"tree_sha256": "3" * 64}, ("1.0 @1111111", "1.0 #3333333")),
        ({"commit": "1" * 40}, {"commit": "1" * 40}, ("1.0 @1111111", "1.0 @1111111 (other files)")),
    ],
)
def test_a_source_is_shown_with_its_commit_or_its_content(
    was: dict[str, str], now: dict[str, str], texts: tuple[str, str]
) -> None:
    old = _lock(values.package(), **was)
    new = _lock(values.package(wheels=(values.wheel(sha256="b" * 64),)), **now)
    assert [(change.old, change.new) for change in diff.compare(old, new)] == [texts]


@pytest.mark.parametrize(
    ("field", "before", "after", "line"),
    [
        ("source", "pypi", "git", "source pypi → git"),
        ("package", values.NAME("tiny"), values.NAME("other"), "package tiny → other"),
        ("requested", "tiny", "tiny>=1", "requested tiny → tiny>=1"),
        ("url", None, "https://git.example.org/x.git", "url - → https://git.example.org/x.git"),
        ("subdirectory", "a", None, "subdirectory a → -"),
        ("commit", "1" * 40, "2" * 40, f"commit {'1' * 40} → {'2' * 40}"),
        ("editable", False, True, "editable no → yes"),
        ("editable", True, False, "editable yes → no"),
        ("project_sha256", "1" * 64, "2" * 64, f"metadata of the editable source {'1' * 12} → {'2' * 12}"),
        ("tree_sha256", "1" * 64, "2" * 64, f"source files {'1' * 12} → {'2' * 12}"),
        ("passed_over", None, "2.0", "newest release, not locked: - → 2.0"),
        ("loads", (), ("tiny:Bend",), "adds `loads` tiny:Bend"),
        ("loads", ("tiny:A", "tiny:B"), ("tiny:B",), "removes `loads` tiny:A"),
        ("entry_points", (), (("vllm.general_plugins", "a", "tiny:a"),), "adds entry point vllm.general_plugins: a = tiny:a"),
        ("entry_points", (("vllm.general_plugins", "a", "tiny:a"),), (), "removes entry point vllm.general_plugins: a = tiny:a"),
    ],
)  # fmt: skip
def test_each_field_of_a_plugin_is_compared(field: str, before: Any, after: Any, line: str) -> None:
    assert _lines(_lock(**{field: before}), _lock(**{field: after})) == [f"plugin tiny: {line}"]


def test_a_plugin_is_added_or_removed_with_its_entry_points_and_objects() -> None:
    whole = values.lock()
    plugin = whole.plugins[0].replace(loads=("tiny:Bend",))
    more = whole.replace(plugins=(plugin, plugin.replace(name="a-second")))
    one = whole.replace(plugins=(plugin,))
    for old, new, word, verb in ((one, more, "added", "adds"), (more, one, "removed", "removes")):
        assert _lines(old, new) == [
            f"plugin a-second: {word}",
            f"plugin a-second: {verb} entry point vllm.general_plugins: tiny = tiny:register",
            f"plugin a-second: {verb} `loads` tiny:Bend",
        ]


def test_targets_and_what_is_used_of_the_base_are_compared() -> None:
    use = BaseUse(name=values.NAME("torch"), version="2.12.0", required_by=(("tiny", ">=2"), ("helper", "")))
    old, new = values.lock(uses=(use,)), values.lock(uses=(use.replace(version="2.13.0"),))
    (target,) = old.targets
    kind = f"Python {target.python} on {target.platform}"
    rest = "tiny requires >=2, helper requires any"
    assert _lines(old, new) == [f"base torch ({kind}): 2.12.0, {rest} → 2.13.0, {rest}"]
    assert _lines(old, values.lock()) == [f"base torch ({kind}): 2.12.0, {rest} → -"]
    without = values.lock(targets=(target.replace(base=(), vllm=None),))
    assert _lines(values.lock(), without) == [f"target {kind}: vLLM 0.32.0 → no vLLM"]
    assert _lines(values.lock(), values.lock(targets=())) == [f"target {kind}: vLLM 0.32.0 → -"]


def _lines(old: Lock, new: Lock) -> list[str]:
    found = diff.between([old], [new])
    assert bool(found) == (old != new)
    return [*found.plugin_lines, *found.base_lines]
