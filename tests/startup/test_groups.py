"""The ranks of a group that vLLM forms compare themselves in its store. ``tests/vllm/test_groups.py`` has real groups."""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from tests.startup import overlays
from vllm_plugins.core.errors import NodeMismatch
from vllm_plugins.startup import _vllm_process, logger, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.ranks import _vllm_group, expectation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

ONE, TWO, THREE = ("1" * 32, "2" * 32, "3" * 32)
LOCK, OTHER_LOCK = (
    f"overlay={ONE} files={ONE} lock={ONE} base={ONE}",
    f"overlay={TWO} files={TWO} lock={TWO} base={ONE}",
)
FORM = "def form(torch): return torch.init_process_group('gloo', rank=0)\n"
# What a platform of another vendor, a debugger or a profiler may do after us.
WRAP = "def wrap(function): return lambda *words, **named: function(*words, **named)\n"


class Store:
    """What is written, as a store of torch has it."""

    def __init__(self, **values: str) -> None:
        self.values = {f"vllm_plugins/{rank[1:]}": value for rank, value in values.items()}

    def set(self, key: str, value: str) -> None:
        self.values[key] = value

    def get(self, key: str) -> bytes:
        return self.values[key].encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)

    def wait(self, keys: list[str], timeout: object) -> None:
        if not self.check(keys):
            raise RuntimeError("wait timeout")


def said(expect: str, node: str = "there") -> str:
    return json.dumps({"node": node, "expect": expect})


def form(
    monkeypatch: pytest.MonkeyPatch,
    store: Store,
    *,
    active: tuple[Path, Marker] | None = None,
    rank: int,
    size: int = 2,
    by: str = _vllm_group.CALLER,
    wrappers: int = 0,
) -> Any:
    """Form a group in a process with this package. Returns what torch does."""
    torch, c10d = ModuleType("torch.distributed"), ModuleType("torch.distributed.distributed_c10d")
    torch.init_process_group = lambda *words, **named: (words, named)  # type: ignore[attr-defined]
    torch.get_rank, torch.get_world_size = lambda: rank, lambda: size  # type: ignore[attr-defined]
    c10d._get_default_store = lambda: store  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.distributed", torch)
    monkeypatch.setitem(sys.modules, "torch.distributed.distributed_c10d", c10d)
    _vllm_process.compare_ranks(active)
    _vllm_process.compare_ranks(active)  # vLLM calls the hook more than once in a process
    for _ in range(wrappers):
        other: dict[str, Any] = {"__name__": "another"}
        exec(WRAP, other)
        torch.init_process_group = other["wrap"](torch.init_process_group)  # type: ignore[attr-defined]
    caller: dict[str, Any] = {"__name__": by}
    exec(FORM, caller)
    function: Callable[[Any], Any] = caller["form"]
    return function(torch)


def test_ranks_with_the_same_plugins_form_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variables.EXPECT, LOCK)
    for rank, other in ((0, 1), (1, 0)):
        store = Store(**{f"_{other}": said(LOCK)})
        assert form(monkeypatch, store, rank=rank) == (("gloo",), {"rank": 0})
        assert json.loads(store.values[f"vllm_plugins/{rank}"])["expect"] == LOCK


@pytest.mark.parametrize(("rank", "named"), [(0, "rank 1 on node there"), (1, "rank 1 on node ")])
def test_a_rank_with_another_lock_stops_itself_and_rank_0(
    monkeypatch: pytest.MonkeyPatch, rank: int, named: str
) -> None:
    monkeypatch.setenv(variables.EXPECT, LOCK)
    with pytest.raises(NodeMismatch, match=named) as caught:
        form(monkeypatch, Store(**{f"_{1 - rank}": said(OTHER_LOCK)}), rank=rank)
    assert "has another lock than rank 0" in str(caught.value)


def test_a_rank_that_says_nothing_has_no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variables.EXPECT, LOCK)
    with pytest.raises(NodeMismatch, match="rank 2 has no plugins, unlike rank 0"):
        form(monkeypatch, Store(_1=said(LOCK)), rank=0, size=3)
    with pytest.raises(NodeMismatch, match="rank 0 has no plugins, unlike rank 1"):
        form(monkeypatch, Store(), rank=1)


def test_nothing_is_compared_without_plugins_or_where_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank without plugins says so at once, and waits for nobody."""
    for value in ("any", None):
        monkeypatch.delenv(variables.EXPECT, raising=False)
        if value is not None:
            monkeypatch.setenv(variables.EXPECT, value)
        store = Store()
        form(monkeypatch, store, rank=0)
        assert json.loads(store.values["vllm_plugins/0"])["expect"] == (value or "")


def test_groups_of_one_rank_and_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variables.EXPECT, LOCK)
    store = Store()
    form(monkeypatch, store, rank=0, size=1)
    form(monkeypatch, store, rank=0, by="a_trainer")
    assert store.values == {}


@pytest.mark.parametrize("rank", [0, 1])
def test_an_edited_file_stops_a_group_of_several_nodes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rank: int
) -> None:
    """Both have the same value: it tells what was installed."""
    monkeypatch.setenv(variables.EXPECT, LOCK)
    marker = overlays.write(tmp_path, b"lock", {"one.py": "", "two.py": ""})
    active = tmp_path, marker
    there = {f"vllm_plugins/{1 - rank}/edited": "[]"}
    store = Store(**{f"_{1 - rank}": said(LOCK)})
    store.values |= there
    form(monkeypatch, store, rank=rank, active=active)
    assert store.values[f"vllm_plugins/{rank}/edited"] == "[]"

    store.values[f"vllm_plugins/{1 - rank}/edited"] = '["changed: one.py"]'
    with pytest.raises(
        NodeMismatch, match=f"rank {1 - rank} on node there has another content of the overlay"
    ) as caught:
        form(monkeypatch, store, rank=rank, active=active)
    assert caught.value.details[:2] == ("files of the overlay were edited: 1 file", "changed: one.py")

    (overlay.directory(tmp_path, marker.key) / "site" / "two.py").write_text("edited\n")
    with pytest.raises(NodeMismatch, match=f"rank {rank} on node .* has another content of the overlay"):
        form(monkeypatch, store, rank=rank, active=active)
    assert json.loads(store.values[f"vllm_plugins/{rank}/edited"]) == ["changed: two.py"]


def test_files_are_not_looked_at_on_one_node_or_where_a_user_compares_less(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    active = tmp_path, overlays.write(tmp_path, b"lock", {"one.py": ""})
    for value, there in ((LOCK, os.uname().nodename), (f"lock={ONE}", "there")):
        monkeypatch.setenv(variables.EXPECT, value)
        store = Store(_0=said(value, there))
        form(monkeypatch, store, rank=1, active=active)
        assert "vllm_plugins/1/edited" not in store.values


def test_a_rank_that_tells_nothing_of_its_files_does_not_stop_vllm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has an earlier release."""
    monkeypatch.setenv(variables.EXPECT, LOCK)
    active = tmp_path, overlays.write(tmp_path, b"lock", {"one.py": ""})
    form(monkeypatch, Store(_0=said(LOCK)), rank=1, active=active)


def test_functions_that_others_put_around_ours_hide_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variables.EXPECT, LOCK)
    for wrappers in (1, 3):
        with pytest.raises(NodeMismatch):
            form(monkeypatch, Store(_0=said(OTHER_LOCK)), rank=1, wrappers=wrappers)
    form(monkeypatch, Store(_0=said(OTHER_LOCK)), rank=1, wrappers=1, by="a_trainer")


@pytest.mark.parametrize("broken", ["not JSON", said("overlay=what")])
def test_what_can_not_be_compared_does_not_stop_vllm(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(logger, "warning", lambda text, *words: warnings.append(text % words))
    monkeypatch.setenv(variables.EXPECT, LOCK)
    form(monkeypatch, Store(_0=broken), rank=1)
    assert warnings[0].startswith("The plugins of rank 0 can't be compared: ")


@pytest.mark.parametrize("text", ["not JSON", "5", said("overlay=what"), said(f"{LOCK} later={ONE}")])
def test_a_rank_that_can_not_be_compared_hides_no_other(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A later release may have more to say. Rank 2 has no manager, and only rank 0 can notice."""
    monkeypatch.setenv(variables.EXPECT, LOCK)
    with pytest.raises(NodeMismatch, match="rank 2 has no plugins, unlike rank 0"):
        form(monkeypatch, Store(_1=text), rank=0, size=3)


PACKAGES = f"base={TWO} packages=cp311/3.11/torch-2.0"


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        (LOCK, LOCK, None),
        (LOCK, "any", None),
        ("any", LOCK, None),
        (f"lock={ONE}", LOCK, None),  # a user gave a part
        (LOCK, f"lock={TWO}", "rank 1 on node b has another lock than rank 0 on node a"),
        (f"overlay={ONE}", OTHER_LOCK, "rank 1 on node b has another lock than rank 0 on node a"),
        (LOCK, LOCK.replace(f"overlay={ONE}", f"overlay={TWO}"), "has another interpreter than rank 0"),
        (LOCK, LOCK.replace(f"files={ONE}", f"files={TWO}"), "has another content of the overlay than rank 0"),
        (LOCK, LOCK.replace(f"base={ONE}", f"base={TWO}"), "packages, or the version of Python"),
        (PACKAGES, PACKAGES.replace("2.0", "2.1").replace(TWO, THREE), "torch: expected 2.0, found 2.1"),
        (LOCK, "", "rank 1 on node b has no plugins, unlike rank 0 on node a"),
        ("", LOCK, "rank 0 on node a has no plugins, unlike rank 1 on node b"),
        ("", "", None),
    ],
)
def test_two_ranks_differ_in_what_both_have(first: str, other: str, expected: str | None) -> None:
    error = expectation.between({"node": "a", "expect": first}, {"node": "b", "expect": other}, rank=1)
    if expected is None:
        assert error is None
    else:
        assert expected in str(error)
