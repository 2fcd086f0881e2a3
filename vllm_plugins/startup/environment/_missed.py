"""Plugins of an overlay that vLLM does not load in this process, reported before it serves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import LoadError
from vllm_plugins.startup import logger

if TYPE_CHECKING:
    from vllm_plugins.startup.marker import Marker
    from vllm_plugins.startup.settings import Settings

__all__ = ["check"]

_PLATFORM = "vllm.platform_plugins"


def check(settings: Settings, marker: Marker, *, has_platform: bool) -> None:
    """Warn of plugins in groups that vLLM does not load, as it is configured.

    ``has_platform`` says that vLLM had chosen its platform before this overlay was active. The overlay's platform
    plugins can't be used in this process then. That happens in Ray workers: vLLM is imported there before its
    variables, which name the lock, are copied to them (0.22 to 0.33).

    Raises:
        LoadError: there are such platform plugins.
    """
    for group, cause in settings.ignored:
        points = [point for point in marker.group(group) if settings.lets_through(group, point.name)]
        if points:
            names = ", ".join(point.name for point in points)
            logger.warning("vLLM loads no plugins of %s because of %s: %s", group, cause, names)
    late = [point for point in marker.group(_PLATFORM) if settings.lets_through(_PLATFORM, point.name)]
    if has_platform and late and _PLATFORM not in dict(settings.ignored):
        raise LoadError(
            f"vLLM chose its platform before the lock was known, without {', '.join(point.name for point in late)}",
            where=f"node {os.uname().nodename}, process {os.getpid()}: "
            f"entry point {late[0].name} = {late[0].value} in {_PLATFORM}, of {late[0].distribution}",
            found=f"the variables that name {settings.lock} were set after vLLM was imported, as in a Ray worker",
            details=[
                "Ray gives its workers early what the image or the environment of `ray start` has, or a runtime_env:",
                "ray.init(runtime_env={'env_vars': {'VLLM_PLUGIN_LOCK': …}})",
            ],
            next_step="set these variables before the process starts (for Ray, where `ray start` is run on each "
            "node), or link the overlay there: vllm-plugins sync --bake",
        )
