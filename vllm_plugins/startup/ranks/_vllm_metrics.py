"""The gauge ``vllm_plugins_info`` in vLLM's ``/metrics``: which overlay a server has.

vLLM serves the default registry of ``prometheus_client``, or with ``--api-server-count``, what all processes write to
``PROMETHEUS_MULTIPROC_DIR``. Seen in 0.32: the library is imported before vLLM calls general plugins in an API
server. A gauge with the mode ``max`` is one line for all processes that have the same overlay. The name does not
begin with ``vllm:``, so that ``unregister_vllm_metrics`` leaves it alone.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import activation, logger

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

__all__ = ["NAME", "show"]

NAME = "vllm_plugins_info"
_HELP = "The plugins that are active: key of the overlay, sha256 of the lock, version of vLLM. No key: no plugins."

_gauge: Any = None
_shown: dict[str, str] | None = None


def show(active: tuple[Path, Marker] | None) -> None:
    """Set the gauge. Without the overlay on the path, its labels are empty. It never stops vLLM."""
    global _gauge, _shown  # noqa: PLW0603 - a registry takes each name once in a process
    key = activation.active_key() or ""
    lock = active[1].lock_sha256 if active is not None and active[1].key == key else ""
    vllm = str(getattr(sys.modules.get("vllm"), "__version__", ""))
    try:
        if _gauge is None:
            client: Any = sys.modules["prometheus_client"]
            _gauge = client.Gauge(NAME, _HELP, ["key", "lock", "vllm"], multiprocess_mode="max")
        labels = {"key": key, "lock": lock, "vllm": vllm}
        if _shown is not None and _shown != labels:
            _gauge.labels(**_shown).set(0)  # with several processes, a line can't be removed
        _gauge.labels(**labels).set(1)
        _shown = labels
    except Exception as error:  # noqa: BLE001 - metrics are not worth a server
        logger.warning("The metric %s can't be set: %s: %s", NAME, type(error).__name__, error)
