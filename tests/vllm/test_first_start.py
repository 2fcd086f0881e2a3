"""The start that installs: a plugin that vLLM would skip stops it. ``test_server.py`` has the start that goes well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import plugins
from .server import fails

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.place import Place

ALONGSIDE = "their load check runs alongside: probe"
STATS = "vllm.stat_logger_plugins"


def test_a_plugin_that_vllm_would_skip_stops_the_first_start_and_the_second(world: Place, model: Path) -> None:
    """vLLM logs a stat logger that can't be imported, and serves without it."""
    plugins.write_one(world, "raise RuntimeError('not today')", STATS)
    first = fails(world, model)
    assert any(ALONGSIDE in line for line in first)
    error = "LoadError: plugin 'probe' can't be loaded: RuntimeError: not today [plugin-load-failed]"
    for lines in (first, fails(world, model)):
        assert any(line.startswith(f"vllm_plugins.core.errors.{error}") for line in lines)
