"""pip's configuration, read by the rules of its documentation: https://pip.pypa.io/en/stable/topics/configuration/.

Starting pip takes longer than all else that an unchanged lock needs. Where the rules leave a choice, as for a damaged
file, nothing is read here, and pip is asked. A test compares the result with that of ``pip config list``.
"""

from __future__ import annotations

import configparser
import locale
import os
import sys
from typing import TYPE_CHECKING

from vllm_plugins.core import regular_file
from vllm_plugins.startup.settings import home_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["VARIABLES", "read"]

VARIABLES = ":env:"  # the section of what variables configure, as pip calls it
_NAME = "pip.conf"
_PREFIX = "PIP_"
_NOT_KEYS = ("version", "help")  # options that no variable sets


class _Ambiguous(Exception):
    """Releases of pip differ in what they make of this."""


def read(environ: Mapping[str, str]) -> dict[str, dict[str, str]] | None:
    """Return the keys of each section with their values, as pip sees them, or ``None`` where pip has to be asked."""
    found: dict[str, dict[str, str]] = {VARIABLES: {}}
    try:
        for path in _files(environ):
            for section, values in _sections(path).items():
                found.setdefault(section, {}).update(values)
    except _Ambiguous:
        return None
    for name, value in environ.items():
        key = name.removeprefix(_PREFIX).lower()
        if name.startswith(_PREFIX) and key not in _NOT_KEYS:
            found[VARIABLES][_key(key)] = value
    return found


def _sections(path: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser()
    try:
        data = regular_file.read_bytes(path)
        if not data.isascii() and locale.getpreferredencoding(do_setlocale=False).lower() not in ("utf-8", "utf8"):
            raise _Ambiguous
        parser.read_string("\n".join(data.decode("utf-8").splitlines()))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise _Ambiguous from error
    found = {name: {_key(key): value for key, value in parser.items(name)} for name in parser.sections()}
    if any(len(values) != len(parser.items(name)) for name, values in found.items()):
        raise _Ambiguous  # one key in two spellings
    return found


def _key(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


def _files(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield pip's files, the weakest first: of the system, the user, the virtual environment, and PIP_CONFIG_FILE."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = home_of(environ)
    for directory in _directories(environ, "XDG_CONFIG_DIRS", "/etc/xdg"):
        yield os.path.join(directory, "pip", _NAME)
    yield os.path.join("/etc", _NAME)
    if not (named and os.path.exists(named)):
        yield os.path.join(home, ".pip", _NAME)
        for directory in _directories(environ, "XDG_CONFIG_HOME", os.path.join(home, ".config")):
            yield os.path.join(directory, "pip", _NAME)
    yield os.path.join(sys.prefix, _NAME)
    if named:
        yield named


def _directories(environ: Mapping[str, str], name: str, default: str) -> list[str]:
    if not environ.get(name):
        return [default]
    found = environ[name].split(os.pathsep) if name.endswith("S") else [environ[name]]
    if not all(directory == directory.strip() and os.path.isabs(directory) for directory in found):
        raise _Ambiguous
    return found
