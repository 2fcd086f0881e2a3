"""Plugins of one git repository and ref are locked at one commit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from vllm_plugins.core.errors import SourceError
from vllm_plugins.documents.manifest import GitSource
from vllm_plugins.locking._preparation.preparation import Preparation
from vllm_plugins.sources import git_refs

if TYPE_CHECKING:
    from collections.abc import Callable


def preparation() -> Preparation:
    nothing: dict[str, Any] = dict.fromkeys(
        ("manifest", "settings", "reuse", "builder", "scratch", "environ", "config", "reporter")
    )
    return Preparation(**nothing)


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A repository that gets a commit each time somebody asks; returns who has asked."""
    asked: list[str] = []

    def resolve(source: GitSource, *, environ: object, plugin: str) -> str:
        asked.append(plugin)
        return f"{len(asked):040x}"

    monkeypatch.setattr(git_refs, "resolve", resolve)
    return asked


def commit(prepared: Preparation, url: str, ref: str | None) -> Callable[[str], str]:
    source = GitSource(url=url, ref=ref, subdirectory=None, package=None)
    return lambda plugin: prepared._commit(source, plugin)


def test_a_ref_is_asked_for_once(moving: list[str]) -> None:
    prepared = preparation()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(commit(prepared, "https://x/a", "main"), map(str, range(50))))
    assert (len(found), len(moving)) == (1, 1)
    assert commit(prepared, "https://x/a", "v1")("tag") not in found
    assert commit(prepared, "https://x/b", "main")("other") not in found
    assert len(moving) == 3


def test_a_repository_that_can_not_be_read_fails_for_each_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise SourceError("it can't be read")

    monkeypatch.setattr(git_refs, "resolve", fail)
    ask = commit(preparation(), "https://x/a", None)
    for plugin in ("one", "two"):
        with pytest.raises(SourceError):
            ask(plugin)
