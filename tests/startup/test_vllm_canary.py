"""The canary of vLLM says in plain words what moved. ``tests/vllm/canary.py`` reads the newest release with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.vllm import canary

if TYPE_CHECKING:
    from pathlib import Path

LOADER = "def start():\n    load_general_plugins()\n"
# Not vLLM's text: what matters of it.
VLLM = {
    canary.PLUGINS: """\
GENERAL = "vllm.general_plugins"
OTHERS = ["vllm.platform_plugins", "vllm.stat_logger_plugins", "vllm.endpoint_plugins"]

def load_plugins_by_group(group):
    found = {}
    for point in entry_points(group=group):
        try:
            found[point.name] = point.load()
        except Exception:
            log(point)
    return found

def load_general_plugins():
    functions = load_plugins_by_group(GENERAL)
    for function in functions.values():
        function()
""",
    canary.PLATFORMS: """\
from vllm.plugins import load_plugins_by_group

def resolve_current_platform_cls_qualname():
    functions = load_plugins_by_group("vllm.platform_plugins")
    for name, function in functions.items():
        try:
            function()
        except Exception:
            pass

def __getattr__(name):
    if name == "current_platform":
        return resolve_current_platform_cls_qualname()
""",
    canary.ENVS: """\
environment_variables = {
    "VLLM_PLUGINS": lambda: os.environ["VLLM_PLUGINS"].split(","),
    "VLLM_USE_V2_MODEL_RUNNER": None,
    "VLLM_USE_RUST_FRONTEND": None,
    "VLLM_TARGET_DEVICE": None,
}
""",
    canary.IO: 'GROUP = "vllm.io_processor_plugins"\n',
    canary.LOGITS: 'GROUP = "vllm.logits_processors"\nfound = entry_points(group=GROUP)\n',
    canary.GROUPS_OF_RANKS: "def start():\n    torch.distributed.init_process_group()\n",
    **dict.fromkeys(canary.LOADERS, LOADER),
}


def test_nothing_has_moved_in_a_vllm_as_we_know_it() -> None:
    assert list(canary.moved(VLLM)) == []


@pytest.mark.parametrize("path", canary.FILES)
def test_a_missing_module_is_reported(path: str) -> None:
    assert f"{path} is missing" in list(canary.moved({key: text for key, text in VLLM.items() if key != path}))


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        (canary.PLUGINS, "load_plugins_by_group", "find_plugins", "has no function load_plugins_by_group"),
        (canary.PLUGINS, "(group):", "(group, allowed):", "load_plugins_by_group has 2 parameters, not one"),
        (canary.PLUGINS, "entry_points(", "pluggy_points(", "does not call importlib.metadata.entry_points"),
        (canary.PLUGINS, "except Exception:", "finally:", "that can't be loaded stops load_plugins_by_group"),
        (canary.PLUGINS, "[point.name]", "[point]", "does not return a dictionary of functions by the entry points'"),
        (
            canary.PLUGINS,
            "functions = load_plugins_by_group(GENERAL)\n    for function in functions.values():",
            "for function in load_plugins_by_group(GENERAL).values():",
            "load_general_plugins does not keep what load_plugins_by_group returns in a local variable",
        ),
        (
            canary.PLUGINS,
            "        function()\n",
            "        try:\n            function()\n        except Exception:\n            pass\n",
            "load_general_plugins catches what a plugin raises",
        ),
        (canary.PLUGINS, '"vllm.endpoint_plugins"', '"vllm.route_plugins"', "vLLM has a new group of plugins, vllm.route_plugins"),
        (canary.PLUGINS, '"vllm.endpoint_plugins"', '"vllm.route_plugins"', "vLLM has no group vllm.endpoint_plugins"),
        (canary.PLUGINS, '"vllm.general_plugins"', '"x"', "vLLM has no group vllm.general_plugins (our hook is in it)"),
        (canary.PLATFORMS, "from vllm.plugins import", "from vllm.other import a,", ""),
        (canary.PLATFORMS, "from vllm.plugins import load_plugins_by_group", "", "does not import load_plugins_by_group"),
        (canary.PLATFORMS, '"current_platform"', '"platform"', "does not resolve current_platform when it is looked up"),
        (canary.PLATFORMS, "def resolve_current", "def find_current", "has no function resolve_current_platform_cls_qualname"),
        (canary.ENVS, '.split(",")', '.split(" ")', "VLLM_PLUGINS is not a list of names with commas between them"),
        (canary.ENVS, "VLLM_USE_RUST", "USE_RUST", "does not know the variable VLLM_USE_RUST_FRONTEND"),
        (canary.ENVS, "environment_variables =", "variables =", "has no dictionary environment_variables"),
        (canary.LOGITS, "entry_points(", "listed(envs.VLLM_PLUGINS, ", "reads VLLM_PLUGINS: it did not apply to"),
        ("vllm/v1/engine/core.py", "load_general_plugins()", "pass", "it was EngineCore that loaded general plugins there"),
        (canary.GROUPS_OF_RANKS, "torch.distributed.", "", "does not call torch's init_process_group by its module"),
        (canary.ENVS, "environment_variables = {", "match = {{", "vllm/envs.py can't be parsed by Python 3"),
    ],
)  # fmt: skip
def test_a_change_of_vllm_is_described_in_a_sentence(path: str, old: str, new: str, said: str) -> None:
    assert old in VLLM[path]
    found = list(canary.moved({**VLLM, path: VLLM[path].replace(old, new)}))
    assert said in "\n".join(found)
    assert bool(found) is bool(said)


def test_the_list_is_printed_and_the_exit_status_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, text in VLLM.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert canary.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"vLLM {tmp_path}: nothing has moved\n"
    (tmp_path / canary.IO).unlink()
    assert canary.main([str(tmp_path)]) == 1
    assert f"  - {canary.IO} is missing\n" in capsys.readouterr().out
