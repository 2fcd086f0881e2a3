"""What pip itself says of its configuration. Each answer takes the start of an interpreter."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
from typing import TYPE_CHECKING

from vllm_plugins.core import hashes, process
from vllm_plugins.core.errors import UsageError
from vllm_plugins.packages import cache, programs
from vllm_plugins.packages._configuration.pip_files import VARIABLES
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["default_index", "parse", "report"]

_LINE = re.compile(r"(?P<section>global|install|:env:)\.(?P<key>[a-z0-9-]+)=(?P<value>.*)")
_DEFAULT_INDEX = re.compile(r"-i, --index-url <url>.*?\(default\s+(?P<url>\S+?)\)", re.DOTALL)


def report(env: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the keys of each section with their values.

    Raises:
        UsageError: the output is not a configuration, or two files differ in a key.
        CommandFailed: pip can't be run, or can't read its configuration.
    """
    return parse(process.run([*programs.PIP, "config", "list"], env=env).stdout)


def parse(text: str) -> dict[str, dict[str, str]]:
    """Return the keys of each section in the output of ``pip config list``. Raises as :func:`report`."""
    found: dict[str, dict[str, str]] = {}
    for section, key, value in filter(None, map(_parsed, text.splitlines())):
        values = found.setdefault(section, {})
        if values.setdefault(key, value) != value:
            # pip lists its files in the order of their paths, which is not that in which they count.
            raise UsageError(
                f"several files of pip's configuration have different values of {section}.{key}",
                found=f"{values[key]!r} and {value!r}",
                next_step=f"`pip config debug` names the files: keep {key} in one of them",
            )
    if "quiet" not in found.get(VARIABLES, {}):
        raise UsageError(
            "pip does not report its configuration",
            expected="the output of `pip config list`",
            found=text.strip()[:200] or "no output",
            next_step="run `pip config list`; if it prints nothing, set PIP_INDEX_URL to your index",
        )
    return found


def _parsed(line: str) -> tuple[str, str, str] | None:
    match = _LINE.fullmatch(line.strip())
    if match is None:
        return None
    try:
        return match["section"], match["key"], str(ast.literal_eval(match["value"]))
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:  # the last two: nested too deeply
        raise UsageError(
            "pip's configuration can't be read", found=line, next_step="run `pip config list`"
        ) from error


def default_index(env: Mapping[str, str]) -> str:
    """Return the index that pip uses when none is configured. Only its help names it, so the result is kept.

    Raises:
        UsageError: the help names none.
        CommandFailed: pip can't be run.
    """
    place = _place_of_default()
    if place is not None and (kept := cache.read(place)) is not None:
        return kept
    text = process.run([*programs.PIP, "install", "--help"], env=env).stdout
    match = _DEFAULT_INDEX.search(text)
    if match is None:
        raise UsageError(
            "pip does not report its default index",
            expected="`pip install --help` with the default of --index-url",
            found="no output" if not text.strip() else "other output",
            next_step="set PIP_INDEX_URL to the index that you use",
        )
    if place is not None:
        cache.write(place, match["url"])
    return match["url"]


def _place_of_default() -> Path | None:
    """Return where the default index of this interpreter's pip is kept; another pip has another place."""
    caches = Settings.from_environment(os.environ).cache
    spec = importlib.util.find_spec("pip")
    if caches is None or spec is None or spec.origin is None:
        return None
    try:
        status = os.stat(spec.origin)
    except OSError:
        return None
    identity = f"{sys.executable} {spec.origin} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
    return caches / "pip" / hashes.sha256(os.fsencode(identity))
