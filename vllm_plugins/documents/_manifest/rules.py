"""Rules for single values of plugins.yaml: each function returns the problem of a text, or ``None``.

The rules exclude texts that pip, git or a file system would understand in another way, such as options.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier

from vllm_plugins.core.redact import redact
from vllm_plugins.documents import git_url_forms as forms
from vllm_plugins.documents import versions

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "IDENTIFIER",
    "MAX_LENGTH",
    "NAME",
    "NO_REF",
    "SCHEME",
    "build_requirement",
    "extra",
    "name",
    "normal_subdirectory",
    "package",
    "path",
    "quoted",
    "ref",
    "subdirectory",
    "text",
    "url",
    "version",
]

MAX_LENGTH = 4096
_MAX_SHOWN = 80  # characters of a value in a message
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# PEP 508: what distributions and extras may be called.
IDENTIFIER = re.compile(r"[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ANY = ("*", "any", "latest")  # what other tools write for no requirement
# What git check-ref-format forbids; ^ and ~ would also begin a revision expression.
NO_REF = re.compile(r"[\s~^:?*\[\\]|\.\.|@\{|//|^/|[/.]$|\.lock$|(?:^|/)\.")


def quoted(text: str) -> str:
    """A value of the file as a message shows it: without secrets, escaped, and not too long."""
    shown = redact(text)
    return repr(shown if len(shown) <= _MAX_SHOWN else shown[: _MAX_SHOWN - 1] + "…")


def text(value: str) -> str | None:
    """The rules for every text, whatever it is for."""
    if not value:
        return "expected a string, found an empty one; write a value or remove the key"
    if len(value) > MAX_LENGTH:
        return f"has {len(value)} characters; at most {MAX_LENGTH} are allowed"
    hidden = next((character for character in value if not character.isprintable()), None)
    if hidden is not None:
        return f"contains the invisible character U+{ord(hidden):04X}; remove it"
    if value != value.strip():
        return f"{quoted(value)} begins or ends with a space; remove it"
    if value.startswith("-"):
        return f'{quoted(value)} begins with "-" like an option; that is not allowed'
    return None


def name(value: str) -> str | None:
    """A plugin's name."""
    if NAME.fullmatch(value):
        return None
    rule = "begin with a letter or digit, then use letters, digits, '.', '_' and '-'"
    return f"{quoted(value)} is not a valid plugin name; {rule}"


def package(value: str) -> str | None:
    """A distribution's name."""
    if IDENTIFIER.fullmatch(value):
        return None
    wrong = f"{quoted(value)} is not a valid package name"
    try:
        whole = versions.requirement(value)
    except ValueError:  # InvalidRequirement
        return f"{wrong}; use letters, digits, '.', '_' and '-'"
    parts = [f"package: {whole.name}"]
    if whole.url:
        return f"{wrong}; for a URL, use source: git"
    if whole.extras:
        parts.append(f"extras: [{', '.join(sorted(whole.extras))}]")
    if whole.specifier:
        parts.append(f'version: "{whole.specifier}"')
    return f"{wrong}; write {', '.join(parts)}"


def build_requirement(value: str) -> str | None:
    """A requirement of a build (PEP 508)."""
    try:
        whole = versions.requirement(value)
    except ValueError:  # InvalidRequirement
        return f'{quoted(value)} is not a valid requirement; write it like "setuptools>=80"'
    return f"{quoted(value)} names a URL; a build requires packages from an index" if whole.url else None


def extra(value: str) -> str | None:
    """An extra's name."""
    if IDENTIFIER.fullmatch(value):
        return None
    return f"{quoted(value)} is not a valid name of an extra; use letters, digits, '.', '_' and '-'"


def load(value: str) -> str | None:
    """The name of an object that vLLM loads: ``module`` or ``module:attribute``."""
    module, separator, attribute = value.partition(":")
    parts = [*module.split("."), *(attribute.split(".") if separator else ())]
    if all(part.isidentifier() for part in parts):
        return None
    return f"{quoted(value)} is not a valid name of an object; use module:attribute, such as my_plugin.kv:Connector"


def version(value: str) -> str | None:
    """A version specifier (PEP 440)."""
    wrong = f"{quoted(value)} is not a valid version specifier"
    if any(word.startswith("-") for word in re.split(r"[\s,=]+", value)):
        return f'{wrong}; no part of it may begin with "-"'
    try:
        versions.specifiers(value)
    except InvalidSpecifier:
        pass
    else:
        return None
    if value.lower() in _ANY:
        return f'{wrong}; for any version, write ">=0"'
    meant = next((text for text in _meant(value) if _is_specifier(text)), None)
    hint = 'write it like ">=0.1,<2" or "==1.2.3"' if meant is None else f'did you mean "{meant}"?'
    return f"{wrong}; {hint}"


def _meant(value: str) -> Iterator[str]:
    """Specifiers that a text may mean: a version alone, ``=1.0``, Poetry's ``~1.0`` and ``^1.0``."""
    yield f"={value}" if value.startswith("=") else f"=={value}"
    rest = value[1:]
    major = rest.partition(".")[0]
    if value.startswith("^") and major.isdecimal() and int(major) > 0:
        yield f">={rest},<{int(major) + 1}"
    if value.startswith("~"):
        yield f"~={rest}"
    if value.startswith(("~", "^")):
        yield f">={rest}"


def _is_specifier(text: str) -> bool:
    try:
        versions.specifiers(text)
    except InvalidSpecifier:
        return False
    return True


def url(value: str) -> str | None:
    """The URL of a git repository, its variables unexpanded."""
    rest = forms.VARIABLE.sub("", value)
    if "${" in rest:
        return f"{quoted(value)} has an invalid variable; write ${{NAME}}, with letters, digits and '_'"
    if value.startswith("git+"):
        return _of_pip(value.removeprefix("git+"))
    scheme = SCHEME.match(value)
    if scheme is not None:
        wrong = _scheme_url(scheme[1], value[scheme.end() :], value)
    elif value.startswith("${"):
        wrong = None  # the variable has the scheme; sources/git_url checks the expanded address
    else:
        wrong = _plain_url(value)
    return wrong or _tail(value)


def _of_pip(value: str) -> str:
    """What to write for a URL of pip, maybe with a ref and a subdirectory. ``value`` is the part after ``git+``."""
    address, _, fragment = value.partition("#")
    head, at, tail = (
        address.rpartition("@") if "@" in address.partition("://")[2].partition("/")[2] else (address, "", "")
    )
    below = re.search(r"(?:^|&)subdirectory=([^&]+)", fragment)
    parts = [f"url: {quoted(forms.of_ssh(head))}"]
    parts += [f"ref: {quoted(tail)}"] if at else []
    parts += [f"subdirectory: {quoted(below[1])}"] if below is not None else []
    written = ", ".join(parts) if len(parts) > 1 else quoted(forms.of_ssh(head))
    return f"remove git+: write {written}"


def _scheme_url(scheme: str, rest: str, value: str) -> str | None:
    if scheme not in forms.SCHEMES:
        hint = f"; write {scheme.lower()}" if scheme.lower() in forms.SCHEMES else ""
        return f"the scheme {scheme}:// is not supported{hint or '; use https, http, ssh, file or user@host:path'}"
    if scheme == "file":
        return None if len(rest) > 1 and rest[0] == "/" else "a file URL has three slashes: file:///path"
    host, slash, tail = rest.partition("/")
    if not host or host.rpartition("@")[2].startswith("-") or not slash or not tail:
        return f"{quoted(value)} has no path to a repository; write {scheme}://host/path"
    if scheme == "ssh" and (address := forms.of_ssh(value)) != value:
        return f"{quoted(value)} has no port after its colon; write {quoted(address)}"
    if scheme != "ssh" and "@" in host and "@" in tail:
        # Where the login ends would be a guess, and a part of a password could reach the lock.
        remedy = 'write %40 in the path, or %2F for a "/" in a password'
        return f'{quoted(value)} has an "@" in its login and in its path; {remedy}'
    return None


def _plain_url(value: str) -> str | None:
    if "::" in value.partition("[")[0]:
        return f"{quoted(value)} names a program, which is not allowed; use https, http, ssh, file or user@host:path"
    if value.startswith("/"):
        return f"{quoted(value)} is a path; write {quoted('file://' + value)}, or use source: local"
    if value.startswith(("~", ".")):
        return f"{quoted(value)} is a path; write file:///path, or use source: local"
    if forms.SCP.fullmatch(value):
        return None
    hint = f"; did you mean {quoted('https://' + value)}?" if re.match(r"[\w-]+(\.[\w-]+)+/.", value) else ""
    return f"{quoted(value)} is not a valid URL{hint or '; use https, http, ssh, file or user@host:path'}"


def _tail(value: str) -> str | None:
    if "#" in value:
        return f"{quoted(value)} has a fragment; use the key subdirectory"
    pinned = re.search(r"\.git@([^/@:]+)$", value)
    return None if pinned is None else f"{quoted(value)} contains a ref; use the key ref: {quoted(pinned[1])}"


def ref(value: str) -> str | None:
    """A branch, a tag or a commit."""
    if not NO_REF.search(value):
        return None
    return f"{quoted(value)} is not a valid name of a branch, tag or commit"


def subdirectory(value: str) -> str | None:
    """A directory in a repository."""
    if "\\" in value:
        return f'{quoted(value)} has a backslash; write "/"'
    if value.startswith("/"):
        return f"{quoted(value)} is absolute; write it relative to the root of the repository"
    if ".." in value.split("/"):
        return f'{quoted(value)} has ".." in it; name a directory in the repository'
    if any(part.startswith("-") for part in value.split("/")):
        return f'{quoted(value)} has a part that begins with "-" like an option; that is not allowed'
    return None


def normal_subdirectory(value: str) -> str | None:
    """The path without ``.`` and doubled slashes; ``None`` for the root itself."""
    normal = PurePosixPath(value).as_posix()
    return None if normal == "." else normal


def path(value: str) -> str | None:
    """The directory of a local project."""
    if SCHEME.match(value):
        return f"{quoted(value)} is a URL; name a directory, or use source: git"
    return None
