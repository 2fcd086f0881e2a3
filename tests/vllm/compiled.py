"""Load a model and run it in this process: ``python compiled.py MODEL CONFIGURATION`` prints JSON.

It prints the output, and how often vLLM compiled the model, and loaded it from its cache.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def compile_as_on_a_gpu() -> None:
    """Let vLLM use its own compiler, with its cache, on a CPU, where it is replaced by one call of torch's."""
    from vllm.compilation.passes.utility.fix_functionalization import FixFunctionalizationPass
    from vllm.config import CompilationMode
    from vllm.platforms.cpu import CpuPlatform

    original = CpuPlatform.check_and_update_config

    def check_and_update_config(vllm_config: Any) -> None:
        original(vllm_config)
        vllm_config.compilation_config.mode = CompilationMode.VLLM_COMPILE

    FixFunctionalizationPass.__call__ = lambda *_: None  # it names operators that exist on a GPU alone
    CpuPlatform.check_and_update_config = staticmethod(check_and_update_config)


def main(model: str, configuration: str) -> None:
    from vllm import LLM, SamplingParams
    from vllm.compilation.counter import compilation_counter

    if os.environ.get("AS_ON_A_GPU"):
        compile_as_on_a_gpu()
    llm = LLM(
        model,
        load_format="dummy",
        max_model_len=128,
        dtype="float32",
        gpu_memory_utilization=0.3,
        **json.loads(configuration),
    )
    output = llm.generate(["hello"], SamplingParams(max_tokens=4, temperature=0, logprobs=1))[0].outputs[0]
    cache = Path(os.environ["VLLM_CACHE_ROOT"], "torch_compile_cache")
    result = {
        "output": [*output.token_ids, round(float(output.cumulative_logprob or 0), 4)],
        "counters": {name: value for name, value in vars(compilation_counter).items() if value},
        "directories": sorted(str(path.relative_to(cache)) for path in cache.glob("*/*") if path.is_dir()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
