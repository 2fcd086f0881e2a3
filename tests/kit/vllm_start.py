"""Modules for a stand-in for vLLM that asks for its platform while it is imported, as vLLM does (0.32)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import vllm

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["environment"]

MODULES = {
    "vllm/__init__.py": "",
    "vllm/envs.py": "import os\nVLLM_USE_V2_MODEL_RUNNER = {'1': True, '0': False}.get(os.environ.get('RUNNER'))\n",
    "vllm/plugins.py": """\
from importlib.metadata import entry_points

def load_plugins_by_group(group):
    plugins = {}
    for point in entry_points(group=group):
        try:
            plugins[point.name] = point.load()
        except Exception:
            pass
    return plugins
""",
    "vllm/platforms.py": """\
import importlib
from vllm.plugins import load_plugins_by_group

_current_platform = None

class Builtin:
    pass

def resolve_current_platform_cls_qualname():
    platform_plugins = load_plugins_by_group("vllm.platform_plugins")
    won = []
    for name, function in platform_plugins.items():
        try:
            if function() is not None:
                won.append(name)
        except Exception:
            pass
    if len(won) > 1:
        raise RuntimeError(f"Only one platform plugin can be activated, but got: {won}")
    return platform_plugins[won[0]]() if won else "vllm.platforms.Builtin"

def __getattr__(name):
    if name != "current_platform":
        raise AttributeError(name)
    global _current_platform
    if _current_platform is None:
        module, _, kind = resolve_current_platform_cls_qualname().rpartition(".")
        _current_platform = getattr(importlib.import_module(module), kind)()
    return _current_platform
""",
    "vllm/config.py": "from vllm.platforms import current_platform\n\nclass VllmConfig:\n    pass\n",
    "vllm/engine/__init__.py": "",
    "vllm/engine/arg_utils.py": "from vllm.config import VllmConfig\n",
    "vllm/triton_utils.py": "HAS_TRITON = False\n",
    "vllm/v1/__init__.py": "",
    "vllm/v1/sample/__init__.py": "",
    "vllm/v1/sample/logits_processor.py": "class LogitsProcessor:\n    pass\n",
    "vllm/v1/worker/__init__.py": "",
    "vllm/v1/worker/gpu/__init__.py": "",
    "vllm/v1/worker/gpu/sample/__init__.py": "",
    "vllm/v1/worker/gpu/sample/logits_processor.py": "class LogitsProcessor:\n    pass\n",
}


def environment(into: Path) -> Path:
    """The stand-in for a vLLM environment (see ``kit.vllm``), with these modules in it."""
    vllm.environment(into)
    for name, source in MODULES.items():
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_text(source, encoding="utf-8")
    return into
