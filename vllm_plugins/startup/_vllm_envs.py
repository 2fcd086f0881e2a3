"""Our environment variables in the list of those that vLLM knows (``vllm.envs``)."""

from __future__ import annotations

import os
import sys

from vllm_plugins.startup import settings as variables

__all__ = ["register"]


def register() -> None:
    """Add our variables to those that vLLM knows, where vLLM is imported.

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
