"""The start that installs: a real server loads its plugins while their load check runs, and serves after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.startup import overlay

from . import plugins
from .server import fails, serve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.place import Place

ALONGSIDE = "their load check runs alongside: probe"
STATS = "vllm.stat_logger_plugins"


def test_a_server_serves_after_the_load_check_of_its_new_plugins(world: Place, model: Path) -> None:
    plugins.write_one(world, "from .note import note\ndef register():\n    note('called')\n")
    with serve(world, model) as server:
        log = server.log.read_text(errors="replace")
    assert log.index(ALONGSIDE) < log.index("The load check has passed") < log.index("Starting vLLM")
    marker = overlay.read_marker(world.store, overlay.key_of(world.lock.read_bytes()))
    assert marker is not None
    assert (marker.trials, len(marker.checked)) == ((), 1)


def test_a_plugin_that_vllm_would_skip_stops_the_first_start_and_the_second(world: Place, model: Path) -> None:
    """vLLM logs a stat logger that can't be imported, and serves without it."""
    plugins.write_one(world, "raise RuntimeError('not today')", STATS)
    first = fails(world, model)
    assert any(ALONGSIDE in line for line in first)
    error = "LoadError: plugin 'probe' can't be loaded: RuntimeError: not today [plugin-load-failed]"
    for lines in (first, fails(world, model)):
        assert any(line.startswith(f"vllm_plugins.core.errors.{error}") for line in lines)
