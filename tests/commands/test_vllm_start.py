"""The load check meets vLLM in the state in which a server loads plugins."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects, vllm_start

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.place import Place

PLATFORM = "vllm.platform_plugins"
GENERAL = "vllm.general_plugins"
LOGITS = "vllm.logits_processors"
# The hook is left out of these processes: what is compared with the check is plain vLLM.
SERVER = (
    "import vllm.engine.arg_utils, vllm.platforms, vllm.plugins\n"
    "print(type(vllm.platforms.current_platform).__qualname__)\n"
    "for function in vllm.plugins.load_plugins_by_group('vllm.general_plugins').values():\n    function()\n"
)


@pytest.fixture
def importable(place: Place, tmp_path: Path) -> Place:
    """A place whose vLLM can be imported."""
    return replace(place, paths=(vllm_start.environment(tmp_path / "vllm"),))


def lock(place: Place, points: dict[str, dict[str, str]], **modules: str) -> None:
    files = {f"{name}.py": source for name, source in modules.items()}
    projects.project(place.config / "it", name="it", entry_points=points, modules=files)
    place.write("plugins:\n  - {name: it, source: local, path: it}\n")
    place.run("lock")


def failures(place: Place, **env: str) -> list[str]:
    done = place.run("sync", "-q", "--json", check=False, env=env)
    if done.returncode == 0:
        return []
    error = done.json
    return (
        [error["what"]] if not error["what"][0].isdigit() else [line for line in error["details"] if "entry" in line]
    )


def server(place: Place) -> list[str]:
    """What plain vLLM prints with the overlay on its path."""
    with_overlay = replace(place, paths=(*place.paths, place.site))
    return with_overlay.python("-S", "-c", SERVER).stdout.splitlines()


def test_a_platform_plugin_that_needs_what_vllm_is_importing_fails(importable: Place) -> None:
    """A server asks for its platform while it imports vllm.config. Plain vLLM drops the error, and the plugin."""
    source = (
        "from vllm.config import VllmConfig\ndef platform():\n    return 'mine.Platform'\nclass Platform:\n    pass\n"
    )
    lock(importable, {PLATFORM: {"mine": "mine:platform"}}, mine=source)
    done = importable.run("sync", "-q", check=False)
    assert done.returncode == 7
    assert "partially initialized module 'vllm.config'" in done.stderr
    assert (
        "found: vLLM loads this plugin while it imports vllm.config: the plugin must import that in its functions\n"
    ) in done.stderr
    importable.run("sync", "--no-load-check")
    assert server(importable) == ["Builtin"]


def test_a_general_plugin_finds_vllm_imported(importable: Place) -> None:
    """As in a server, where a cycle of imports in vLLM is closed before the plugin begins in its middle."""
    vllm = importable.paths[0] / "vllm"
    (vllm / "engine/arg_utils.py").write_text("import vllm.model\n")
    (vllm / "model.py").write_text("class Model:\n    pass\nfrom vllm.layer import Layer\n")
    (vllm / "layer.py").write_text("from vllm.model import Model\nclass Layer:\n    pass\n")
    with_cycle = "def go():\n    from vllm.layer import Layer\n    print(Layer.__name__)\n"
    lock(importable, {GENERAL: {"go": "go:go"}}, go=with_cycle)
    assert failures(importable) == []
    assert server(importable) == ["Builtin", "Layer"]


def test_general_plugins_see_the_platform_of_the_overlay(importable: Place) -> None:
    mine = "def platform():\n    return 'mine.Platform'\nclass Platform:\n    pass\n"
    go = (
        "def go():\n    from vllm.platforms import current_platform\n"
        "    assert type(current_platform).__name__ == 'Platform', current_platform\n"
    )
    lock(importable, {PLATFORM: {"mine": "mine:platform"}, GENERAL: {"go": "go:go"}}, mine=mine, go=go)
    assert failures(importable) == []
    assert server(importable) == ["Platform"]


@pytest.mark.parametrize(
    ("platform", "reason"),
    [
        ("", "AttributeError: module 'mine' has no attribute 'Platform'"),
        ("class Platform:\n    def __init__(self):\n        raise OSError('no device')\n", "OSError: no device"),
        ("class Platform:\n    def __init__(self):\n        import os\n        os._exit(3)\n", ""),
    ],
    ids=["missing", "raises", "ends"],
)
def test_a_platform_that_cannot_be_created_is_the_fault_of_its_plugin_alone(
    importable: Place, platform: str, reason: str
) -> None:
    go = "import vllm.engine.arg_utils\ndef go():\n    from vllm.platforms import current_platform\n"
    mine = f"def platform():\n    return 'mine.Platform'\n{platform}"
    lock(importable, {PLATFORM: {"mine": "mine:platform"}, GENERAL: {"go": "go:go"}}, mine=mine, go=go)
    (found,) = failures(importable)
    assert found == (
        f"plugin 'it' named the platform mine.Platform, which fails: {reason}"
        if reason
        else "plugin 'it' failed: the creation of its platform ended the process with exit status 3"
    )


def test_two_platforms_are_their_fault_and_not_that_of_a_general_plugin(importable: Place) -> None:
    two = "def one():\n    return 'two.One'\ndef two():\n    return 'two.Two'\nclass One:\n    pass\nclass Two:\n    pass\n"
    go = "import vllm.engine.arg_utils\ndef go():\n    pass\n"
    lock(importable, {PLATFORM: {"one": "two:one", "two": "two:two"}, GENERAL: {"go": "go:go"}}, two=two, go=go)
    found = failures(importable)
    assert len(found) == 2
    assert all("Only one platform plugin" in line and "platform_plugins" in line for line in found)


def test_a_platform_plugin_may_import_vllm_at_its_top(importable: Place) -> None:
    source = "import vllm.platforms\nvllm.platforms.current_platform\ndef platform():\n    return 'mine.Platform'\n"
    source += "class Platform:\n    pass\n"
    lock(importable, {PLATFORM: {"mine": "mine:platform"}}, mine=source)
    assert failures(importable) == []
    assert server(importable) == ["Platform"]


FIRST = "from vllm.v1.sample.logits_processor import LogitsProcessor\nclass It(LogitsProcessor):\n    pass\n"
SECOND = (
    "from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor\nclass It(LogitsProcessor):\n    pass\n"
)
BOTH = f"{FIRST}First = It\n{SECOND}class It(First, It):\n    pass\n"
PLAIN = "class It:\n    pass\n"


def test_a_logits_processor_must_have_the_interface_of_the_model_runner(importable: Place) -> None:
    sources = {"first": FIRST, "second": SECOND, "both": BOTH, "plain": PLAIN}
    lock(importable, {LOGITS: {name: f"{name}:It" for name in sources}}, **sources)
    for runner, has_triton, wrong in (
        ("", False, {"second"}),  # vLLM's first model runner takes any class
        ("", True, {"first", "plain"}),
        ("0", True, {"second"}),
        ("1", False, {"first", "plain"}),
    ):
        (importable.paths[0] / "vllm/triton_utils.py").write_text(f"HAS_TRITON = {has_triton}\n")
        shutil.rmtree(importable.store, ignore_errors=True)
        found = [line.partition(" (entry point ")[0] for line in failures(importable, RUNNER=runner)]
        text = "plugin 'it' has a logits processor for another model runner: {}:It"
        assert set(found) == {text.format(name) for name in wrong}, (runner, has_triton)


def test_one_sync_imports_vllm_once_and_the_next_one_does_not(importable: Place) -> None:
    counted = importable.root / "imports"
    (importable.paths[0] / "vllm/__init__.py").write_text(
        f"with open({str(counted)!r}, 'a', encoding='utf-8') as file:\n    file.write('.')\n", encoding="utf-8"
    )
    source = "import vllm\ndef register():\n    pass\nclass Processor:\n    pass\n"
    points = {GENERAL: {"a": "one:register", "b": "two:register"}, LOGITS: {"c": "three:Processor"}}
    lock(importable, points, one=source, two=source, three=source)
    for _ in range(2):
        assert failures(importable) == []
        assert counted.read_text(encoding="utf-8") == "."
