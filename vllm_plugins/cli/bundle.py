"""``vllm-plugins bundle``: collect every locked wheel, for installations without an index."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.cli._process.streams import refuse_stdout
from vllm_plugins.cli.lock import add_target_option
from vllm_plugins.core.errors import InstallError
from vllm_plugins.core.humanize import count, size
from vllm_plugins.documents import compatibility, lock_reader, manifest
from vllm_plugins.install import bundle
from vllm_plugins.locking import rebuild
from vllm_plugins.packages import own_indexes, pip_config
from vllm_plugins.packages.index import Index
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins bundle": "Download all wheels to plugins.wheels/, next to the lock",
    "vllm-plugins bundle --build-requirements": "Also download what locked wheels are built with",
    "vllm-plugins bundle --prune": "Also remove wheels of older locks",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="Write to this directory (default: plugins.wheels/ next to the lock)."
    )
    parser.add_argument("--prune", action="store_true", help="Remove wheels that the lock does not name.")
    parser.add_argument(
        "--build-requirements",
        action="store_true",
        help="Add the wheels that locked wheels are built with, to build them again without an index.",
    )
    add_target_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print what was downloaded, and which wheels the lock no longer names."""
    refuse_stdout("--output", arguments.output)
    data = lock_reader.read_bytes(settings.lock)
    locked = lock_reader.parse(data, settings.lock, target=arguments.target)
    requested = manifest.find(settings)
    # A bundle goes to other machines, so a lock that says of itself that it was rolled back to is not believed. The
    # marker knows whether it was, here.
    marker = overlay.read_marker(settings.store, overlay.key_of(data))
    compatibility.check_manifest(locked.replace(accepted_manifests=()), requested, settings.lock, marker)
    directory = Path(os.path.abspath(arguments.output)) if arguments.output else settings.wheels

    def index() -> Index:
        if settings.offline:
            raise InstallError(
                "wheels must be downloaded, and VLLM_PLUGIN_OFFLINE=1 forbids access to the index",
                where=str(directory),
                next_step="VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle, or copy the wheels into this directory",
            )
        return Index(own_indexes.with_lock(pip_config.read(), locked, settings))

    if not settings.offline:
        rebuild.run(locked, settings, requested, reporter=output.reporter)
    targets = lock_reader.parse_all(data, settings.lock)
    done = bundle.make(
        locked,
        directory,
        built_wheels=settings.wheels,
        index=index,
        prune=arguments.prune,
        builds=arguments.build_requirements,
        others=[lock for lock in targets if lock != locked],
        reporter=output.reporter,
    )
    editable = [package.name for package in locked.packages if package.directory is not None]
    lines = [f"downloaded: {name}" for name in done.fetched]
    verb = "removed" if arguments.prune else "not in the lock"
    lines += [f"{verb}: {name}" for name in done.stale]
    lines += [f"editable, not in the bundle: {name}" for name in editable]
    wheels = count(len(done.fetched) + len(done.kept), "wheel")
    lines.append(f"{directory}: {wheels}, {size(done.size)}, all that the lock names")
    if done.stale and not arguments.prune:
        lines.append("next: vllm-plugins bundle --prune, which removes wheels that are not in the lock")
    output.result(
        {
            "directory": str(directory),
            "downloaded": list(done.fetched),
            "present": list(done.kept),
            "stale": list(done.stale),
            "size": done.size,
            "pruned": arguments.prune,
            "without_wheel": editable,
        },
        "\n".join(lines),
    )
    return 0
