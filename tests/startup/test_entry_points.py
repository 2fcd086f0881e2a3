from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core.errors import LoadError
from vllm_plugins.startup import entry_points
from vllm_plugins.startup.marker import EntryPoint

if TYPE_CHECKING:
    from collections.abc import Callable


def point(value: str, name: str = "probe") -> EntryPoint:
    return EntryPoint(group="vllm.general_plugins", name=name, value=value, distribution="dist", plugin="mine")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType("probe_module")
    monkeypatch.setitem(sys.modules, "probe_module", made)
    return made


def test_an_entry_point_is_loaded_as_python_does(module: ModuleType) -> None:
    class Thing:
        @classmethod
        def make(cls) -> int:
            return 5

    module.Thing = Thing  # type: ignore[attr-defined]
    assert entry_points.load(point("probe_module:Thing")) is Thing
    assert entry_points.load(point(" probe_module : Thing.make [extra]"))() == 5


@pytest.mark.parametrize(
    ("value", "what", "found"),
    [
        (
            "no_such_module:x",
            "plugin 'mine' can't be loaded: ModuleNotFoundError: No module named 'no_such_module'",
            "the module no_such_module is missing: neither the lock nor the vLLM environment contains it",
        ),
        (
            "probe_module:missing",
            "plugin 'mine' can't be loaded: AttributeError: module 'probe_module' has no attribute 'missing'",
            None,
        ),
        (
            "probe_module:__name__",
            "plugin 'mine' can't be called: TypeError: probe_module:__name__ is of type str",
            None,
        ),
    ],
)
@pytest.mark.usefixtures("module")
def test_an_entry_point_that_can_not_be_loaded_is_named(value: str, what: str, found: str | None) -> None:
    with pytest.raises(LoadError) as caught:
        entry_points.load(point(value))
    assert (caught.value.what, caught.value.found) == (what, found)
    assert caught.value.where == f"entry point probe = {value} in vllm.general_plugins, of dist"


def error_of(raises: BaseException) -> LoadError:
    def function() -> None:
        raise raises

    with pytest.raises(LoadError) as caught:
        entry_points.call(point("a:b"), function)
    return caught.value


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ImportError("x.so: undefined symbol: at_make"), "the symbol at_make is missing"),
        (
            ImportError("libcuda.so.1: cannot open shared object file: No such file"),
            "the library libcuda.so.1 is missing",
        ),
        (
            ModuleNotFoundError("No module", name="vllm.worker"),
            "made for another vLLM than this one, whose vllm.worker",
        ),
        (
            ImportError("cannot import name 'x'", name="vllm.utils"),
            "made for another vLLM than this one, whose vllm.utils",
        ),
        (ImportError("cannot import name 'x'", name="vllm"), "made for another vLLM than this one, whose vllm is"),
        (ModuleNotFoundError("No module", name="vllm"), "the module vllm is missing"),
    ],
)
def test_the_cause_of_an_import_error_is_reported(error: ImportError, found: str) -> None:
    assert found in (error_of(error).found or "")


@pytest.mark.parametrize("error", [ValueError("x"), ImportError("cannot import name 'x'", name="other")])
def test_an_unknown_cause_is_left_out(error: Exception) -> None:
    assert error_of(error).found is None


def test_an_exit_is_an_error_and_an_interrupt_is_not() -> None:
    assert error_of(SystemExit(0)).what == "plugin 'mine' raised an error: SystemExit: 0"
    assert error_of(SystemExit()).what == "plugin 'mine' raised an error: SystemExit"

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        entry_points.call(point("a:b"), interrupt)


def test_all_are_loaded_before_the_first_is_called(module: ModuleType) -> None:
    calls: list[str] = []
    module.first = lambda: calls.append("first")  # type: ignore[attr-defined]
    with pytest.raises(LoadError):
        entry_points.run([point("probe_module:first"), point("probe_module:missing")])
    assert calls == []


def test_results_are_kept_by_name_but_for_none(module: ModuleType) -> None:
    results: dict[str, Callable[[], object]] = {"one": lambda: "Class", "two": lambda: None}
    for name, function in results.items():
        setattr(module, name, function)
    found = entry_points.run([point(f"probe_module:{name}", name) for name in results])
    assert found == {"one": "Class"}
    assert entry_points.platform(found) == "Class"
    assert entry_points.platform({}) is None
    with pytest.raises(LoadError, match=r"got: \['a', 'b'\]"):
        entry_points.platform({"b": "x", "a": "y"})


class _Silent(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)


def test_an_exception_whose_text_ends_the_process_is_an_error_without_text() -> None:
    assert error_of(_Silent()).what == "plugin 'mine' raised an error: _Silent"


def test_a_platform_whose_text_ends_the_process_is_an_error() -> None:
    with pytest.raises(LoadError) as caught:
        entry_points.platform({"mine": _Silent()})
    assert caught.value.what == "the platform plugin mine returned a _Silent, and not the name of a class"
