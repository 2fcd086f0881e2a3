"""Withdrawing plugins from the frame of a function that has listed them."""

from __future__ import annotations

import functools
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.startup import overlays
from vllm_plugins.startup import _vllm_listing, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.marker import EntryPoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GROUP = "vllm.general_plugins"
RAN: list[str] = []


def hook() -> None:
    """Our own function."""


def first() -> None:
    RAN.append("first")


def second() -> None:
    RAN.append("second")


class Plugin:
    """A plugin whose functions are methods."""

    @classmethod
    def register(cls) -> None:
        RAN.append("register")

    @staticmethod
    def static() -> None:
        RAN.append("static")


@functools.wraps(first)
def wrapped() -> None:
    RAN.append("wrapped")


partial = functools.partial(first)


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


def point(name: str, attribute: str, module: str = __name__) -> EntryPoint:
    return EntryPoint(group=GROUP, name=name, value=f"{module}:{attribute}", plugin="tiny", distribution="tiny")


def call(listed: dict[str, Any], *points: EntryPoint, function: Callable[[], object] = hook) -> bool:
    """List plugins in a local variable, as vLLM does; have some withdrawn; and call all."""
    plugins = {"vllm_plugins": function, **listed}
    number, text, other = 5, "text", {"vllm_plugins": None}
    done = _vllm_listing.withdraw(points, sys._getframe(), hook)
    assert (number, text, other) == (5, "text", {"vllm_plugins": None})
    for plugin in plugins.values():
        plugin()
    return done


def test_a_plugin_that_is_withdrawn_does_not_run_and_others_do() -> None:
    assert call({"one": first, "two": second}, point("one", "first")) is True
    assert RAN == ["second"]


@pytest.mark.parametrize(
    ("function", "attribute"),
    [
        (first, "first"),
        (Plugin.register, "Plugin.register"),
        (Plugin.static, "Plugin.static"),
        (partial, "partial"),
        (wrapped, "wrapped"),
        (first, "first [extra]"),
        (first, " first "),
    ],
)
def test_each_kind_of_function_is_recognised(function: Callable[[], None], attribute: str) -> None:
    call({"one": function}, point("one", attribute))
    assert RAN == []


@pytest.mark.parametrize(
    "wrong",
    [
        point("other", "first"),
        point("one", "second"),
        point("one", "missing"),
        point("one", "first.missing"),
        point("one", "first", module="not_imported_here"),
    ],
    ids=lambda item: f"{item.name} {item.value}",
)
def test_a_plugin_of_the_same_name_from_elsewhere_runs(wrong: EntryPoint) -> None:
    """It is installed in the base, and vLLM calls it."""
    assert call({"one": first}, wrong) is True
    assert RAN == ["first"]


def test_objects_without_a_name_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    class Callable_:  # noqa: N801 - a class of a plugin
        __module__ = None  # type: ignore[assignment]

        def __call__(self) -> None:
            RAN.append("object")

    monkeypatch.setattr(sys.modules[__name__], "one_object", Callable_(), raising=False)
    call({"one": Callable_()}, point("one", "one_object"))
    assert RAN == ["object"]


def test_a_frame_without_our_function_is_another_vllms() -> None:
    assert call({"one": first}, point("one", "first"), function=second) is False
    assert RAN == ["second", "first"]


def test_a_module_may_be_an_entry_point() -> None:
    def list_modules() -> dict[str, Any]:
        plugins = {"vllm_plugins": hook, "one": sys}
        whole = EntryPoint(group=GROUP, name="one", value="sys", plugin="tiny", distribution="tiny")
        assert _vllm_listing.withdraw([whole], sys._getframe(), hook)
        return plugins

    assert list_modules()["one"] is not sys


def test_a_question_while_vllm_imports_plugins_is_a_nested_one() -> None:
    def load_plugins_by_group() -> bool:
        return _vllm_listing.is_nested(sys._getframe(), hook)

    assert load_plugins_by_group() is True
    assert _vllm_listing.is_nested(sys._getframe(), hook) is False


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with overlays.process(tmp_path, monkeypatch):
        yield tmp_path


def listed_overlay(home: Path, monkeypatch: pytest.MonkeyPatch, lock: bytes, text: str) -> None:
    """An overlay on the path whose metadata has these entry points."""
    marker = overlays.write(home / "store", lock, {"probe-1.0.dist-info/entry_points.txt": text})
    monkeypatch.syspath_prepend(str(overlay.directory(home / "store", marker.key) / "site"))


def test_the_entry_points_of_each_overlay_on_the_path_are_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed_overlay(home, monkeypatch, b"one", f"[{GROUP}]\none = probe:a\n[other.group]\nno = probe:b\n")
    listed_overlay(home, monkeypatch, b"two", f"[{GROUP}]\ntwo = probe:c\n")
    found = {(point.name, point.value) for point in _vllm_listing.on_path(GROUP)}
    assert found == {("one", "probe:a"), ("two", "probe:c")}
    assert _vllm_listing.on_path("other.group")[0].value == "probe:b"
    assert _vllm_listing.on_path("a.third") == []


@pytest.mark.parametrize(("passed_on", "ran"), [("", []), (None, ["first"]), ("key:x", ["first"])])
def test_a_nested_question_withdraws_an_overlay_that_was_given_up(
    home: Path, monkeypatch: pytest.MonkeyPatch, passed_on: str | None, ran: list[str]
) -> None:
    listed_overlay(home, monkeypatch, b"one", f"[vllm.platform_plugins]\none = {__name__}:first\n")
    variables.pass_on(variables.FALLBACK, passed_on)

    def load_plugins_by_group() -> None:
        platform_plugins = {"vllm_plugins": hook, "one": first}
        assert _vllm_listing.is_nested(sys._getframe(), hook) is True
        for plugin in platform_plugins.values():
            plugin()

    load_plugins_by_group()
    assert ran == RAN


def test_only_a_dictionary_with_our_function_is_vllms_list() -> None:
    frame: Any = SimpleNamespace(f_locals={"a": [hook], "b": {"vllm_plugins": second}, "c": hook})
    assert _vllm_listing.withdraw([], frame, hook) is False
    frame.f_locals["d"] = {"renamed": hook}
    assert _vllm_listing.withdraw([], frame, hook) is True
