"""Import vLLM in the order of a start, so that plugins meet it in the state in which a server would load them.

Seen in vLLM 0.10.2 to 0.33: a server imports ``vllm.engine.arg_utils``. On the way, while ``vllm.config`` is only
partly imported, vLLM asks for its platform (``vllm.platforms.current_platform``), and lists platform plugins with
``load_plugins_by_group``. General plugins follow when the arguments are parsed, then logits processors, stat loggers,
IO processors and endpoint plugins.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import activation, overlay
from vllm_plugins.startup.settings import LOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ORDER", "PLATFORM", "as_in_vllm", "begin", "go_on", "interface_problem", "resolve_platform"]

PLATFORM = "vllm.platform_plugins"
# The groups in the order in which an API server loads them (0.32; older releases lack the last).
ORDER = (
    PLATFORM,
    "vllm.general_plugins",
    "vllm.logits_processors",
    "vllm.stat_logger_plugins",
    "vllm.io_processor_plugins",
    "vllm.endpoint_plugins",
    LOADS,
)
_LISTING = "load_plugins_by_group"
_RUNNER = "VLLM_USE_V2_MODEL_RUNNER"


def as_in_vllm(paths: Sequence[str], own: Sequence[str]) -> list[str]:
    """The path of a vLLM process, from the directories of the base and from the path of this process, ``own``.

    This process has no PYTHONPATH. Its entries come first, as in a vLLM process.
    """
    first = list(itertools.takewhile(lambda path: path not in own, paths))
    path = [*first, *own, *(path for path in paths if path not in (*first, *own))]
    return [entry for entry in path if overlay.front_in(entry) is None]  # a link may have put overrides in front


def begin(run: Callable[[], None], answers: Callable[[], Mapping[str, object]]) -> None:
    """Import vLLM, and call ``run`` when it first asks for platform plugins; afterwards, if it never does.

    ``answers`` are what the overlay's platform plugins have returned in ``run``, by name: vLLM chooses its platform
    from them, and calls none of them again. What vLLM raises is dropped, as a plugin may be the cause: whatever comes
    next meets it, too.
    """
    has_begun = False

    def begin_once() -> None:
        nonlocal has_begun
        if not has_begun:
            has_begun = True
            run()

    # Whatever a plugin raises has been reported by then, and SystemExit is one of the things that it may raise.
    with contextlib.suppress(BaseException):
        platforms: Any = importlib.import_module("vllm.platforms")
        real = getattr(platforms, _LISTING)

        def listing(group: str) -> dict[str, Callable[[], object]]:
            begin_once()
            return {**_of_base(real, group), **{name: _constant(answer) for name, answer in answers().items()}}

        setattr(platforms, _LISTING, listing)
    go_on()
    begin_once()


def go_on() -> None:
    """Import what a server has imported before it loads general plugins."""
    with contextlib.suppress(BaseException):
        importlib.import_module("vllm.engine.arg_utils")


def resolve_platform() -> None:
    """Let vLLM choose its platform, and create it, unless it has. Does nothing with a vLLM that works differently."""
    platforms: Any = sys.modules.get("vllm.platforms")
    if platforms is not None and hasattr(platforms, _LISTING):
        platforms.current_platform  # noqa: B018 - it is created when it is looked up


def interface_problem(target: object) -> str:
    """Why the model runner would refuse a logits processor that is a plugin; "" if it would not.

    Since 0.31 there are two interfaces. The second model runner, which is the default where Triton works, refuses a
    plugin of the first (``v1/worker/gpu/sample/logits_processor/loader.py``). Which one runs may also depend on the
    model, unless ``VLLM_USE_V2_MODEL_RUNNER`` decides.
    """
    try:
        second: Any = importlib.import_module("vllm.v1.worker.gpu.sample.logits_processor").LogitsProcessor
        first: Any = importlib.import_module("vllm.v1.sample.logits_processor").LogitsProcessor
        chosen: bool | None = getattr(importlib.import_module("vllm.envs"), _RUNNER)
        has_triton: bool = importlib.import_module("vllm.triton_utils").HAS_TRITON
    except (ImportError, AttributeError):  # an older vLLM, with one interface
        return ""
    bases = target.__mro__ if isinstance(target, type) else ()
    if has_triton if chosen is None else chosen:
        return "" if second in bases else f"model runner V2 refuses it; {_RUNNER}=0 selects V1"
    return f"model runner V1 can't use it; {_RUNNER}=1 selects V2" if second in bases and first not in bases else ""


def _of_base(real: Callable[[str], dict[str, Callable[[], object]]], group: str) -> dict[str, Callable[[], object]]:
    """What vLLM lists of its environment. The overlay's plugins are loaded one by one instead, each with a report."""
    sites = [entry for entry in sys.path if activation.is_site(entry)]
    sys.path[:] = [entry for entry in sys.path if not activation.is_site(entry)]
    try:
        return real(group)
    finally:
        sys.path += sites


def _constant(answer: object) -> Callable[[], object]:
    return lambda: answer
