"""Whether the engine of this process is in another one, which calls the hook itself before it is ready."""

from __future__ import annotations

import os
import sys

from vllm_plugins.startup import settings as variables

__all__ = ["is_elsewhere"]


def is_elsewhere() -> bool:
    """Whether this is a server of vLLM whose engine is in a process that will be spawned.

    A server sets the method of its processes itself, before it loads general plugins
    (``vllm.entrypoints.utils.cli_env_setup``; 0.11 to 0.33). A forked engine, or one in this process, calls no hook.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    is_server = os.path.basename(sys.argv[0]) == "vllm" or getattr(spec, "name", "").startswith("vllm.entrypoints.")
    spawns = variables.inherited("VLLM_WORKER_MULTIPROC_METHOD") == "spawn"
    return is_server and spawns and variables.inherited("VLLM_ENABLE_V1_MULTIPROCESSING") in (None, "1")
