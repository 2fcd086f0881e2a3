"""What a start that is up to date does once, or not at all: each server pays for it in each of its processes.

Its modules are counted in ``tests/test_architecture.py``, and its time is measured in ``benchmarks/hook.py``.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vllm_plugins

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

# What Python tells of a start: ``open`` and ``os.listdir`` are events of its audit hooks (PEP 578).
EVENTS = """\
import json, os, sys
from vllm_plugins.startup import hook
events = []
sys.addaudithook(lambda name, words: events.append((name, words[0])) if name in ("open", "os.listdir") else None)
hook.platform()
hook.general()
print(json.dumps([event for event in events if isinstance(event[1], str)]))
"""
# What a start loads to run a general plugin, in a caller that has listed our function as vLLM does.
LOADED = """\
import sys
from vllm_plugins.startup import hook
def load_general_plugins():
    plugins = {"vllm_plugins": hook.general}
    hook.general()
hook.platform()
before = set(sys.modules)
load_general_plugins()
print(*(name for name in sys.modules if name.startswith("vllm_plugins") and name not in before))
"""
# The logger after the functions of ``atexit``, as the interpreter has it when it frees the modules.
LOGGER = """\
import atexit
from vllm_plugins.startup import logger, prepare_logging
prepare_logging("INFO")
print(len(logger.filters), len(logger.handlers))
atexit._run_exitfuncs()
print(len(logger.filters), len(logger.handlers))
"""


@pytest.fixture
def installed(place: Place, index: Index) -> Place:
    index.wheel("tiny", entry_points={"vllm.logits_processors": {"bend": "tiny:Bend"}})
    install(place)
    return place


def install(place: Place) -> None:
    place.pypi("tiny")
    place.run("lock")
    place.run("sync", "--no-load-check")


def events(place: Place) -> list[tuple[str, str]]:
    return [(name, path) for name, path in place.python("-c", EVENTS).json]


def test_a_start_opens_each_file_once(installed: Place) -> None:
    opened = Counter(path for name, path in events(installed) if name == "open")
    files = {str(path) for path in (installed.lock, installed.manifest, installed.overlay / "overlay.json")}
    assert files <= opened.keys()
    assert [path for path, times in opened.items() if times > 1] == []


def test_a_start_lists_no_directory_again(installed: Place) -> None:
    """The interpreter has searched all of the path for ``sitecustomize``, and has listed its directories.

    Our own sources are on the path, too, and other tests write next to them, after which they are listed again.
    """
    listed = [path for name, path in events(installed) if name == "os.listdir"]
    sources = str(Path(vllm_plugins.__file__).parents[1])
    assert [path for path in listed if os.path.isdir(path) and path != sources] == []


def test_a_start_loads_four_modules_to_run_plugins(place: Place, index: Index) -> None:
    """Nothing of errors, nor what old namespace packages or a later end of the overlay need."""
    points = {"vllm.general_plugins": {"tiny": "tiny:register"}}
    index.wheel("tiny", entry_points=points, modules={"tiny.py": "def register():\n    print('ran', end=' ')\n"})
    install(place)
    ran, *loaded = place.python("-c", LOADED).stdout.split()
    assert ran == "ran"
    names = ("_vllm_listing", "entry_points", "_path", "_path.origins")
    assert {*loaded} == {f"vllm_plugins.startup.{name}" for name in names}


def test_the_logger_refers_to_nothing_of_ours_at_the_end(bare_place: Place) -> None:
    """``logging`` keeps it, and the interpreter would take longer to end than the hook to run."""
    assert bare_place.python("-c", LOGGER).stdout.split() == ["1", "1", "0", "0"]
