"""The overlay as a factor of the key of vLLM's compile cache, and our variables in vLLM's list."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.startup import overlays
from vllm_plugins.startup import _vllm_cache, _vllm_process, activation, overlay
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GENERAL, STATS = "vllm.general_plugins", "vllm.stat_logger_plugins"


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process is afterwards as it was."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(_vllm_cache, "_known", None)
    monkeypatch.setenv(variables.CONFIRMED, "to be restored")
    yield
    activation.deactivate(forget_modules=True)


def factor(store: Path, lock: bytes, *plugins: tuple[str, str, str], **fields: Any) -> str | None:
    """The factor of an overlay of these plugins: distribution, group and source of each."""
    files: dict[str, str] = {}
    points = []
    for name, group, source in plugins:
        files[f"{name}.py"] = source
        files[f"{name}-{lock.decode()}.dist-info/METADATA"] = f"Name: {name}\nVersion: 1\n"
        files[f"{name}-{lock.decode()}.dist-info/RECORD"] = (
            f"{name}.py,,\n{name}-{lock.decode()}.dist-info/RECORD,,\n"
        )
        points.append((group, name, f"{name}:register", name, name))
    marker = overlays.write(store, lock, files, points=tuple(points), **fields)
    activation.deactivate()
    activation.activate(store, marker.key)
    return _vllm_cache.factor()


PATCH = ("patch", GENERAL, "def register(): ...\n")


def test_without_an_overlay_there_is_no_factor() -> None:
    assert _vllm_cache.factor() is None


def test_an_overlay_without_plugins_has_no_factor(tmp_path: Path) -> None:
    assert factor(tmp_path, b"1") is None


def test_the_same_plugin_in_another_lock_and_store_is_the_same_factor(tmp_path: Path) -> None:
    first = factor(tmp_path / "a", b"1", PATCH)
    assert first is not None
    assert factor(tmp_path / "a", b"2", PATCH) == first
    assert factor(tmp_path / "b", b"3", PATCH) == first


def test_another_source_of_a_plugin_is_another_factor(tmp_path: Path) -> None:
    changed = ("patch", GENERAL, "def register(): print()\n")
    first = factor(tmp_path, b"1", PATCH)
    assert factor(tmp_path, b"2", changed) != first
    assert factor(tmp_path, b"3", PATCH) == first


@pytest.mark.parametrize("group", [STATS, "vllm.io_processor_plugins", "vllm.endpoint_plugins"])
def test_a_plugin_of_the_front_end_alone_does_not_count(tmp_path: Path, group: str) -> None:
    first = factor(tmp_path, b"1", PATCH)
    assert factor(tmp_path, b"2", PATCH, ("front", group, "class It: ...\n")) == first


@pytest.mark.parametrize(
    "group", [GENERAL, "vllm.platform_plugins", "vllm.logits_processors", variables.LOADS, "vllm.a_group_to_come"]
)
def test_a_plugin_of_any_other_group_counts(tmp_path: Path, group: str) -> None:
    first = factor(tmp_path, b"1", PATCH)
    assert factor(tmp_path, b"2", PATCH, ("other", group, "class It: ...\n")) != first


def test_a_distribution_without_entry_points_counts(tmp_path: Path) -> None:
    """A dependency, or a class that is named on the command line."""
    first = factor(tmp_path, b"1", PATCH)
    lock = b"2"
    marker = overlays.write(tmp_path, lock, {"patch.py": PATCH[2], "below.py": ""}, points=())
    activation.deactivate()
    activation.activate(tmp_path, marker.key)
    assert _vllm_cache.factor() != first


def test_an_overlay_that_cannot_be_read_counts_by_its_lock(tmp_path: Path) -> None:
    """An exception in a getter would leave the overlay out of the key."""
    marker = overlays.write(tmp_path, b"1", {"patch.py": PATCH[2]}, points=())
    activation.activate(tmp_path, marker.key)
    (overlay.directory(tmp_path, marker.key) / "files.json").write_text("[")
    assert _vllm_cache.factor() == marker.key


class Backend:
    """vLLM's compiler: it hashes the variables, and then reads the list of traced files."""

    def __init__(self, known: dict[str, Any], *traced: str) -> None:
        self.known = known
        self.compilation_config = SimpleNamespace(traced_files=set(traced))

    def compile(self) -> list[str]:
        for getter in self.known.values():
            getter()
        return sorted(self.compilation_config.traced_files)


def test_covered_files_leave_the_list_of_traced_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    envs = vllm_envs(monkeypatch)
    _vllm_process.register()
    assert factor(tmp_path, b"1", PATCH, ("front", STATS, "class It: ...\n")) is not None
    site = overlay.directory(tmp_path, overlay.key_of(b"1")) / "site"
    backend = Backend(
        envs.environment_variables, f"{site}/patch.py", f"{site}/front.py", "/base/llama.py", "<string>"
    )
    assert backend.compile() == sorted([f"{site}/front.py", "/base/llama.py", "<string>"])


def vllm_envs(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> Any:
    envs: Any = ModuleType("vllm.envs")
    envs.environment_variables = {"VLLM_PLUGINS": lambda: None}
    for name, function in functions.items():
        setattr(envs, name, function)
    monkeypatch.setitem(sys.modules, "vllm.envs", envs)
    return envs


def test_all_our_variables_are_known_to_vllm_and_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = vllm_envs(monkeypatch, compile_factors=dict)
    for _ in range(2):
        _vllm_process.register()
    assert set(variables.VARIABLES) <= envs.environment_variables.keys()
    monkeypatch.setenv("VLLM_PLUGIN_CONFIG", "/a/path")
    assert envs.environment_variables["VLLM_PLUGIN_CONFIG"]() is None
    assert envs.environment_variables[variables.COMPILED]() is None


def test_variables_that_vllm_knows_itself_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = vllm_envs(monkeypatch)
    envs.environment_variables["VLLM_PLUGIN_LOCK"] = lambda: "vLLM's own"
    _vllm_process.register()
    assert envs.environment_variables["VLLM_PLUGIN_LOCK"]() == "vLLM's own"


def test_a_fixed_list_of_variables_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in 0.10.2 to 0.11."""
    envs = vllm_envs(monkeypatch, compute_hash=lambda: "vllm")
    _vllm_process.register()
    _vllm_process.register()
    expected = factor(tmp_path, b"1", PATCH)
    assert envs.compute_hash() == f"vllm {expected}"


@pytest.mark.parametrize("envs", [None, ModuleType("vllm.envs"), SimpleNamespace(environment_variables=[])])
def test_another_vllm_is_left_alone(monkeypatch: pytest.MonkeyPatch, envs: Any) -> None:
    monkeypatch.setitem(sys.modules, "vllm.envs", envs)
    _vllm_process.register()
