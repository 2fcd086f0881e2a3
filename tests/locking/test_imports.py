"""What a lock imports: what fetches and builds sources only where there are sources."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.kit import projects

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

FOR_SOURCES = {
    "venv",
    "vllm_plugins.packages._build.environments",
    "vllm_plugins.packages.single_files.reading",
    "vllm_plugins.sources.checkout",
    "vllm_plugins.sources.local",
}


def imported(place: Place) -> set[str]:
    done = place.python("-X", "importtime", "-m", "vllm_plugins", "lock")
    assert place.lock.exists()
    return set(re.findall(r"^import time: .*\|\s*(\S+)$", done.stderr, re.MULTILINE))


def test_a_lock_of_releases_imports_nothing_that_fetches_or_builds_sources(place: Place, index: Index) -> None:
    index.wheel("plugin")
    place.pypi("plugin")
    assert not imported(place) & FOR_SOURCES


def test_a_lock_of_a_project_imports_what_builds_it(place: Place) -> None:
    project = projects.project(place.root / "project", name="plugin", entry_points={})
    place.write(f"plugins: [{{name: plugin, source: local, path: '{project}'}}]")
    assert FOR_SOURCES - imported(place) == {"vllm_plugins.packages.single_files.reading"}
