"""``vllm-plugins push``: the manager and the overlay as an image."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_plugins.cli.images import _place
from vllm_plugins.core import regular_file, scratch
from vllm_plugins.core.errors import UsageError
from vllm_plugins.core.humanize import size
from vllm_plugins.core.redact import redact
from vllm_plugins.documents import state as states
from vllm_plugins.install import oci

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings

# A variable as a login, a part of one, or the value of a parameter.
_VARIABLES = re.compile(r"(\$\{\w+\}(:\$\{\w+\})?@|=\$\{\w+\})")


EXAMPLES = {
    "vllm-plugins push registry.example.org/team/plugins:v1": "Push to a registry",
    "vllm-plugins push oci:images:v1": "Write to a directory instead",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    _place.add_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print the digest, by which the image is pulled and mounted."""
    state = states.read(settings)
    locked = state.require_lock()
    if state.marker is None:
        raise state.overlay_problems[0]
    manifest = regular_file.read_bytes(settings.manifest) if state.manifest is not None else None
    _check_secrets(settings, manifest)
    with _place.opened(arguments) as (place, name, tag), scratch.directory() as into:
        if "@" in arguments.image:
            raise UsageError(
                "the digest of a new image can't be chosen",
                found=arguments.image,
                next_step=f"name a tag: vllm-plugins push {name}:TAG",
            )
        with output.reporter.step("Making the image"):
            image = oci.make(locked, state.marker, manifest=manifest, store=settings.store, into=into)
        new = 0
        for blob in image.blobs:
            if not place.has_blob(blob.digest):
                with output.reporter.step(f"Uploading {blob.digest[7:19]}, {size(blob.size)}"):
                    place.upload(blob.path, blob.digest)
                new += blob.size
        place.put_manifest(image.manifest, tag or image.digest)
    pinned = f"{name}@{image.digest}"
    whole = sum(blob.size for blob in image.blobs)
    output.result(
        {
            "image": pinned,
            "digest": image.digest,
            "tag": tag,
            "overlay": locked.key,
            "size": whole,
            "uploaded_size": new,
            "layers": [{"digest": blob.digest, "size": blob.size} for blob in image.blobs[1:]],
        },
        f"{pinned}\n{size(whole)} in all, {size(new)} uploaded",
    )
    return 0


def _check_secrets(settings: Settings, manifest: bytes | None) -> None:
    """Refuse a manifest with a login: the image has the file as it is, comments and disabled plugins included."""
    for number, line in enumerate((manifest or b"").decode("utf-8", "replace").splitlines(), start=1):
        without_variables = _VARIABLES.sub("", line)
        if redact(without_variables) != without_variables:
            raise UsageError(
                "plugins.yaml contains a login, and would be in the image",
                where=f"{settings.manifest}, line {number}",
                found=redact(line).strip(),
                next_step="write a variable in its place, as in https://${TOKEN}@…, and run vllm-plugins lock",
            )
