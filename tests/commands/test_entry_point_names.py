"""vLLM calls one entry point of each name in a group. Two of one name are refused, wherever they come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects, vllm
from tests.kit.place import Place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index

GENERAL = "vllm.general_plugins"
PLATFORM = "vllm.platform_plugins"
LOGITS = "vllm.logits_processors"
SOURCE = "def register():\n    pass\nclass It:\n    pass\n"


@pytest.fixture
def place(tmp_path: Path, index: Index, base: Path) -> Place:
    return Place(root=tmp_path, index_url=index.url, paths=(base,), resolver="uv")


def plug(index: Index, name: str, group: str = GENERAL, point: str = "same") -> None:
    index.wheel(name, entry_points={group: {point: f"{name}:register"}}, modules={f"{name}.py": SOURCE})


def into_base(base: Path, name: str, group: str = GENERAL, point: str = "same") -> None:
    points = {group: {point: f"{name}:register"}}
    vllm.unpack(projects.wheel(base, name, entry_points=points, modules={f"{name}.py": SOURCE}), base)


@pytest.mark.parametrize("group", [GENERAL, PLATFORM, "vllm.stat_logger_plugins"])
def test_lock_refuses_a_name_that_the_base_has(place: Place, index: Index, base: Path, group: str) -> None:
    plug(index, "mine", group)
    into_base(base, "theirs", group)
    place.pypi("mine")
    done = place.run("lock", "-q", check=False)
    assert (done.returncode, done.stderr) == (
        5,
        (
            "vllm-plugins: error: plugin 'mine' has an entry point of a name that is taken, and vLLM calls one of each name "
            "[base-mismatch]\n"
            f"  where: entry point same in {group}\n"
            "  found: theirs in the vLLM environment has it\n"
            "  required by: plugin 'mine'\n"
            "  next: set `enabled: false` for plugin 'mine' in plugins.yaml and run vllm-plugins lock, or ask its authors to "
            "rename the entry point\n"
        ),
    )
    assert not place.lock.exists()
    place.manifest.write_text(
        json.dumps({"plugins": [{"name": "mine", "source": "pypi", "package": "mine", "enabled": False}]})
    )
    place.run("lock")


@pytest.mark.parametrize("group", [GENERAL, PLATFORM])
def test_lock_refuses_the_name_of_the_hook(place: Place, index: Index, group: str) -> None:
    """A plugin of that name would be taken for the manager, in VLLM_PLUGINS and in vLLM's list."""
    plug(index, "mine", group, "vllm_plugins")
    place.pypi("mine")
    done = place.run("lock", "-q", check=False)
    assert done.returncode == 5
    assert (
        f"where: entry point vllm_plugins in {group}\n  found: vllm-plugin-manager in the vLLM environment"
        in done.stderr
    )


def test_lock_refuses_two_plugins_with_one_name(place: Place, index: Index) -> None:
    plug(index, "one")
    plug(index, "two")
    place.pypi("one", "two")
    done = place.run("lock", "-q", check=False)
    assert done.returncode == 6
    assert (
        "plugins 'one' and 'two' have an entry point of the same name, and vLLM calls one [no-resolution]"
        in done.stderr
    )


def test_logits_processors_may_have_one_name_because_vllm_keeps_a_list(
    place: Place, index: Index, base: Path
) -> None:
    plug(index, "one", LOGITS)
    plug(index, "two", LOGITS)
    into_base(base, "theirs", LOGITS)
    place.pypi("one", "two")
    place.run("lock")
    place.run("sync")


def test_a_name_that_another_base_has_is_refused_before_vllm_starts(place: Place, index: Index, base: Path) -> None:
    """The base was elsewhere when the lock was made, or has another plugin since."""
    plug(index, "mine")
    place.pypi("mine")
    place.run("lock")
    place.run("sync")
    into_base(base, "theirs")
    done = place.run("sync", "-q", check=False)
    assert (done.returncode, "theirs in the vLLM environment has it" in done.stderr) == (5, True)
    started = place.python("-m", "tests.kit.loader", "platform", "general", check=False, traceback=True)
    assert started.returncode == 1
    assert "BaseMismatch: plugin 'mine' has an entry point of a name that is taken" in started.stderr


def test_a_dependency_with_a_taken_name_is_refused(place: Place, index: Index, base: Path) -> None:
    plug(index, "below")
    index.wheel("mine", requires=["below"], modules={"mine.py": SOURCE})
    into_base(base, "theirs")
    place.pypi("mine")
    place.run("lock")
    assert place.run("sync", "-q", check=False).returncode == 5
