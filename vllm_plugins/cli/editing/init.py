"""``vllm-plugins init``: write a new plugins.yaml."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import UsageError
from vllm_plugins.documents.editing import draft as drafts
from vllm_plugins.documents.editing import schema
from vllm_plugins.startup.settings import MANIFEST

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.editing.adoption import Adopted
    from vllm_plugins.startup.settings import Settings

TEMPLATE = f"""\
{schema.LINE}#
# Plugins for vLLM. `vllm-plugins add NAME` adds one here and locks it. After an edit, run `vllm-plugins lock`.
#
# plugins:
#   - name: gguf                 # from the package index
#     source: pypi
#     package: vllm-gguf-plugin
#     version: ">=0.0.5,<1"      # optional, like `extras: [fast]` and `enabled: false`
#   - name: custom-decoder       # from a git repository; ${{NAME}} is an environment variable
#     source: git
#     url: https://${{GIT_TOKEN}}@git.example.org/team/custom-decoder.git
#     ref: v2.0.0                # a branch, a tag or a commit
#   - name: in-progress          # from a directory, relative to this file
#     source: local
#     path: ../my-vllm-plugin
#     editable: true

plugins: []
"""


EXAMPLES = {
    "vllm-plugins init": "Write a commented plugins.yaml in this directory",
    "vllm-plugins init --from-environment": "Write down the plugins that are installed in this image",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "--from-environment",
        action="store_true",
        help="Write down the plugins that are installed in this vLLM environment, and print the steps to move them.",
    )
    parser.set_defaults(run=run, has_files=False, may_create=True)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print the new file, and what to do next."""
    path = settings.manifest if settings.manifest_named else Path.cwd() / MANIFEST
    if os.path.lexists(path):
        raise UsageError(
            f"{path.name} exists already", where=str(path), next_step="add a plugin to it: vllm-plugins add NAME"
        )
    draft = drafts.Draft(path, None)
    draft.data = TEMPLATE.encode()
    adopted: tuple[Adopted, ...] = ()
    if arguments.from_environment:
        from vllm_plugins.documents import base
        from vllm_plugins.documents.editing import adoption

        adopted = adoption.find(base.read())
        for item in adopted:
            draft.add(item.plugin)
    described = path.parent / schema.FILE
    with drafts.written(draft):
        schema.write(described)
    steps = list(_steps(path, [item.plugin.source.package or "" for item in adopted], settings))
    notes = [f"{item.plugin.name}: {item.note}" for item in adopted if item.note is not None]
    if arguments.from_environment and not adopted:
        notes.append("no plugin is installed here: no distribution has entry points in vLLM's groups")
    names = [item.plugin.name for item in adopted]
    lines = [
        f"wrote {path}" + (f" with {', '.join(names)}" if names else ""),
        f"wrote {described}, with which editors check it",
        *(f"note: {note}" for note in notes),
        "next:",
        *(f"  {number}. {step}" for number, step in enumerate(steps, start=1)),
    ]
    data = {"manifest": str(path), "schema": str(described), "plugins": names, "notes": notes, "steps": steps}
    output.result(data, "\n".join(lines))
    return 0


def _steps(path: Path, packages: Sequence[str], settings: Settings) -> Iterator[str]:
    """What to run next, in this directory."""
    if packages:
        # A plugin in the base is imported before any overlay, so it must leave it first.
        python = shlex.quote(sys.executable)
        yield f"{python} -m pip uninstall {' '.join(packages)} (in an image: remove the line that installs them)"
        yield "vllm-plugins lock"
    else:
        yield "vllm-plugins add NAME"
    yield "vllm-plugins sync"
    if not settings.manifest_named:
        yield f"for vLLM: export VLLM_PLUGIN_CONFIG={shlex.quote(str(path))}"
    if packages:
        yield "vllm-plugins doctor"
