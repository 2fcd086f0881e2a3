"""What ``lock --check`` refuses of a new lock, for one environment and for targets alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import values
from vllm_plugins.core.errors import LockContradiction, LockStale
from vllm_plugins.core.progress import SILENT
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.locking._check import comparison
from vllm_plugins.locking.old_lock import OldLocks
from vllm_plugins.locking.request import Request, Run
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.documents.lock import Lock


@pytest.fixture
def run(tmp_path: Path) -> Run:
    settings = values.settings(tmp_path)
    return Run(
        manifest=manifests.parse(values.MANIFEST.encode(), settings.manifest),
        settings=settings,
        request=Request(check=True, names=("tiny",)),
        base_paths=(),
        reporter=SILENT,
        config=PipConfig.without_index,
    )


def target(name: str, *, commit: str = "a" * 40) -> Lock:
    """A lock of a git plugin for a target of this name."""
    lock = values.lock()
    plugin = lock.plugins[0].replace(source="git", commit=commit)
    return lock.replace(plugins=(plugin,), targets=(lock.targets[0].replace(name=name),))


def refused(run: Run, old: OldLocks, *new: Lock) -> LockStale:
    with pytest.raises(LockStale) as caught:
        comparison.refuse_changes(run, old, new, ())
    assert caught.value.next_step == "vllm-plugins lock --upgrade-package tiny"
    return caught.value


def test_equal_locks_pass_in_any_order(run: Run) -> None:
    one, two = target("one"), target("two")
    comparison.refuse_changes(run, OldLocks(locks=(one, two)), (two, one), ())


def test_a_lock_with_a_flaw_never_passes(run: Run) -> None:
    error = refused(run, OldLocks(locks=(values.lock(),), flaw="the lock was edited by hand"), values.lock())
    assert (error.what, error.details) == ("the lock would change", ("the lock was edited by hand",))


def test_a_first_lock_is_a_change_without_reasons(run: Run) -> None:
    error = refused(run, OldLocks(), values.lock())
    assert (error.what, error.details) == ("there is no lock", ())


def test_a_changed_manifest_is_a_reason_of_its_own(run: Run) -> None:
    old = values.lock(manifest="plugins: []\n")
    assert refused(run, OldLocks(locks=(old,)), values.lock()).details == (
        "plugins.yaml has changed since it was locked",
    )


def test_the_source_of_a_plugin_is_compared_with_that_of_the_same_target(run: Run) -> None:
    old = OldLocks(locks=(target("one"), target("two", commit="b" * 40)))
    error = refused(run, old, target("one"), target("two"))
    assert error.details == ("the source of plugin 'tiny' has changed",)


def test_a_change_that_no_package_shows_is_told_all_the_same(run: Run) -> None:
    error = refused(run, OldLocks(locks=(values.lock(),)), values.lock(manifest_name="dev.yaml"))
    assert error.details == ("the packages stay; how the lock is written has changed",)


def test_a_lock_of_another_manifest_is_compared_with_itself_only(run: Run) -> None:
    other = values.lock(manifest="plugins: []\n")
    comparison.refuse_contradictions([other], run.manifest, run.settings)
    contradicting = other.replace(packages=(*other.packages, values.package("orphan")))
    with pytest.raises(LockContradiction, match="contradicts itself"):
        comparison.refuse_contradictions([other, contradicting], run.manifest, run.settings)
