"""A logits processor that forces one token: ``SAMPLE_PLUGIN_TOKEN=N``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm.v1.sample.logits_processor import LogitsProcessor

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.v1.sample.logits_processor import BatchUpdate


class ForceToken(LogitsProcessor):
    """Leave only one token. Without the variable, change nothing."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        token = os.environ.get("SAMPLE_PLUGIN_TOKEN")
        self._token = None if token is None else int(token)

    def is_argmax_invariant(self) -> bool:
        """Whether greedy sampling gives the same result without this processor."""
        return self._token is None

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Nothing to do: all requests are treated alike."""

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Change the logits of a batch, with one row for each request and one column for each token."""
        if self._token is not None:
            kept = logits[:, self._token].clone()
            logits.fill_(float("-inf"))
            logits[:, self._token] = kept
        return logits
