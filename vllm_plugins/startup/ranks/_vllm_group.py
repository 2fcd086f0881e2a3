"""Whether all ranks of a process group have the same plugins, compared in the store through which vLLM forms it.

``--nnodes`` hands no variables on to the other nodes. All workers of a model meet in one place, though: vLLM calls
``torch.distributed.init_process_group`` in ``vllm.distributed.parallel_state`` (seen in 0.11, 0.15, 0.26 and 0.32),
and each rank can read and write the store behind it. Each leaves there what it has. Rank 0 compares all of them with
its own, the others compare themselves with rank 0, and all of that before vLLM loads a model. Ranks only write and
read values: one without this package blocks nobody. Nothing needs a port of its own.

The value of a rank tells what was installed. In a group of several nodes, rank 0 and those on other nodes also look
whether the files of their overlay were edited since, and tell that in the store.

Groups that other programs form are left alone.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import logger
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from vllm_plugins.core.errors import NodeMismatch
    from vllm_plugins.startup.marker import Marker

__all__ = ["CALLER", "compare"]

CALLER = "vllm.distributed.parallel_state"
PATIENCE = 30.0  # seconds: the ranks are in the group, and write at once; one without this package never does

_KEY = "vllm_plugins/{}"
_EDITED = "vllm_plugins/{}/edited"
_WRAPPERS = 6  # functions of others between vLLM and ours, and one


def _is_of_vllm() -> bool:
    """Whether vLLM forms the group. Others may have put a function around ours, as we do around torch's."""
    frame = sys._getframe(3)  # noqa: SLF001 - whose group it is: the caller of our function in place of torch's
    for _ in range(_WRAPPERS):
        if frame.f_globals.get("__name__") == CALLER:
            return True
        if frame.f_back is None:
            break
        frame = frame.f_back
    return False


def compare(torch: Any, active: tuple[Path, Marker] | None) -> None:
    """Compare this rank, which has this overlay, with others, and stop vLLM only if they are known to differ.

    Called when a group was formed. Groups of others than vLLM are left alone.

    Raises:
        NodeMismatch: another rank has other plugins, or none.
    """
    if not _is_of_vllm():
        return
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
        others = _others(store, _KEY, range(1, size) if rank == 0 else (0,))
    except Exception as error:  # noqa: BLE001 - a store that fails, fails vLLM too, with a better message than ours
        logger.warning("The plugins of the other ranks can't be compared: %s: %s", type(error).__name__, error)
        return
    # Each on its own: one whose text is of another release must not hide another that differs.
    for mismatch in [_difference(rank, own, other, text) for other, text in others.items()]:
        if mismatch is not None:
            raise mismatch
    far = {number: node for number, text in others.items() if (node := _node(text)) not in (None, own["node"])}
    if far and "files=" in value and active is not None:
        _compare_files(store, rank, far, *active)


def _compare_files(store: Any, rank: int, far: Mapping[int, str], place: Path, marker: Marker) -> None:
    """Look at the files of this node's overlay, and ask the ranks of other nodes for the same.

    Raises:
        NodeMismatch: some were edited, here or there.
    """
    from vllm_plugins.startup.ranks import expectation

    try:
        edited = {rank: expectation.edited(place, marker)}
        store.set(_EDITED.format(rank), json.dumps(edited[rank]))
        if not edited[rank]:  # else there is nothing to wait for
            told = _others(store, _EDITED, far)
            edited |= {number: [*map(str, json.loads(text or b"[]"))] for number, text in told.items()}
    except Exception as error:  # noqa: BLE001 - as above
        logger.warning("The files of the other ranks can't be compared: %s: %s", type(error).__name__, error)
        return
    for number, files in edited.items():
        if files:
            raise expectation.edited_rank(number, far.get(number, os.uname().nodename), files)


def _node(text: bytes | None) -> str | None:
    """The node of a rank, if it can be read."""
    try:
        return str(json.loads(text or b"null")["node"])
    except (ValueError, TypeError, KeyError):
        return None


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


def _others(store: Any, key: str, ranks: Iterable[int]) -> Mapping[int, bytes | None]:
    """What these ranks have written; ``None`` for those that wrote nothing in time."""
    keys = {rank: key.format(rank) for rank in ranks}
    numbers = list(keys)
    try:
        store.wait(list(keys.values()), timedelta(seconds=PATIENCE))
    except RuntimeError:  # DistStoreError: not all are there
        keys = {rank: key for rank, key in keys.items() if store.check([key])}
    return {rank: store.get(keys[rank]) if rank in keys else None for rank in numbers}
