"""What a start leaves in the process of vLLM: our variables among the known ones, a metric, a comparison of ranks.

Each of these is small, and every vLLM process loads this module, so they share one. What they rarely need is apart.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import activation, logger
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

__all__ = ["FUNCTION", "METRIC", "compare_ranks", "register", "show"]

METRIC = "vllm_plugins_info"
_HELP = "The plugins that are active: key of the overlay, sha256 of the lock, version of vLLM. No key: no plugins."
FUNCTION = "init_process_group"  # of torch.distributed

_gauge: Any = None
_shown: dict[str, str] | None = None
_active: tuple[Path, Marker] | None = None


def register() -> None:
    """Add our variables to those that vLLM knows (``vllm.envs``), where vLLM is imported.

    vLLM warns of unknown variables, and refuses them with ``--fail-on-environ-validation``. The known ones are also
    factors of the key of its compile cache. There ours are constants, except for one that stands for the overlay
    (``_vllm_cache``). Seen in 0.10.2 to 0.33: a dictionary of getters, ``vllm.envs.environment_variables``.
    """
    envs = sys.modules.get("vllm.envs")
    known = getattr(envs, "environment_variables", None)
    if not isinstance(known, dict) or variables.COMPILED in known:
        return
    for name in (*variables.VARIABLES, *_logins()):
        known.setdefault(name, _constant)
    known[variables.COMPILED] = _factor
    real = getattr(envs, "compute_hash", None)
    if real is not None:  # 0.10.2 to 0.11: the variables in the key are a fixed list
        envs.compute_hash = lambda: f"{real()} {_factor()}"  # type: ignore[union-attr]


def _logins() -> list[str]:
    """The variables with logins of indexes. Most processes have none, and need not load what knows them."""
    names = [name for name in os.environ if name.startswith("VLLM_PLUGIN_INDEX_")]
    if not names:
        return []
    from vllm_plugins.startup.environment import index_logins

    return [name for name in names if index_logins.is_variable(name)]


def _constant() -> None:
    """The part that a variable of ours has in the key: none."""


def _factor() -> str | None:
    from vllm_plugins.startup import _vllm_cache

    return _vllm_cache.factor()


def show(active: tuple[Path, Marker] | None) -> None:
    """Set the gauge ``vllm_plugins_info`` in vLLM's ``/metrics``: which overlay a server has. It never stops vLLM.

    vLLM serves the default registry of ``prometheus_client``, or with ``--api-server-count``, what all processes
    write to ``PROMETHEUS_MULTIPROC_DIR``. Seen in 0.32: the library is imported before vLLM calls general plugins in
    an API server. A gauge with the mode ``max`` is one line for all processes that have the same overlay. The name
    does not begin with ``vllm:``, so that ``unregister_vllm_metrics`` leaves it alone. Without the overlay on the
    path, its labels are empty.
    """
    global _gauge, _shown  # noqa: PLW0603 - a registry takes each name once in a process
    key = activation.active_key() or ""
    lock = active[1].lock_sha256 if active is not None and active[1].key == key else ""
    vllm = str(getattr(sys.modules.get("vllm"), "__version__", ""))
    try:
        if _gauge is None:
            client: Any = sys.modules["prometheus_client"]
            _gauge = client.Gauge(METRIC, _HELP, ["key", "lock", "vllm"], multiprocess_mode="max")
        labels = {"key": key, "lock": lock, "vllm": vllm}
        if _shown is not None and _shown != labels:
            _gauge.labels(**_shown).set(0)  # with several processes, a line can't be removed
        _gauge.labels(**labels).set(1)
        _shown = labels
    except Exception as error:  # noqa: BLE001 - metrics are not worth a server
        logger.warning("The metric %s can't be set: %s: %s", METRIC, type(error).__name__, error)


def compare_ranks(active: tuple[Path, Marker] | None) -> None:
    """Compare the ranks of each group that vLLM forms in this process, which has this overlay, from now on."""
    global _active  # noqa: PLW0603 - the function of torch that we replace is the process's
    _active = active
    torch: Any = sys.modules["torch.distributed"]
    real: Callable[..., Any] | None = getattr(torch, FUNCTION, None)  # not in a build without distributed packages
    if real is None or hasattr(real, "compares_plugins"):
        return

    @functools.wraps(real)
    def init_process_group(*args: Any, **kwargs: Any) -> Any:
        from vllm_plugins.startup.ranks import _vllm_group

        result = real(*args, **kwargs)
        _vllm_group.compare(torch, _active)
        return result

    init_process_group.compares_plugins = True  # type: ignore[attr-defined]
    setattr(torch, FUNCTION, init_process_group)
