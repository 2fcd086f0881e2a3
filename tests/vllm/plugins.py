"""Plugins that write down in which process they are imported, called and created."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING

from tests.kit import projects
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

NOTE = """\
import multiprocessing, os, sys

def note(event):
    if os.environ.get("VLLM_PLUGIN_DISABLE") == "1":
        return  # the load check
    name = multiprocessing.current_process().name
    if any("models.registry" in word for word in sys.orig_argv):
        name = "inspection"
    with open(os.environ["PROBE"], "a") as file:
        file.write(f"{name}:{os.getpid()} {event}\\n")
"""

LOGITS = """\
from vllm.v1.sample.logits_processor import LogitsProcessor

from .note import note

note("logits imported")

class Force(LogitsProcessor):
    def __init__(self, vllm_config, device, is_pin_memory):
        note("logits created")

    def is_argmax_invariant(self):
        return False

    def update_state(self, batch_update):
        pass

    def apply(self, logits):
        kept = logits[:, 65].clone()
        logits.fill_(float("-inf"))
        logits[:, 65] = kept
        return logits
"""

STATS = """\
from vllm.v1.metrics.loggers import StatLoggerBase

from .note import note

class Stats(StatLoggerBase):
    def __init__(self, vllm_config, engine_index=0):
        note("stats created")

    def record(self, *args, **kwargs):
        pass

    def log_engine_initialized(self):
        pass
"""

GENERAL = """\
from .note import note

def register():
    note("general")
    from vllm import ModelRegistry
    ModelRegistry.register_model("ProbeForCausalLM", "probe_git.model:ProbeForCausalLM")

def io():
    note("io")
    return "probe_git.io.Processor"
"""

MODEL = """\
from vllm.model_executor.models.llama import LlamaForCausalLM

class ProbeForCausalLM(LlamaForCausalLM):
    pass
"""

IO = """\
from vllm.plugins.io_processors.interface import IOProcessor

from .note import note

class Processor(IOProcessor):
    def __init__(self, vllm_config, renderer):
        super().__init__(vllm_config, renderer)
        note("io created")

    def pre_process(self, prompt, request_id=None, **kwargs):
        return prompt

    def post_process(self, model_output, request_id=None, **kwargs):
        return model_output
"""

LOCAL = """\
from .note import note

def general():
    note("local general")

def platform():
    note("platform")

class Endpoint:
    name = "probe_endpoint"
    required_tasks = None

    def attach_router(self, app):
        note("endpoint")

        @app.get("/probe")
        def probe() -> dict:
            return {"probe": "here"}

    async def init_state(self, engine_client, state, args):
        pass
"""

PLATFORM = """\
from .note import note

def platform():
    note("platform")
    return "probe_platform.cpu.ProbePlatform"
"""

CPU = """\
from vllm.platforms.cpu import CpuPlatform

class ProbePlatform(CpuPlatform):
    device_name = "probe"
"""

GIT_POINTS = {
    "vllm.general_plugins": {"probe_git": "probe_git:register"},
    "vllm.io_processor_plugins": {"probe_io": "probe_git:io"},
}
INDEX_POINTS = {
    "vllm.logits_processors": {"probe_logits": "probe_index.logits:Force"},
    "vllm.stat_logger_plugins": {"probe_stats": "probe_index.stats:Stats"},
}
LOCAL_POINTS = {
    "vllm.general_plugins": {"probe_local": "probe_local:general"},
    "vllm.platform_plugins": {"probe_asked": "probe_local:platform"},
    "vllm.endpoint_plugins": {"probe_endpoint": "probe_local:Endpoint"},
}


def write_repository(path: Path) -> Repository:
    """The git repository of one of the three plugins."""
    repository = Repository.init(path)
    projects.project(
        path,
        name="probe-git",
        requires=["vllm"],
        entry_points=GIT_POINTS,
        modules=package("probe_git", GENERAL, model=MODEL, io=IO),
    )
    repository.commit()
    return repository


def write_three(world: Place, index: Index, repository: Repository) -> None:
    """A manifest of three plugins, from an index, git and a directory, together of all six groups."""
    index.wheel(
        "probe-index",
        requires=["vllm>=0.30", "torch"],
        entry_points=INDEX_POINTS,
        modules=package("probe_index", logits=LOGITS, stats=STATS),
    )
    projects.project(
        world.config / "local", name="probe-local", entry_points=LOCAL_POINTS, modules=package("probe_local", LOCAL)
    )
    world.write(
        f"""
        plugins:
          - {{name: from-index, source: pypi, package: probe-index}}
          - {{name: from-git, source: git, url: {repository.url}}}
          - {{name: from-directory, source: local, path: local}}
        """
    )


def write_one(
    world: Place, source: str, group: str = "vllm.general_plugins", *, lock: bool = True, **files: str
) -> None:
    """A manifest of one plugin from a directory, whose entry point ``probe`` is ``probe:register``."""
    write_package(world, {group: {"probe": "probe:register"}}, textwrap.dedent(source), lock=lock, **files)


def write_package(
    world: Place, points: dict[str, dict[str, str]], source: str, *, lock: bool = True, **files: str
) -> None:
    """A manifest of one plugin from a directory: the package ``probe`` with these entry points."""
    projects.project(
        world.config / "probe", name="probe", entry_points=points, modules=package("probe", source, **files)
    )
    world.write("plugins:\n  - {name: probe, source: local, path: probe}\n")
    if lock:
        world.run("lock")


def write_directory(
    world: Place, name: str, points: dict[str, dict[str, str]], modules: dict[str, str], *, version: str = "1.0"
) -> None:
    """A project in a directory next to the manifest, in place of the one that was there."""
    shutil.rmtree(world.config / name, ignore_errors=True)
    projects.project(world.config / name, name=name, version=version, entry_points=points, modules=modules)


def package(name: str, init: str = "", **modules: str) -> dict[str, str]:
    """The modules of a package."""
    files = {"__init__": init, "note": NOTE, **modules}
    return {f"{name}/{module}.py": source for module, source in files.items()}


def events(world: Place) -> dict[str, list[str]]:
    """What was written down since the last call: process → events, without process numbers where names are unique."""
    path = world.root / "probe.log"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return dict(_grouped(lines))


def _grouped(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    processes: dict[str, list[str]] = {}
    for line in lines:
        process, _, event = line.partition(" ")
        processes.setdefault(process, []).append(event)
    names = [process.partition(":")[0] for process in processes]
    for process, found in processes.items():
        name = process.partition(":")[0]
        yield (name if names.count(name) == 1 else process), found
