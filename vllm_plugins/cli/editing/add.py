"""``vllm-plugins add``: put plugins into plugins.yaml, and lock."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.cli.editing import _result
from vllm_plugins.core.errors import UsageError
from vllm_plugins.documents.editing import draft as drafts
from vllm_plugins.documents.editing import merge, request
from vllm_plugins.documents.manifest import LocalSource, PypiSource

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.editing.request import Addition
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins add vllm-gguf-plugin": "Add a plugin from the package index",
    "vllm-plugins add 'vllm-gguf-plugin>=0.0.5,<1' --name gguf": "Limit its versions, and give it a name",
    "vllm-plugins add git+https://git.example.org/team/decoder.git@v2.0.0": "Add the tag of a git repository",
    "vllm-plugins add ./my-plugin --editable": "Add a plugin that you are working on",
    "vllm-plugins add ./parser.py": "Add a single file, such as a parser or a chat template",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "plugins",
        metavar="PLUGIN",
        nargs="+",
        help="Add this plugin: NAME, NAME@VERSION, NAME@latest or 'NAME>=1,<2' from the package index, "
        "git+URL[@REF][#subdirectory=DIR], a directory such as ./my-plugin, or a single file such as ./parser.py "
        "or URL#sha256=HASH. NAME@REF sets the ref of a git plugin.",
    )
    parser.add_argument(
        "--name", metavar="NAME", help="Call the plugin this in plugins.yaml (default: its package or project)."
    )
    parser.add_argument(
        "--version", dest="specifier", metavar="SPEC", help="Allow these versions, such as '>=1,<2' or 1.2.3."
    )
    parser.add_argument(
        "--index", metavar="NAME", help="Take it from this index of `indexes` in plugins.yaml, and from no other."
    )
    parser.add_argument(
        "--extra", action="append", default=[], metavar="EXTRA", help="Add this extra. Can be repeated."
    )
    parser.add_argument(
        "--editable", action="store_true", help="Use the files of a directory as they are, without a build."
    )
    _result.add_options(parser)
    parser.set_defaults(run=run, may_create=True)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print what became of each plugin, and what changed in the lock."""
    words = list(dict.fromkeys(arguments.plugins))
    for option, value in (("--name", arguments.name), ("--version", arguments.specifier)):
        if value is not None and len(words) > 1:
            raise UsageError(
                f"{option} is for one plugin, and {len(words)} are given",
                next_step=f"vllm-plugins add {words[0]} {option} {value}",
            )
    additions = [
        request.parse(
            word,
            directory=settings.manifest.parent,
            extras=arguments.extra,
            version=arguments.specifier,
            editable=arguments.editable,
            index=arguments.index,
        )
        for word in words
    ]
    if arguments.editable and not any(isinstance(addition.source, LocalSource) for addition in additions):
        raise UsageError("--editable is for local directories", next_step="name a directory, such as ./my-plugin")
    for addition in additions:
        _check_directory(addition)
    draft = drafts.read(settings.manifest)
    edits = [
        merge.add(draft, addition, arguments.name or _name(addition), is_named=arguments.name is not None)
        for addition in additions
    ]
    latest = [edit.name for edit, addition in zip(edits, additions, strict=True) if _is_latest(addition)]
    return _result.finish(arguments, settings, output, draft, edits, latest=latest)


def _is_latest(addition: Addition) -> bool:
    return addition.ref == request.LATEST and isinstance(addition.source, PypiSource)


def _check_directory(addition: Addition) -> None:
    if not isinstance(addition.source, LocalSource):
        return
    from vllm_plugins.sources import pyproject

    there = _directory(addition)
    if not pyproject.is_project(there):
        raise UsageError(
            f"{addition.word} is not a Python project",
            where=str(there),
            expected=pyproject.EXPECTED,
            next_step="name the directory of a project",
        )


def _directory(addition: Addition) -> Path:
    return Path(os.path.abspath(os.path.expanduser(addition.word)))


def _name(addition: Addition) -> str:
    if addition.name is not None:
        return addition.name
    from vllm_plugins.sources import pyproject

    there = _directory(addition)
    return request.valid_name(pyproject.name(there) or there.name)
