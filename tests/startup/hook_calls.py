"""An overlay of one package with a general plugin and a platform plugin, and the ways in which vLLM calls the hook."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tests.startup import overlays
from vllm_plugins.startup import activation, hook, overlay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from vllm_plugins.startup.marker import Marker

LOCK = b"a lock\n"
MANIFEST = b"plugins: []\n"
GENERAL = (hook.GENERAL, "probe", "probe_calls:register", "probe", "probe")
PLATFORM = (hook.PLATFORM, "npu", "probe_calls:platform", "probe", "probe")
RAN: list[Any] = []  # by plugins of any overlay; their modules may be forgotten
SOURCE = """\
from tests.startup.hook_calls import RAN as calls
def register():
    calls.append("general")
def platform():
    calls.append("platform")
    return "probe.Platform"
"""


def install(home: Path, source: str = SOURCE, lock: bytes = LOCK, **fields: object) -> Marker:
    """A lock, and its overlay with a general plugin and a platform plugin, which is up to date."""
    (home / "config" / "plugins.lock").write_bytes(lock)
    whole: dict[str, object] = {"points": (GENERAL, PLATFORM), "plugins": ("probe 1.0",), "manifests": (overlay.sha256(MANIFEST),)}  # fmt: skip
    return overlays.write(home / "store", lock, {"probe_calls.py": source}, **{**whole, **fields})


def calls() -> list[Any]:
    """The plugins that were run."""
    return list(RAN)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def inherit(home: Path, marker: Marker, *, confirmed: bool = True) -> dict[str, Callable[[], object]]:
    """A child process, or one with a link: the overlay is on the path, and vLLM has listed its plugins."""
    sys.path.append(str(overlay.directory(home / "store", marker.key) / "site"))
    if confirmed:
        activation.confirm(marker.key)
    info = overlay.directory(home / "store", marker.key) / "site" / "probe-1.0.dist-info"
    info.mkdir()
    text = f"[{hook.GENERAL}]\nprobe = probe_calls:register\n[{hook.PLATFORM}]\nnpu = probe_calls:platform\n"
    (info / "entry_points.txt").write_text(text)
    module: Any = __import__("probe_calls")
    return {"probe": module.register, "npu": module.platform}


def load_general_plugins(listed: dict[str, Callable[[], object]]) -> None:
    """As vLLM does it: our own function is among those that it has listed."""
    plugins = {"vllm_plugins": hook.general, **{name: listed[name] for name in listed if name == "probe"}}
    for function in plugins.values():
        function()


def resolve_platform(listed: dict[str, Callable[[], object]]) -> list[object]:
    """As vLLM does it: the plugin that wins is asked twice."""
    platform_plugins = {"vllm_plugins": hook.platform, **{name: listed[name] for name in listed if name == "npu"}}
    found = []
    for function in platform_plugins.values():  # no comprehension, which has a frame of its own
        found.append(function())  # noqa: PERF401
    return found


def load_plugins_by_group(listed: dict[str, Callable[[], object]]) -> list[object]:
    """As vLLM does it where the package of a plugin, while it is imported, asks for the platform."""
    return resolve_platform(listed)
