"""What every vLLM process runs. Standard library only.

The logger is a child of vLLM's own, so that its lines carry vLLM's format and process prefix.
"""

from __future__ import annotations

import logging
import os

__all__ = ["logger", "prepare_logging"]

logger = logging.getLogger("vllm.plugins.manager")

# As vLLM's own, without the prefix that it gives each process.
_FORMAT = "%(levelname)s %(asctime)s [%(filename)s:%(lineno)d] %(message)s"
_DATE = "%m-%d %H:%M:%S"


def prepare_logging() -> None:
    """Let the logger be heard where vLLM has not set up logging yet.

    The API server does that after it has parsed its arguments (``vllm.logger.configure_logging``), which is later
    than it resolves the platform: an installation would go on in silence. What vLLM sets up then replaces this.
    """
    if logger.hasHandlers() or os.environ.get("VLLM_CONFIGURE_LOGGING") == "0":
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT, _DATE))
    handler.addFilter(lambda _: not (logging.getLogger("vllm").handlers or logging.getLogger().handlers))
    logger.addHandler(handler)
    level = logging.getLevelName(os.environ.get("VLLM_LOGGING_LEVEL", "INFO").upper())
    logger.setLevel(level if isinstance(level, int) else logging.INFO)
