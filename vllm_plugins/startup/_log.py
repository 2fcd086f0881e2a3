"""The logger, a child of vLLM's own, so that its lines have vLLM's format and process prefix.

``logging`` refers to the logger for good, so to the filter below, and so to everything that this module refers to. In
the package itself, that would be all of its modules: the interpreter could not free them at once when it ends, and
would clear them one by one, which takes longer than importing some of them. So no module of ours is imported here.
"""

from __future__ import annotations

import logging

__all__ = ["logger", "prepare_logging"]

logger = logging.getLogger("vllm.plugins.manager")

# vLLM's own format (0.8.5 to 0.33), without the prefix that it gives to each process.
_FORMAT = "%(levelname)s %(asctime)s [%(filename)s:%(lineno)d] %(message)s"
_DATE = "%m-%d %H:%M:%S"


def _make_printable(record: logging.LogRecord) -> bool:
    """Escape what others wrote in a line: the output of a program, or the message of a plugin's exception."""
    message = record.getMessage()
    if not message.isprintable():
        from vllm_plugins.core.printable import printable

        record.msg, record.args = printable(message), ()
    return True


logger.addFilter(_make_printable)


def prepare_logging(level: str | None) -> None:
    """Give the logger a handler where vLLM has not configured logging yet. ``level`` is ``Settings.log_level``.

    The API server does that after it has parsed its arguments (``vllm.logger.configure_logging``), which is later
    than it resolves the platform: an installation would show no progress. vLLM's own handlers then replace ours.
    """
    if level is None or logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT, _DATE))
    handler.addFilter(lambda _: not (logging.getLogger("vllm").handlers or logging.getLogger().handlers))
    logger.addHandler(handler)
    number = logging.getLevelName(level.upper())
    logger.setLevel(number if isinstance(number, int) else logging.INFO)
