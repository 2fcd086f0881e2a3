"""What plugins do in the processes of vLLM, without a server: ``python processes.py GROUP... [METHOD[,METHOD]...] GROUP...``.

It asks vLLM itself for its platform and plugins, in this order, and prints what came of it as JSON. The words after a
start method (spawn, fork, forkserver) are for a child process; with several methods, for several.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from typing import Any


def run(words: list[str]) -> dict[str, Any]:
    """Do what the words say, in their order."""
    result: dict[str, Any] = {}
    for number, word in enumerate(words):
        if word == "platform":
            from vllm.platforms import current_platform

            kind = type(current_platform)
            result["platform"] = f"{kind.__module__}.{kind.__qualname__}"
        elif word == "general":
            from vllm.plugins import load_general_plugins

            load_general_plugins()
        elif set(methods := word.split(",")) <= {"spawn", "fork", "forkserver"}:
            for method in methods:
                with multiprocessing.get_context(method).Pool(1) as pool:
                    result["child" if len(methods) == 1 else method] = pool.apply(run, (words[number + 1 :],))
            break
        else:
            from vllm.plugins import load_plugins_by_group

            result[word] = sorted(load_plugins_by_group(f"vllm.{word}"))
    return result


if __name__ == "__main__":
    found = run(sys.argv[1:])
    print(json.dumps(found))
