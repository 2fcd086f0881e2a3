"""The places of images: a registry, or a directory on this machine (``oci:DIRECTORY``)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import UsageError
from vllm_plugins.packages import pip_config
from vllm_plugins.packages.images.layout import Layout
from vllm_plugins.packages.images.registry import Reference, Registry

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["add_arguments", "opened"]

_DIRECTORY = "oci:"
_HELP = "REGISTRY/REPOSITORY:TAG, REGISTRY/REPOSITORY@sha256:DIGEST, or oci:DIRECTORY with :TAG or @sha256:DIGEST."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the name of the image, and how its registry is reached."""
    parser.add_argument("image", metavar="IMAGE", help=_HELP)
    parser.add_argument(
        "--plain-http",
        action="store_true",
        help="Reach the registry over http, without encryption. A registry on this machine needs no option for that.",
    )


@contextlib.contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[tuple[Registry | Layout, str, str | None]]:
    """Yield the place, its name without the tag or digest, and the tag.

    Raises:
        UsageError: the name of the image is not valid.
    """
    name: str = arguments.image
    if name.startswith(_DIRECTORY):
        path, tag, sha256 = _split(name.removeprefix(_DIRECTORY))
        yield Layout(path, tag=tag, sha256=sha256), f"{_DIRECTORY}{path}", tag
        return
    reference = Reference.parse(name)
    with Registry(reference, pip_config.read(), plain_http=arguments.plain_http) as registry:
        yield registry, reference.repository_name, reference.tag


def _split(text: str) -> tuple[Path, str | None, str | None]:
    path, at, digest = text.partition("@")
    sha256 = digest.removeprefix("sha256:")
    tag = None
    if not at and ":" in text:
        path, _, tag = text.rpartition(":")
    if not path or tag == "" or (at and (len(sha256) != 64 or {*sha256} - {*"0123456789abcdef"})):
        raise UsageError(
            f"{_DIRECTORY}{text} is not the name of an image",
            expected="oci:DIRECTORY:TAG or oci:DIRECTORY@sha256:DIGEST",
            next_step="correct the name, as in oci:plugins-image:v1",
        )
    return Path(os.path.abspath(os.path.expanduser(path))), tag, sha256 if at else None
