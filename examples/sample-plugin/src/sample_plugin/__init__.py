"""A minimal plugin for vLLM."""

from __future__ import annotations

import logging

_logger = logging.getLogger("vllm.sample_plugin")


def register() -> None:
    """Register models, patch or configure. vLLM calls this function in every process."""
    _logger.info("The sample plugin is active")
