"""The differences between two locks: a reviewer sees each of them, and nothing where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from packaging.utils import canonicalize_name

from tests.kit import values
from vllm_plugins.documents import diff
from vllm_plugins.documents.diff import Change
from vllm_plugins.documents.lock import BaseUse

if TYPE_CHECKING:
    from vllm_plugins.documents.lock import Lock, Package, Plugin

NAME = canonicalize_name


def lock(*packages: Package, **plugin: Any) -> Lock:
    """The lock of the plugin `tiny`, with other fields of the plugin."""
    whole = values.lock(*packages)
    return whole.replace(plugins=(whole.plugins[0].replace(**plugin),))


def lines(old: Lock, new: Lock) -> list[str]:
    return [*diff.plugin_changes(old, new), *diff.base_changes(old, new)]


def test_a_lock_does_not_differ_from_itself() -> None:
    whole = values.lock(uses=(BaseUse(name=NAME("torch"), version="2.13.0", required_by=(("tiny", ">=2"),)),))
    assert diff.compare(whole, whole) == ()
    assert lines(whole, whole) == []


def test_packages_are_added_changed_and_removed_in_the_order_of_their_names() -> None:
    helper = NAME("helper")
    old = lock(values.package(dependencies=(helper,)), values.package("helper", "1.5"), values.package("zoo", "3"))
    new = lock(
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
    helper, deeper = NAME("helper"), NAME("deeper")
    with_both = lock(
        values.package(dependencies=(helper,)),
        values.package("helper", dependencies=(deeper,)),
        values.package("deeper"),
    )
    without = lock(values.package())
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
        ({"dependencies": (NAME("helper"),)}, "1.0 (other dependencies)"),
        ({"requires_python": ">=3.9"}, "1.0 (other details)"),
        ({"marker": "python_version < '4'"}, "1.0 (other details)"),
        ({"built_with": ("hatchling==1.27.0",)}, "1.0 (other details)"),
        ({"index": "https://other.example.org/simple/"}, "1.0 from https://other.example.org/simple/"),
        ({"version": "2.0", "index": "https://other.example.org/simple/"}, "2.0 from https://other.example.org/simple/"),
        ({"wheels": (), "directory": "../tiny"}, "1.0 editable"),
    ],
)  # fmt: skip
def test_a_package_of_the_same_version_may_differ(fields: dict[str, Any], text: str) -> None:
    old = lock(values.package(index="https://packages.example.org/simple/"))
    new = lock(values.package(**{"index": "https://packages.example.org/simple/", **fields}))
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
    old = lock(values.package(), **was)
    new = lock(values.package(wheels=(values.wheel(sha256="b" * 64),)), **now)
    assert [(change.old, change.new) for change in diff.compare(old, new)] == [texts]


@pytest.mark.parametrize(
    ("field", "before", "after", "line"),
    [
        ("source", "pypi", "git", "source pypi → git"),
        ("package", NAME("tiny"), NAME("other"), "package tiny → other"),
        ("requested", "tiny", "tiny>=1", "requested tiny → tiny>=1"),
        ("url", None, "https://git.example.org/x.git", "url - → https://git.example.org/x.git"),
        ("subdirectory", "a", None, "subdirectory a → -"),
        ("commit", "1" * 40, "2" * 40, f"commit {'1' * 40} → {'2' * 40}"),
        ("editable", False, True, "editable no → yes"),
        ("editable", True, False, "editable yes → no"),
        ("project_sha256", "1" * 64, "2" * 64, "project files 1111111 → 2222222"),
        ("passed_over", None, "2.0", "newer release - → 2.0"),
        ("loads", (), ("tiny:Bend",), "adds object tiny:Bend"),
        ("loads", ("tiny:A", "tiny:B"), ("tiny:B",), "removes object tiny:A"),
        ("entry_points", (), (("vllm.general_plugins", "a", "tiny:a"),), "adds entry point vllm.general_plugins: a = tiny:a"),
        ("entry_points", (("vllm.general_plugins", "a", "tiny:a"),), (), "removes entry point vllm.general_plugins: a = tiny:a"),
    ],
)  # fmt: skip
def test_each_field_of_a_plugin_is_compared(field: str, before: Any, after: Any, line: str) -> None:
    assert lines(lock(**{field: before}), lock(**{field: after})) == [f"plugin tiny: {line}"]


def test_the_content_of_a_commit_is_compared() -> None:
    """The row of its package shows the commit, which is the same."""
    old, new = (lock(commit="1" * 40, tree_sha256=letter * 64) for letter in "23")
    assert lines(old, new) == ["plugin tiny: content 2222222 → 3333333"]


def test_no_field_of_a_plugin_is_left_out() -> None:
    """The version and the content are in the row of its package; the name is what plugins are compared by."""
    compared = {"source", "package", "requested", "url", "subdirectory", "commit", "editable", "project_sha256", "passed_over", "loads", "entry_points"}  # fmt: skip
    plugin: Plugin = values.lock().plugins[0]
    assert set(type(plugin).__annotations__) == compared | {"name", "version", "tree_sha256"}


def test_a_plugin_is_added_or_removed_with_its_entry_points_and_objects() -> None:
    whole = values.lock()
    plugin = whole.plugins[0].replace(loads=("tiny:Bend",))
    more = whole.replace(plugins=(plugin, plugin.replace(name="a-second")))
    one = whole.replace(plugins=(plugin,))
    for old, new, word, verb in ((one, more, "added", "adds"), (more, one, "removed", "removes")):
        assert lines(old, new) == [
            f"plugin a-second: {word}",
            f"plugin a-second: {verb} entry point vllm.general_plugins: tiny = tiny:register",
            f"plugin a-second: {verb} object tiny:Bend",
        ]


def test_targets_and_what_is_used_of_the_base_are_compared() -> None:
    use = BaseUse(name=NAME("torch"), version="2.12.0", required_by=(("tiny", ">=2"), ("helper", "")))
    old, new = values.lock(uses=(use,)), values.lock(uses=(use.replace(version="2.13.0"),))
    (target,) = old.targets
    kind = f"Python {target.python} on {target.platform}"
    rest = "tiny requires >=2, helper requires any"
    assert lines(old, new) == [f"base torch ({kind}): 2.12.0, {rest} → 2.13.0, {rest}"]
    assert lines(old, values.lock()) == [f"base torch ({kind}): 2.12.0, {rest} → -"]
    without = values.lock(targets=(target.replace(base=(), vllm=None),))
    assert lines(values.lock(), without) == [f"target {kind}: vLLM 0.32.0 → no vLLM"]
    assert lines(values.lock(), values.lock(targets=())) == [f"target {kind}: vLLM 0.32.0 → -"]


def test_environments_and_manifests_are_compared() -> None:
    one, two = 'python_full_version >= "3.11.3"', 'platform_machine == "x86_64"'
    old = values.lock(manifest_sha256="1" * 64)
    new = old.replace(environments=(one, two), manifest_sha256="2" * 64, accepted_manifests=("3" * 64,))
    assert lines(old, new) == [
        f"environment 1: - → {two}",
        f"environment 2: - → {one}",
        "manifest: 1111111 → 2222222",
        "manifest 3333333: - → accepted since a rollback",
    ]
