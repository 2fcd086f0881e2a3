"""``vllm-plugins pull``: an image of plugins into a directory."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.cli._process.streams import refuse_stdout
from vllm_plugins.cli.images import _place
from vllm_plugins.install import pull
from vllm_plugins.install.oci import MANAGER, STORE
from vllm_plugins.startup.settings import LOCK, MANIFEST

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins pull oci:images:v1 -o plugins": "Fill a directory from an image",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    _place.add_arguments(parser)
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True, help="Fill this directory, which is missing or empty."
    )
    parser.set_defaults(run=run, has_files=False)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print the digest, and the variables that a container of vLLM needs."""
    refuse_stdout("--output", arguments.output)
    directory = Path(os.path.abspath(arguments.output))
    with _place.opened(arguments) as (place, name, tag):
        done = pull.run(place, directory, settings=settings, reporter=output.reporter)
    variables = {
        "PYTHONPATH": str(directory / MANAGER),
        "VLLM_PLUGIN_REGISTRY_DIR": str(directory / STORE),
        "VLLM_PLUGIN_FROZEN": "1",
    }
    if (directory / MANIFEST).exists():
        variables["VLLM_PLUGIN_CONFIG"] = str(directory / MANIFEST)
    else:
        variables["VLLM_PLUGIN_LOCK"] = str(directory / LOCK)
    pinned = f"{name}@{done.digest}"
    lines = [f"{'pulled' if done.new else 'up to date'}: {pinned}"]
    if "@" not in arguments.image:
        output.message(
            f"note: {tag or 'the newest image'} may mean another image tomorrow; to have this one: {pinned}"
        )
    lines += ["set for vLLM:", *(f"  {key}={shlex.quote(value)}" for key, value in variables.items())]
    output.result(
        {
            "image": pinned,
            "digest": done.digest,
            "filled": done.new,
            "directory": str(directory),
            "variables": variables,
            "annotations": done.annotations,
        },
        "\n".join(lines),
    )
    return 0
