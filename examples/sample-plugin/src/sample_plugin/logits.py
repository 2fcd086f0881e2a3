"""A logits processor: with ``SAMPLE_PLUGIN_TOKEN=N``, every generated token is token N."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm.v1.sample.logits_processor import LogitsProcessor

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.v1.sample.logits_processor import BatchUpdate


class ForceToken(LogitsProcessor):
    """Leaves one token only; without the variable, everything is as it was."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        token = os.environ.get("SAMPLE_PLUGIN_TOKEN")
        self._token = None if token is None else int(token)

    def is_argmax_invariant(self) -> bool:
        """Whether greedy sampling would give the same without it."""
        return self._token is None

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """It treats all requests alike, and keeps nothing of them."""

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Change the logits of a batch: one row a request, one column a token."""
        if self._token is not None:
            kept = logits[:, self._token].clone()
            logits.fill_(float("-inf"))
            logits[:, self._token] = kept
        return logits
