"""Environment variables that are probably mistyped names of ours. An up-to-date start does not look for them."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING

from vllm_plugins.startup import settings
from vllm_plugins.startup.environment import index_logins

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["unknown"]


def unknown(environ: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Variables that look like ours and are not, with the name that was probably meant.

    A mistyped variable has no effect and no error: ``VLLM_PLUGINS_CONFIG`` for ``VLLM_PLUGIN_CONFIG``.
    """
    known = (*settings.VARIABLES, "VLLM_PLUGINS")
    found: dict[str, str | None] = {}
    for name in sorted(os.environ if environ is None else environ):
        upper = name.upper()
        is_ours = name in known or index_logins.is_variable(name) or name.startswith("_VLLM_PLUGINS_")
        if is_ours or "PLUG" not in upper:
            continue
        is_similar = "LLM" in upper or "VLM" in upper
        close = difflib.get_close_matches(upper, known, n=1, cutoff=0.9) if is_similar else []
        close = [other for other in known if _letters(other) == _letters(upper)] or close
        if close or upper.startswith("VLLM_PLUGIN"):
            found[name] = next(iter(close or difflib.get_close_matches(upper, known, n=1)), None)
    return found


def _letters(name: str) -> str:
    """A name without what is easily mistaken: separators and the plural."""
    return name.replace("_", "").replace("-", "").replace("PLUGINS", "PLUGIN")
