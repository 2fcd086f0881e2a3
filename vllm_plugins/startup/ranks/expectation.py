"""What every process of a server must have (``VLLM_PLUGIN_EXPECT``), compared with what this process has.

The value has parts, ``name=value``, with spaces in between. A process compares those that it is given::

    overlay=<key> files=<32 digits> lock=<32 digits> base=<fingerprint> packages=<name-version>/<name-version>/…

``overlay`` is the key, ``files`` the sha256 of the list of the overlay's files, and ``lock`` that of the lock. The
first process of a server sets all of them. ``packages``, the base as text, is there for the message. A user may give
any of them, or ``any`` for no comparison.

A process that has the same loads no errors: their import takes as long as looking at hundreds of files.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.startup import integrity, overlay
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vllm_plugins.core.errors import NodeMismatch, UsageError
    from vllm_plugins.startup.marker import Marker
    from vllm_plugins.startup.settings import Settings

__all__ = ["ANY", "between", "compare", "differences", "edited", "edited_rank", "parse", "text"]

ANY = "any"
_PARTS = ("overlay", "files", "lock", "base")
_DIGITS = 32
_SHOWN = 12  # digits of a hash, in messages
_LONGEST = 80  # characters of a name or a version that a message shows
_MOST = 20  # packages, in messages
_INSTALLED = (".egg-info", ".egg-link", ".egg")
# What differs, in the first line of a message.
_FIRST = "the first process of the server"
_CAUSES = {
    "no lock": f"no plugins, unlike {_FIRST}",
    "lock": f"another lock than {_FIRST}",
    "interpreter": f"another interpreter than {_FIRST}",
    "overlay": f"another content of the overlay than {_FIRST}",
    "base": f"another vLLM environment than {_FIRST}",
}
_OTHER_FILES = "the lock is the same, and other files were installed from it"


def parse(value: str) -> Mapping[str, str]:
    """The parts of a value; none for ``any``.

    Raises:
        UsageError: the value is not valid.
    """
    if value == ANY:
        return {}
    # Names of packages are those of directories, which may contain spaces.
    head, mark, packages = value.partition("packages=")
    found = dict.fromkeys(["packages"], packages) if mark else {}
    for word in head.split():
        name, _, content = word.partition("=")
        is_valid = len(content) == _DIGITS and all(digit in "0123456789abcdef" for digit in content)
        if name not in _PARTS or name in found or not is_valid:
            raise _invalid(word)
        found[name] = content
    if not found.keys() - {"packages"}:
        raise _invalid(value)
    return found


def _invalid(word: str) -> UsageError:
    from vllm_plugins.core.errors import UsageError

    return UsageError(
        f"the environment variable {variables.EXPECT} has an invalid value",
        where=f"node {_line(os.uname().nodename)}, process {os.getpid()}",
        expected="any, or some of overlay=…, files=…, lock=… and base=…, with 32 hexadecimal digits each",
        found=repr(word[:80]),
        next_step=f"set {variables.EXPECT} to the output of vllm-plugins status --expect on a node that is right",
    )


def text(marker: Marker, base: str) -> str:
    """The value for a marker and the fingerprint of a base, without the packages: for people and deployments."""
    return marker.expectation("", base).partition(" packages=")[0]


def compare(value: str, settings: Settings, marker: Marker | None, listing: str) -> None:
    """Compare an overlay and a base with the value of the variable. ``None`` as the marker: there are no plugins.

    Raises:
        NodeMismatch: this process differs from the first one of its server.
        UsageError: the value is not valid.
    """
    expected = parse(value)
    if not expected:
        return
    if marker is None:
        raise _mismatch(expected, {}, [f"there is no lock: {settings.lock}"], "no lock")
    base = overlay.fingerprint_of(listing)
    found = parse(marker.expectation(listing, base))
    differing = list(differences(expected, found, settings))
    if not differing and "files" in expected and not settings.verify:  # else each file was hashed
        changed = edited(settings.store, marker)
        differing = [("overlay", _edited_lines(changed))] if changed else []
    if differing:
        raise _mismatch(expected, found, [line for _, lines in differing for line in lines], differing[0][0])


def differences(
    expected: Mapping[str, str], found: Mapping[str, str], settings: Settings
) -> Iterator[tuple[str, list[str]]]:
    """What differs, the cause first: a word for it, and the lines that tell of it."""
    lines = {
        "lock": f"another lock: {settings.lock}",
        "interpreter": f"the lock is the same, and the interpreter is another one: {overlay.interpreter()}",
        "overlay": _OTHER_FILES,
    }
    for cause in _differing(expected, found):
        yield cause, [lines[cause]] if cause in lines else list(_packages(expected, found))


def between(first: Mapping[str, str] | None, other: Mapping[str, str] | None, *, rank: int) -> NodeMismatch | None:
    """The error that a rank of a process group differs from rank 0: each a ``node``, and what it has as ``expect``.

    ``None`` stands for a rank without this package, an empty value for one without plugins.
    """
    values = [side["expect"] if side else "" for side in (first, other)]
    if values[0] == values[1] or ANY in values:
        return None
    expected, found = (parse(value) if value else {} for value in values)
    causes = [*_differing(expected, found)] if expected and found else ["no lock"]
    if not causes:
        return None
    lines = [line for cause in causes for line in _of_ranks(cause, expected, found)]
    names = [_rank(0, first), _rank(rank, other)]
    if not expected:  # rank 0 has no plugins
        names.reverse()
    return _error(
        f"{names[1]} has {_CAUSES[causes[0]].replace(_FIRST, names[0])}",
        where=names[1],
        expected=_shown(expected or found),
        found=_shown(found if expected else {}) or "no plugins",
        lines=lines,
        cause=causes[0],
    )


def _rank(number: int, side: Mapping[str, str] | None) -> str:
    return f"rank {number} on node {_line(side['node'])}" if side else f"rank {number}"


def _of_ranks(cause: str, expected: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    if cause == "base":
        yield from _packages(expected, found)
    elif cause == "overlay":
        yield _OTHER_FILES
    elif cause == "no lock":
        yield "that rank has no lock, no vllm-plugin-manager or an older one, or VLLM_PLUGIN_DISABLE=1 is set there"


def _differing(expected: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    """A word for each thing that differs, the cause first."""
    differing = {name for name in expected if name in found and expected[name] != found[name]}
    if "lock" in differing or ("overlay" in differing and "lock" not in expected.keys() & found.keys()):
        yield "lock"
    elif "overlay" in differing:
        yield "interpreter"
    elif "files" in differing:
        yield "overlay"
    if "base" in differing:
        yield "base"


def _packages(expected: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    """A line for each package of the vLLM environment that differs, as far as those of both sides are known."""
    if "packages" not in expected or "packages" not in found:
        yield "another vLLM environment: packages, or the version of Python"
        return
    from vllm_plugins.core.humanize import count, shortened

    theirs, ours = _versions(expected["packages"]), _versions(found["packages"])
    lines = [
        f"{_line(name)}: expected {_line(theirs.get(name) or 'none')}, found {_line(ours.get(name) or 'none')}"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
    yield f"another vLLM environment: {count(len(lines), 'difference')}"
    yield from shortened(lines, _MOST)


def _versions(packages: str) -> dict[str, str]:
    """The versions of a listing's packages, and of its interpreter, by name."""
    interpreter, python, *names = packages.split("/") + [""] * 2
    versions = {"interpreter": interpreter, "Python": python}
    for name in filter(None, names):
        stem = name
        for suffix in _INSTALLED:
            stem = stem.removesuffix(suffix)
        package, _, version = stem.partition("-")
        known = versions.get(package)
        version = version or "?"
        versions[package] = version if known is None else f"{known} and {version}"
    return versions


def edited(store: Path, marker: Marker) -> list[str]:
    """Files of an overlay that were edited since it was published, by their sizes."""
    try:
        return list(integrity.compare_sizes(store, marker))
    except Exception as error:
        from vllm_plugins.core.errors import HashMismatch

        if not isinstance(error, HashMismatch):
            raise
        return [error.what]


def edited_rank(number: int, node: str, files: Sequence[str]) -> NodeMismatch:
    """The error that a rank's overlay, of the same lock, has edited files."""
    name = _rank(number, {"node": node})
    return _error(
        f"{name} has another content of the overlay than was installed",
        where=name,
        expected="the files that were installed from the lock",
        found="edited files",
        lines=_edited_lines(files),
        cause="overlay",
    )


def _edited_lines(files: Sequence[str]) -> list[str]:
    from vllm_plugins.core.humanize import count

    return [f"files of the overlay were edited: {count(len(files), 'file')}", *map(_line, files[:_MOST])]


def _mismatch(expected: Mapping[str, str], found: Mapping[str, str], lines: list[str], cause: str) -> NodeMismatch:
    node = _line(os.uname().nodename)
    return _error(
        f"node {node} has {_CAUSES[cause]}",
        where=f"node {node}, process {os.getpid()}",
        expected=f"{_shown(expected)} ({variables.EXPECT})",
        found=_shown(found) or "no lock",
        lines=lines,
        cause=cause,
    )


def _error(what: str, *, where: str, expected: str, found: str, lines: list[str], cause: str) -> NodeMismatch:
    from vllm_plugins.core.errors import NodeMismatch

    return NodeMismatch(
        what,
        where=where,
        expected=expected,
        found=found,
        details=[*lines, f"{variables.EXPECT}=any, where the server is started, allows nodes that differ"],
        next_step="give this node the plugins.lock of the server, then run vllm-plugins sync"
        if cause in ("no lock", "lock")
        else "run vllm-plugins sync --reinstall"
        if cause == "overlay"
        else "start all nodes from the same image",
    )


def _line(text: str) -> str:
    """A name in one line. That of a host may have line breaks, after which it would look like another error."""
    return text[:_LONGEST].replace("\n", "\\n")


def _shown(parts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value[:_SHOWN]}" for name, value in parts.items() if name != "packages")
