"""A plugin for vLLM, as small as one can be."""

from __future__ import annotations

import logging

_logger = logging.getLogger("vllm.sample_plugin")


def register() -> None:
    """What vLLM calls in every process: register models, patch, configure. It may be called more than once."""
    _logger.info("The sample plugin is here")
