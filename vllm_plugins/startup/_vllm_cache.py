"""The overlay as a factor of the key of vLLM's compile cache.

The key has vLLM's variables, its configuration, and the paths and contents of the files that were traced: nothing of
plugins. A plugin that patches a model from outside is in none of them, so vLLM would load a graph that was compiled
without it. The path of an overlay contains the key of its lock, so any other lock would compile every model again.

So the contents of all files that could change a graph are one factor, and the paths of those files are taken out of
the list of traced files. Seen in vLLM 0.15 to 0.32: ``vllm.envs.compile_factors`` calls the getter of each variable.
``VllmBackend.__call__`` calls that before it reads ``compilation_config.traced_files``. In 0.11, the variables in the
key are a fixed list (see ``_vllm_process``).
"""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.startup import activation, integrity, overlay
from vllm_plugins.startup._path import origins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_plugins.startup.marker import Marker

__all__ = ["factor"]

# vLLM loads these groups in its front end, where no model is compiled.
_FRONT_END = ("vllm.stat_logger_plugins", "vllm.io_processor_plugins", "vllm.endpoint_plugins")
_DEPTH = 8  # frames from a getter to vLLM's compiler

# The factor, and the files that it covers, of the overlay whose importable directory is the first item.
_known: tuple[str, str | None, frozenset[str]] | None = None


def factor() -> str | None:
    """What of the overlay on the path matters to compiled graphs, as a hash; ``None`` where nothing does."""
    global _known  # noqa: PLW0603 - what is on disk under this path doesn't change
    site = next((overlay.real(entry) for entry in overlay.entries() if activation.is_site(entry)), None)
    if site is None:
        return None
    if _known is None or _known[0] != site:
        _known = (site, *_compute(Path(site)))
    _forget_paths(_known[2])
    return _known[1]


def _compute(site: Path) -> tuple[str | None, frozenset[str]]:
    try:
        marker = overlay.read_marker(site.parents[2], site.parent.name)
        if marker is None:
            raise FileNotFoundError(site.parent)  # noqa: TRY301 - removed, or of another version
        files = integrity.listed(site.parent, marker)
        left_out = {path for name in _front_end_only(marker) for path in _owned(site, name)}
    except Exception:  # noqa: BLE001 - vLLM would drop the factor, and find graphs of other plugins
        # With the key of the lock, more is compiled, and nothing is stale.
        return site.parent.name, frozenset()
    covered = {path: digest for path, digest in files.items() if path not in left_out and _is_code(path)}
    lines = [f"{path} {digest}" for path, digest in sorted(covered.items())]
    if marker.editable:
        lines += _sources(site)
    if not lines:
        return None, frozenset()
    digest = hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()
    return digest[:32], frozenset(os.path.join(site, path) for path in covered)


def _front_end_only(marker: Marker) -> list[str]:
    """The distributions all of whose entry points are for the front end."""
    groups: dict[str, set[str]] = {}
    for point in marker.entry_points:
        groups.setdefault(point.distribution, set()).add(point.group)
    return [name for name, found in groups.items() if found <= {*_FRONT_END}]


def _is_code(path: str) -> bool:
    """Whether a file can have an effect: not bytecode, and of a distribution's metadata only its entry points."""
    directory = os.path.basename(os.path.dirname(path))
    return not path.endswith(".pyc") and (not directory.endswith(".dist-info") or path.endswith("entry_points.txt"))


def _owned(site: Path, name: str) -> Iterator[str]:
    """The files of a distribution, by its RECORD."""
    from importlib.metadata import distributions

    for found in distributions(path=[str(site)], name=name):
        for row in csv.reader((found.read_text("RECORD") or "").splitlines()):
            yield from row[:1]


def _sources(site: Path) -> Iterator[str]:
    """The files of editable plugins, whose contents the lock does not know, by size and time."""
    for entry in origins.path_file_entries(str(site)):
        for directory, _, names in sorted(os.walk(entry)):
            for name in sorted(names):
                if name.endswith(".py"):
                    status = os.stat(os.path.join(directory, name))
                    yield f"{os.path.join(directory, name)} {status.st_size} {status.st_mtime_ns}"


def _forget_paths(covered: frozenset[str]) -> None:
    """Take files that the factor covers out of the traced files of the compiler that is asking, if one is."""
    frame = sys._getframe(1)  # noqa: SLF001 - vLLM passes its compiler to nobody
    for _ in range(_DEPTH):
        traced = getattr(getattr(frame.f_locals.get("self"), "compilation_config", None), "traced_files", None)
        if isinstance(traced, set):
            traced -= covered
            return
        if frame.f_back is None:
            return
        frame = frame.f_back
