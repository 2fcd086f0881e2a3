"""Turns: work that one process of a store does at a time, because the others would only repeat it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from vllm_plugins.install import _store as stores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_plugins.core.progress import Reporter

__all__ = ["one_at_a_time"]


@contextlib.contextmanager
def one_at_a_time(store: Path, reporter: Reporter) -> Iterator[None]:
    """A block that other processes of the store wait for, as they do for an installation.

    They also go on where file locks do nothing, and when this process shows no sign of life: the block must be right
    without its turn, too.

    Raises:
        StoreError: the store can't be written.
    """
    with contextlib.ExitStack() as stack:
        with stores.errors(store):
            stores.prepare(store)
            stack.enter_context(stores.exclusive(store, reporter))
        yield
