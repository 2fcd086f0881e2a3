"""The same plugins in plain vLLM and with the manager: the same calls, with the same outcome, in every process.

Plain vLLM has the overlay on ``PYTHONPATH`` and no manager. ``tests/vllm/test_fidelity.py`` compares real servers.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import projects
from tests.kit.long import long

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.kit.place import Place

GENERAL = "vllm.general_plugins"
PLATFORM = "vllm.platform_plugins"

NOTE = """\
import os

def note(event):
    if os.environ.get("LOAD_CHECK") != "1":
        with open(os.environ["PROBE"], "a") as file:
            file.write(f"{os.getpid()} {event}\\n")
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a start printed, and what the plugins noted: one list for each process, in the order of their first events."""

    returncode: int
    result: Any
    events: list[list[str]]


def lock(place: Place, points: Mapping[str, Mapping[str, str]], **modules: str) -> None:
    """Lock and install one plugin; each module may ``from note import note``."""
    files = {"note.py": NOTE, **{f"{name}.py": source for name, source in modules.items()}}
    projects.project(place.config / "it", name="it", entry_points=points, modules=files)
    place.write("plugins:\n  - {name: it, source: local, path: it}\n")
    place.variables["PROBE"] = str(place.root / "probe.log")
    place.run("lock")
    place.run("sync", env={"LOAD_CHECK": "1"})


def start(place: Place, *words: str, plain: bool, env: Mapping[str, str] | None = None) -> Run:
    """A process that asks for these groups. With ``plain``, the manager is left out of it and its children."""
    paths = [*place.paths, Path(__file__).parents[2], *([place.site] if plain else [])]
    argv = [*(["-S"] if plain else []), "-m", "tests.kit.loader", *words]
    variables = {"PYTHONPATH": os.pathsep.join(map(str, paths)), **(env or {})}
    done = place.python(*argv, env=variables, check=False, traceback=True)
    return Run(
        returncode=done.returncode,
        result=json.loads(done.stdout) if done.returncode == 0 else done.stderr,
        events=events(place),
    )


def events(place: Place) -> list[list[str]]:
    """What plugins have noted since the last call."""
    seen: dict[str, list[str]] = {}
    log = place.root / "probe.log"
    for line in log.read_text().splitlines() if log.exists() else []:
        number, _, event = line.partition(" ")
        seen.setdefault(number, []).append(event)
    log.unlink(missing_ok=True)
    return list(seen.values())


# A package that imports vLLM at its top, and by that looks up the platform while vLLM is listing plugins.
NESTED = (
    "from note import note\nnote('import')\nfrom tests.kit import loader\nloader.platform()\n"
    "def platform():\n    note('platform')\n    return 'a.Platform'\n"
    "def general():\n    note('general')\n"
)
ORDERS = [
    ("platform", "general", "spawn", "platform", "general"),
    ("platform", "general", "fork", "general"),  # vLLM remembers its platform, and so does a fork
    ("platform", "general", "forkserver", "platform", "general"),
    ("platform", "general", "plain", "platform", "general"),
    ("general", "platform", "spawn", "general", "platform"),
]


def test_a_platform_plugin_may_import_vllm_at_its_top(place: Place) -> None:
    lock(place, {PLATFORM: {"mine": "nested:platform"}, GENERAL: {"mine": "nested:general"}}, nested=NESTED)
    for words in ORDERS:
        plain = start(place, *words, plain=True)
        ours = start(place, *words, plain=False)
        assert (plain.returncode, ours.returncode) == (0, 0), (words, plain.result, ours.result)
        assert ours.result == plain.result, words
        for process, expected in zip(ours.events, plain.events, strict=True):
            assert set(process) == set(expected), words
            assert process.count("general") == expected.count("general") <= 1


def test_a_look_up_in_a_listing_answers_with_the_other_platform_plugins(place: Place) -> None:
    """A plugin that does not claim the platform, but imports vLLM, must not hide the one that does."""
    points = {PLATFORM: {"a": "nested:none", "b": "other:platform"}, GENERAL: {"mine": "asks:general"}}
    none = "    if not asked:\n        asked.append(True)\n        note(f'nested {loader.platform()}')\n"
    nested = f"{NESTED}asked = []\ndef none():\n{none}"
    other = "from note import note\ndef platform():\n    note('other')\n    return 'other.Platform'\n"
    asks = "from note import note\nfrom tests.kit import loader\nnote(loader.platform())\ndef general():\n    pass\n"
    lock(place, points, nested=nested, other=other, asks=asks)
    for words in ORDERS:
        plain = start(place, *words, plain=True)
        ours = start(place, *words, plain=False)
        assert (plain.returncode, ours.returncode) == (0, 0), (plain.result, ours.result)
        assert ours.result == plain.result
        assert [set(process) for process in ours.events] == [set(process) for process in plain.events]


DISABLED = [
    ("platform", "general"),
    ("general", "platform"),
    ("platform", "platform", "general", "spawn", "platform"),
]


@pytest.mark.parametrize(
    "module", [NESTED, *long(NESTED.replace("loader.platform()", "pass"))], ids=["nested", "simple"]
)
def test_a_disabled_hook_does_nothing_with_a_linked_overlay(own: Place, module: str) -> None:
    lock(own, {PLATFORM: {"mine": "nested:platform"}, GENERAL: {"mine": "nested:general"}}, nested=module)
    own.run("sync", "--bake", env={"LOAD_CHECK": "1"})
    for words in DISABLED:
        plain = start(own, *words, plain=True)
        ours = start(own, *words, plain=False, env={"VLLM_PLUGIN_DISABLE": "1"})
        assert (ours.returncode, ours.result) == (0, plain.result), words
        assert ours.events == plain.events, words


def test_a_disabled_hook_does_nothing_with_an_inherited_path(place: Place) -> None:
    lock(place, {PLATFORM: {"mine": "nested:platform"}, GENERAL: {"mine": "nested:general"}}, nested=NESTED)
    for words in DISABLED[:2]:
        plain = start(place, "spawn", *words, plain=True)
        main = place.root / "main.py"
        main.write_text(
            "import json, os, vllm_plugins\n"
            "from tests.kit import loader\n"
            "if __name__ == '__main__':\n"
            "    vllm_plugins.activate()\n"
            "    os.environ['VLLM_PLUGIN_DISABLE'] = '1'\n"
            f"    print(json.dumps(loader.run({['spawn', *words]})))\n"
        )
        done = place.python(main, traceback=True)
        assert json.loads(done.stdout) == plain.result
        assert events(place) == plain.events


def test_a_platform_plugin_that_a_ray_worker_would_skip_is_an_error(place: Place) -> None:
    """vLLM is imported in a Ray worker, and has its platform, before the variables that name the lock are there."""
    lock(place, {PLATFORM: {"mine": "nested:platform"}}, nested=NESTED)
    main = place.root / "main.py"
    main.write_text(
        "import os, sys\n"
        "from tests.kit import loader\n"
        "later = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith('VLLM_')}\n"
        "print(loader.platform())\n"
        "os.environ.update(later)\n"
        "loader.load_general_plugins()\n"
    )
    done = place.python(main, check=False, traceback=True)
    assert (done.returncode, done.stdout) == (1, "builtin\n")
    assert (
        "LoadError: vLLM chose its platform before the lock was known, without mine [plugin-load-failed]"
        in done.stderr
    )
    assert place.python(main, env={"VLLM_PLUGIN_ON_ERROR": "continue"}, check=False, traceback=True).returncode == 0
