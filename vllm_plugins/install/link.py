"""The link of ``sync --bake``: a ``.pth`` file of the interpreter that puts an overlay on the path of each process.

With ``VLLM_PLUGIN_VERIFY=1`` the line puts a guard there instead (``startup.guard``), and otherwise imports nothing.
In the commands of this package it puts the guarded name there alone, where nothing is found: a command that examines
an overlay must not import from it, nor Python the overlay's ``sitecustomize`` before the command begins.

With it, vLLM finds the plugins even where ``VLLM_PLUGINS`` leaves our hook out. This file is the only thing that we
ever write into the base, and only on request.
"""

from __future__ import annotations

import os
import re
import site
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic, regular_file
from vllm_plugins.core.errors import StoreError
from vllm_plugins.startup import Record, overlay
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Link", "read", "remove", "write"]

NAME = "vllm_plugins_overlay.pth"
# Python reads the files of some directories twice (those of a virtual environment).
_LINE = (
    "import os, site, sys; path = {path}; argv = getattr(sys, 'argv', None) or ['']; "
    "own = {own}; verify = os.environ.get('VLLM_PLUGIN_VERIFY', '') not in ('', '0'); "
    "'{guarded}' + path in sys.path or {insert}'{guarded}' + path) if own "
    "else __import__('vllm_plugins.startup.guard', fromlist=['link']).{guard}(path) if verify "
    "else path in sys.path or {add}path)"
)
# Whether an interpreter runs ``vllm-plugins`` or ``-m vllm_plugins``, or was started by a command that examines an
# overlay. The module of ``-m`` is the word before the arguments.
_OWN = (
    f"'{variables.EXAMINES}' in os.environ or os.path.basename(argv[0]) == 'vllm-plugins' "
    "or argv[0] == '-m' and sys.orig_argv[-len(argv)].endswith('vllm_plugins')"
)
_GUARD = "vllm_plugins.startup.guard"
_IN_FRONT = "sys.path.insert(0, "
_TARGET = re.compile(r"/overlays/([0-9a-f]{32})/site\b")


class Link(Record):
    """A link in the file ``path`` to the overlay ``key``.

    It is plain if an earlier release has written it: it guards nothing, whatever ``VLLM_PLUGIN_VERIFY`` says. It is
    open if a later one has: the commands of this package can import from the overlay, too.
    """

    path: Path
    key: str
    is_plain: bool = False
    is_open: bool = False


def read(directories: Sequence[str] | None = None) -> Link | None:
    """The link of this interpreter, if it has one."""
    return next(_links(directories), None)


def write(store: Path, key: str, directories: Sequence[str] | None = None) -> Link:
    """Link an overlay into this interpreter, in place of any other.

    The link is written to the last of the interpreter's directories, so that the overlay comes after the base. It is
    a line of code in ASCII: how Python decodes a ``.pth`` file depends on version and locale. An overlay with
    ``.pth`` files is added by ``site``: Python doesn't read them in a directory that a ``.pth`` file names. Overrides
    are put in front by a line of their own, before anything of the base is imported.

    Raises:
        StoreError: the interpreter's directory can't be written.
    """
    target = overlay.directory(store, key) / overlay.SITE
    add = "site.addsitedir(" if any(target.glob("*.pth")) else "sys.path.append("
    line = _line(target, "link", "sys.path.append(", add)
    front = target / overlay.FRONT
    if front.is_dir():
        line = f"{_line(front, 'link_front', _IN_FRONT, _IN_FRONT)}\n{line}"
    path = Path(_directories(directories)[-1], NAME)
    try:
        atomic.write(path, f"{line}\n".encode())
    except OSError as error:
        raise _unwritable(path, error) from error
    _remove(link for link in _links(directories) if link.path != path)
    return Link(path=path, key=key)


def remove(directories: Sequence[str] | None = None) -> Link | None:
    """Remove the link, and return it. Raises the same errors as :func:`write`."""
    links = list(_links(directories))
    _remove(links)
    return links[0] if links else None


def _line(directory: Path, guard: str, insert: str, add: str) -> str:
    path = ascii(str(directory))
    return _LINE.format(path=path, own=_OWN, guarded=overlay.GUARDED, guard=guard, insert=insert, add=add)


def _links(directories: Sequence[str] | None) -> Iterator[Link]:
    """The links of this interpreter, the last one of the path first. An older version may have left several."""
    for directory in reversed(_directories(directories)):
        path = Path(directory, NAME)
        try:
            text = regular_file.read_text(path, errors="replace")
        except OSError:
            continue
        if (found := _TARGET.search(text)) is not None:
            yield Link(path=path, key=found[1], is_plain=_GUARD not in text, is_open=variables.EXAMINES not in text)


def _remove(links: Iterable[Link]) -> None:
    for link in links:
        try:
            link.path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(link.path, error) from error


def _directories(directories: Sequence[str] | None) -> list[str]:
    every = site.getsitepackages() if directories is None else directories
    return [directory for directory in every if os.path.isdir(directory)]


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        "the link to the overlay can't be written into the interpreter's directory",
        where=str(path),
        found=error.strerror or str(error),
        next_step="run this as the user who owns the interpreter, or skip --bake: the hook works without the link",
    )
