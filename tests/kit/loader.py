"""How vLLM loads plugins, without vLLM: ``python -m tests.kit.loader GROUP...`` prints what happened as JSON.

The rules are those of ``vllm.plugins.load_plugins_by_group`` and ``vllm.platforms`` (0.32): a group's entry points are
listed once, all of them are loaded (an error is logged, and that plugin is skipped), and only then are they called.
``platform`` swallows errors, and asks the winner twice; ``general`` does not, and only its first call in a process does
anything. ``spawn``, ``fork`` and ``forkserver`` run the rest in a child process of multiprocessing, ``plain`` in one that
knows nothing of this one's path.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

STARTS = (
    "TESTS_STARTS"  # a variable: the address of the forks that stand in for the process with which the hook installs
)
_ENDPOINTS = "vllm.endpoint_plugins"
_done: list[str] = []


def load_plugins_by_group(group: str) -> dict[str, Callable[[], Any]]:
    """List and load a group."""
    names = os.environ.get("VLLM_PLUGINS")
    allowed = None if names is None else names.split(",")
    loaded = {}
    for point in entry_points(group=group):
        named = allowed is not None and point.name in allowed
        if named or (allowed is None and group != _ENDPOINTS):
            try:
                loaded[point.name] = point.load()
            except Exception:
                logging.getLogger("vllm.plugins").exception("Failed to load plugin %s", point.name)
    return loaded


def load_general_plugins() -> None:
    """Load and call."""
    if _done:
        return
    _done.append("general")
    plugins = load_plugins_by_group("vllm.general_plugins")
    for function in plugins.values():
        function()


def platform() -> str:
    """The platform that is active: a plugin's answer, or ``builtin``."""
    if os.environ.get("VLLM_TARGET_DEVICE") == "cpu":
        return "builtin"
    platform_plugins = load_plugins_by_group("vllm.platform_plugins")
    won = []
    for name, function in platform_plugins.items():
        try:
            if function() is not None:
                won.append(name)
        except Exception:  # noqa: BLE001 - as vLLM has it
            pass
    if len(won) > 1:
        raise RuntimeError(f"Only one platform plugin can be activated, but got: {set(won)}")
    return str(platform_plugins[won[0]]()) if won else "builtin"


def _interpreter() -> list[str]:
    return [sys.executable, *(["-S"] if sys.flags.no_site else [])]


def run(words: list[str]) -> dict[str, Any]:
    """Do what the words say, in their order, and say what came of it."""
    result: dict[str, Any] = {}
    for number, word in enumerate(words):
        rest = words[number + 1 :]
        if word == "platform":
            result["platform"] = platform()
        elif word == "general":
            load_general_plugins()
        elif word in ("spawn", "fork", "forkserver"):
            import multiprocessing  # most starts need neither this nor subprocess, which take as long as the hook to import

            with multiprocessing.get_context(word).Pool(1) as pool:
                result["child"] = pool.apply(run, (rest,))
            break
        elif word == "plain":
            import subprocess

            done = subprocess.run([*_interpreter(), "-m", __spec__.name, *rest], stdout=subprocess.PIPE, check=True)
            result["child"] = json.loads(done.stdout)
            break
        else:
            result[word] = sorted(load_plugins_by_group(f"vllm.{word}"))
    sys.stdout.flush()  # a pool ends its processes without
    return result


class _Forks:
    """Finds the module that starts processes, when the hook imports it, and lets it ask the server of forks for ours."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "vllm_plugins.core.process":
            return None
        sys.meta_path.remove(cls)
        spec = PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            client = os.path.join(os.path.dirname(__file__), "warm_client.py")
            module.PYTHON = (sys.executable, "-I", "-S", client, os.environ[STARTS])  # type: ignore[attr-defined]

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


if __name__ == "__main__":
    if STARTS in os.environ:
        sys.meta_path.insert(0, _Forks)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
    print(json.dumps(run(sys.argv[1:])))
