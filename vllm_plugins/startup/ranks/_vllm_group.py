"""Whether all ranks of a process group have the same plugins, compared in the store through which vLLM forms it.

``--nnodes`` hands no variables on to the other nodes. All workers of a model meet in one place, though: vLLM calls
``torch.distributed.init_process_group`` in ``vllm.distributed.parallel_state`` (seen in 0.11, 0.15, 0.26 and 0.32),
and each rank can read and write the store behind it. Each leaves there what it has. Rank 0 compares all of them with
its own, the others compare themselves with rank 0, and all of that before vLLM loads a model. No rank has to take
part, so one without this package can't block the others, and no further port is used.

Groups that other programs form are left alone.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import logger
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vllm_plugins.core.errors import NodeMismatch

__all__ = ["CALLER", "FUNCTION", "watch"]

CALLER = "vllm.distributed.parallel_state"
FUNCTION = "init_process_group"
PATIENCE = 30.0  # seconds: the ranks are in the group, and write at once; one without this package never does

_KEY = "vllm_plugins/{}"
_WRAPPERS = 6  # functions of others between vLLM and ours, and one


def watch() -> None:
    """Compare the ranks of each group that vLLM forms in this process from now on."""
    torch: Any = sys.modules["torch.distributed"]
    real: Callable[..., Any] | None = getattr(torch, FUNCTION, None)  # not in a build without distributed packages
    if real is None or hasattr(real, "compares_plugins"):
        return

    @functools.wraps(real)
    def init_process_group(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        if _is_of_vllm():
            _compare(torch)
        return result

    init_process_group.compares_plugins = True  # type: ignore[attr-defined]
    setattr(torch, FUNCTION, init_process_group)


def _is_of_vllm() -> bool:
    """Whether vLLM forms the group. Others may have put a function around ours, as we do around torch's."""
    frame = sys._getframe(2)  # noqa: SLF001 - whose group it is
    for _ in range(_WRAPPERS):
        if frame.f_globals.get("__name__") == CALLER:
            return True
        if frame.f_back is None:
            break
        frame = frame.f_back
    return False


def _compare(torch: Any) -> None:
    """Compare this rank with others, and stop vLLM only if they are known to differ.

    Raises:
        NodeMismatch: another rank has other plugins, or none.
    """
    try:
        size = torch.get_world_size()
        if size == 1:
            return
        rank, value = torch.get_rank(), variables.inherited(variables.EXPECT) or ""
        c10d: Any = sys.modules["torch.distributed.distributed_c10d"]
        store = c10d._get_default_store()  # noqa: SLF001 - there is no public way
        own = {"node": os.uname().nodename, "expect": value}
        store.set(_KEY.format(rank), json.dumps(own))
        if value in ("", "any"):  # where another rank has plugins, it notices
            return
        others = _others(store, range(1, size) if rank == 0 else (0,))
    except Exception as error:  # noqa: BLE001 - a store that fails, fails vLLM too, with a better message than ours
        logger.warning("The plugins of the other ranks can't be compared: %s: %s", type(error).__name__, error)
        return
    # Each on its own: one whose text is of another release must not hide another that differs.
    for mismatch in [_difference(rank, own, other, text) for other, text in others.items()]:
        if mismatch is not None:
            raise mismatch


def _difference(rank: int, own: Mapping[str, str], other: int, text: bytes | None) -> NodeMismatch | None:
    """The error that this rank and another one differ. One of the two is rank 0."""
    from vllm_plugins.startup.ranks import expectation

    try:
        there = None if text is None else json.loads(text)
        first, found = (own, there) if rank == 0 else (there, own)
        return expectation.between(first, found, rank=rank or other)
    except Exception as error:  # noqa: BLE001 - not known to differ
        logger.warning("The plugins of rank %d can't be compared: %s: %s", other, type(error).__name__, error)
        return None


def _others(store: Any, ranks: range | tuple[int, ...]) -> Mapping[int, bytes | None]:
    """What these ranks have written; ``None`` for those that wrote nothing in time."""
    keys = {rank: _KEY.format(rank) for rank in ranks}
    try:
        store.wait(list(keys.values()), timedelta(seconds=PATIENCE))
    except RuntimeError:  # DistStoreError: not all are there
        keys = {rank: key for rank, key in keys.items() if store.check([key])}
    return {rank: store.get(keys[rank]) if rank in keys else None for rank in ranks}
