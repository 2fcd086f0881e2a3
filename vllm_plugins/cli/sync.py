"""``vllm-plugins sync``: make the store equal to the lock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.cli import _json
from vllm_plugins.cli._terminal.style import OVERRIDE
from vllm_plugins.core import regular_file, workers
from vllm_plugins.packages import pip_config
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.state import State
    from vllm_plugins.install.link import Link
    from vllm_plugins.install.sync import Synced
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.marker import Marker
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins sync": "Install the lock",
    "vllm-plugins sync --offline": "Install the wheels of vllm-plugins bundle, without an index",
    "vllm-plugins sync --bake": "Install while an image is built",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    add_install_options(parser)
    baking = parser.add_mutually_exclusive_group()
    baking.add_argument(
        "--bake", action="store_true", help="Also link the overlay into this interpreter, for images."
    )
    baking.add_argument("--unbake", action="store_true", help="Remove that link.")
    parser.add_argument(
        "--startup",
        nargs="?",
        const="all",
        choices=("all", "install", "check"),
        help="Do what the hook does when vLLM starts: all of it (the default), all but the load check, or the load "
        "check alongside the start. The hook uses this option.",
    )
    parser.add_argument(
        "--base-path",
        action="append",
        metavar="DIR",
        help="Add a directory of the vLLM environment. The hook uses this option.",
    )
    parser.set_defaults(run=run)


def add_install_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that installs the lock."""
    parser.add_argument("--frozen", action="store_true", help="Install nothing; fail if something is missing.")
    parser.add_argument("--offline", action="store_true", help="Use no index, only the wheels in plugins.wheels/.")
    parser.add_argument(
        "--installer",
        choices=("auto", "pip", "uv"),
        help="Install with this program (default: auto, which is uv if it is installed, otherwise pip). Where uv "
        "fails and pip may succeed, pip installs instead, and a line says why.",
    )
    parser.add_argument("--reinstall", action="store_true", help="Install again, even if the overlay exists.")
    checking = parser.add_mutually_exclusive_group()
    checking.add_argument(
        "--load-check",
        choices=("calls", "imports"),
        help="Load every plugin and call it as vLLM does (calls, the default), or only load it (imports).",
    )
    checking.add_argument(
        "--no-load-check",
        dest="load_check",
        action="store_const",
        const="none",
        help="Skip the check that loads and calls every plugin once.",
    )


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print the overlay that is active afterwards."""
    settings = with_options(arguments, settings)
    state, done = install(arguments, settings, output)
    if done is None:
        output.result({"overlay": None, "installed": False, "plugins": {}, "linked": None}, state.summary)
        return 0
    linked = _linked(arguments, settings, done.marker.key, output)
    if not arguments.startup:
        _warn(state.replace(marker=done.marker), output)
    verb = "installed" if done.installed else "up to date"
    plugins = ", ".join(done.marker.plugins) or "no plugins"
    output.result(
        {
            "overlay": done.marker.key,
            "installed": done.installed,
            "plugins": {plugin.name: plugin.version for plugin in done.lock.plugins},
            "linked": _json.linked(linked),
        },
        f"{verb}: {plugins} (overlay {done.marker.key[:12]})"
        f"{_baked(arguments, linked)}{_hint(settings, done.marker, linked)}",
    )
    return 0


def with_options(arguments: argparse.Namespace, settings: Settings) -> Settings:
    """The settings, with the options of a command that installs the lock."""
    return settings.replace(
        frozen=settings.frozen or arguments.frozen,
        offline=settings.offline or arguments.offline,
        installer=arguments.installer or settings.installer,
    )


def install(arguments: argparse.Namespace, settings: Settings, output: Output) -> tuple[State, Synced | None]:
    """Make the store equal to the lock; ``None`` where neither manifest nor lock exists, and that is allowed."""
    part = arguments.startup
    if part == "check":
        workers.step_back()
    offline = settings.offline or settings.frozen
    # pip prints its configuration while the rest is imported, if something is to be downloaded.
    config = workers.begin(pip_config.read) if not offline and _downloads(settings) else pip_config.read
    from vllm_plugins.documents import base
    from vllm_plugins.documents import state as states
    from vllm_plugins.install import sync

    here = base.read(arguments.base_path)
    if part in ("all", "install") and settings.auto_lock and not offline:
        _lock(arguments, settings, here, output)
    state = states.read(settings, base=here)
    if state.is_empty:
        return state, None

    def build_missing(locked: Lock) -> None:
        if part is None and not offline:  # a start builds nothing, and a build may need an index
            _build_missing(locked, state, output, config)

    done = sync.run(
        state,
        base_paths=arguments.base_path,
        reporter=output.reporter,
        config=config,
        load_check=None if arguments.load_check == "none" else arguments.load_check or "calls",
        check_again=arguments.load_check in ("calls", "imports"),
        reinstall=arguments.reinstall,
        part=part or "all",
        rebuild=build_missing,
    )
    return state, done


def _build_missing(locked: Lock, state: State, output: Output, config: Callable[[], PipConfig]) -> None:
    """Build the wheels of the lock again that are not next to it."""
    settings = state.settings
    if all((settings.wheels / wheel.filename).exists() for wheel in locked.local_wheels):
        return
    from vllm_plugins.locking import rebuild

    rebuild.run(locked, settings, state.manifest, reporter=output.reporter, config=config)


def _baked(arguments: argparse.Namespace, linked: Link | None) -> str:
    """What ``--bake`` or ``--unbake`` did."""
    if arguments.bake and linked is not None:
        return f"\nthe vLLM environment is linked to this overlay, by {linked.path}"
    return "\nthe vLLM environment is not linked to an overlay any more" if arguments.unbake else ""


def _hint(settings: Settings, marker: Marker, linked: Link | None) -> str:
    """How overrides get in front of the vLLM environment, if nothing puts them there."""
    if not marker.overrides or linked is not None:
        return ""
    front = overlay.front(settings.store, marker.key)
    return f"\n{OVERRIDE}start vLLM with vllm-plugins run, or with PYTHONPATH={front}"


def _lock(arguments: argparse.Namespace, settings: Settings, base: Base, output: Output) -> None:
    """``VLLM_PLUGIN_AUTO_LOCK=1``: lock first, where the lock is missing or out of date.

    Of the processes of a server, one resolves. The others wait, and find the lock up to date.
    """
    from vllm_plugins.documents import manifest
    from vllm_plugins.install import turns
    from vllm_plugins.locking import pipeline

    required = manifest.require(settings)
    with turns.one_at_a_time(settings.store, output.reporter):
        pipeline.lock(
            required,
            settings,
            base=base,
            base_paths=arguments.base_path,
            reporter=output.reporter,
        )


def _warn(state: State, output: Output) -> None:
    """Warn of what ``status`` reports next: the lock is installed, but something that a start ignores has changed."""
    from vllm_plugins.review import drift

    for problem in drift.problems(state, os.environ):
        output.message(f"warning: {output.describe(problem)}")


def _linked(arguments: argparse.Namespace, settings: Settings, key: str, output: Output) -> Link | None:
    """Obey ``--bake`` and ``--unbake``. Returns what links an overlay into the interpreter, if anything."""
    if arguments.startup:
        return None
    from vllm_plugins.install import link

    if arguments.bake:
        _name_path_files(settings, key, output)
        return link.write(settings.store, key)
    if arguments.unbake:
        link.remove()
    found = link.read()
    if found is not None and found.key != key:
        output.message(
            f"warning: {found.path} links another overlay, {found.key[:12]}, into the interpreter: vLLM won't start\n"
            "  next: vllm-plugins sync --bake, or vllm-plugins sync --unbake"
        )
    return found


def _name_path_files(settings: Settings, key: str, output: Output) -> None:
    """Name what a link lets run in each Python process of the environment, and not only in vLLM's."""
    from vllm_plugins.packages import metadata

    site = overlay.directory(settings.store, key) / overlay.SITE
    names = sorted(path.name for path in site.glob("*.pth") if metadata.runs_code(path))
    if names:
        output.message(
            f"warning: with the link, each process of this interpreter runs the code of {', '.join(names)} in the "
            "overlay, also where that is not vLLM"
        )


def _downloads(settings: Settings) -> bool:
    """Whether an index is probably needed: the lock is not installed, and names a wheel by its URL."""
    try:
        data = regular_file.read_bytes(settings.lock)
        return b'", url = "' in data and overlay.read_marker(settings.store, overlay.key_of(data)) is None
    except OSError:
        return False
