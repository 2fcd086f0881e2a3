"""What resolvers say of a failure, turned into the requirements that conflict and where they come from."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, NormalizedName, canonicalize_name, parse_wheel_filename

from vllm_plugins.core.errors import BaseMismatch, CommandFailed, NoResolution, SourceError
from vllm_plugins.core.humanize import count
from vllm_plugins.core.redact import redact
from vllm_plugins.documents.base import VLLM

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm_plugins.documents.base import Base
    from vllm_plugins.locking.request import PluginRequirement

__all__ = ["explain", "missing_vllm", "parents", "url_dependency"]

# How resolvelib shows one cause: SpecifierRequirement('torch<2'), parent=LinkCandidate('https://… (from …)')
_CAUSE = re.compile(r"requirement=\w+\((?P<requirement>'[^']*'|\"[^\"]*\")\), parent=(?P<parent>None|\w+\([^)]*)")
_FILE_OF_PARENT = re.compile(r"[^/'\" ]{1,255}\.(?:whl|tar\.gz|zip)")
_NO_MATCH = re.compile(r"(?:satisfies the requirement|No matching distribution found for) (?P<requirement>[^(\n]+)")
# pip warns of these, and goes on as if the index were empty.
_UNREAD = (
    "confirming the ssl certificate",
    "Credentials not correct",
    "Max retries exceeded",
    "connection error:",
    "ConnectionError",
    "ReadTimeout",
    "Could not fetch URL",
    # On an answer that it does not expect, pip ends with a traceback, whose last line says what it was.
    "ChunkedEncodingError",
    "ContentDecodingError",
    "IncompleteRead",
    "InvalidSchema",
    "JSONDecodeError",
    "ProtocolError",
    "TooManyRedirects",
    "UnicodeDecodeError",
    "VLLM_PLUGIN_TIMEOUT",
)
# A requirement of a distribution is its author's to change, not the user's.
_ANOTHER_RELEASE = (
    "name another release with `version` in plugins.yaml, or set `enabled: false` for the plugin; what a plugin "
    "requires stands in its own metadata, which only its author can change"
)
_VERSIONS = re.compile(r"\(from versions: (?P<versions>[^)]*)\)")


def explain(
    error: CommandFailed, requirements: tuple[PluginRequirement, ...], base: Base, *, resolver: str
) -> NoResolution | SourceError | BaseMismatch:
    """The error that tells why a resolver failed."""
    return (_from_pip if resolver == "pip-compile" else _from_uv)(error, requirements, base)


def url_dependency(requirement: Requirement, text: str) -> NoResolution:
    """The error for a dependency that is named by a URL (PEP 508) and not one of our own wheels."""
    return NoResolution(
        f"{requirement.name} is required by URL; a lock contains only packages from an index",
        found=redact(requirement.url or ""),
        required_by=", ".join(parents(text, canonicalize_name(requirement.name))) or None,
        next_step="set `enabled: false` for that plugin, and ask its author to require a version from an index",
    )


def parents(text: str, name: NormalizedName) -> Iterable[str]:
    """The parents of a distribution, which pip-compile notes below its pin: ``# via one``, a line each."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"{name} @ "):
            break
    for line in itertools.takewhile(lambda line: line.lstrip().startswith("#"), lines):
        yield from (word for word in line.split()[1:] if word != "via")


def missing_vllm(base: Base, names: Iterable[str] = ()) -> BaseMismatch:
    return BaseMismatch(
        "a plugin requires vllm, and this environment has none",
        expected="an environment in which vLLM is installed",
        found=f"Python {base.python} with {count(len(base.distributions), 'distribution')}",
        required_by=", ".join(dict.fromkeys(names)) or None,
        next_step="run `vllm-plugins base -o base.json` in the vLLM image, here `vllm-plugins lock --base base.json`",
    )


def _from_pip(
    error: CommandFailed, requirements: tuple[PluginRequirement, ...], base: Base
) -> NoResolution | SourceError | BaseMismatch:
    """Read the causes out of pip-compile's output, and add what the base has."""
    words = error.stderr
    without = [match for match in _CAUSE.finditer(words) if _name(match["requirement"][1:-1]) == VLLM]
    if base.vllm is None and without:
        return missing_vllm(base, (_cause(match, requirements, base).partition(" requires ")[0] for match in without))
    unread = [line for line in words.splitlines() if any(part in line for part in _UNREAD)]
    if unread:
        return SourceError(
            "the index can't be read",
            details=list(dict.fromkeys(unread))[:5],
            next_step="fix the network, the login or the index configuration (pip config list)",
        )
    causes = [_cause(match, requirements, base) for match in _CAUSE.finditer(words)]
    missing = _NO_MATCH.search(words)
    versions = _VERSIONS.search(words)
    if versions is not None and missing is not None and len(causes) <= 1:
        requirement = missing["requirement"].strip()
        offered = versions["versions"].strip()
        return NoResolution(
            f"no release satisfies {requirement}",
            expected=requirement,
            found="no release at all: no index has that name" if offered == "none" else f"releases {offered}",
            required_by=_plugin_of(requirement, requirements),
            next_step="correct the name or the version in plugins.yaml, or the index configuration (pip config list)",
        )
    if causes:
        return NoResolution(
            "no set of versions satisfies every plugin and the base",
            details=list(dict.fromkeys(causes)),
            next_step=_ANOTHER_RELEASE,
        )
    if "Traceback (most recent call last)" in words:
        return SourceError(
            "pip-compile can't read what an index answers",
            details=[line for line in words.splitlines() if line.strip()][-1:],
            next_step="fix the index or its configuration (pip config list)",
        )
    return NoResolution(
        "pip-compile failed", details=error.details, next_step="fix the cause that its output names, and lock again"
    )


def _from_uv(
    error: CommandFailed, requirements: tuple[PluginRequirement, ...], base: Base
) -> NoResolution | BaseMismatch:
    """Repeat uv's own explanation, and add what the base has."""
    words = [line.strip(" │╰─▶×") for line in error.stderr.splitlines()]
    named = {canonicalize_name(name) for line in words for name in re.findall(r"[A-Za-z0-9][\w.-]*", line)}
    if base.vllm is None and VLLM in named:
        return missing_vllm(base, (line.plugin for line in requirements if line.name in named))
    has = [f"the base has {item.name} {item.version}" for item in base.distributions if item.name in named]
    return NoResolution(
        "no set of versions satisfies every plugin and the base",
        details=[*filter(None, words), *has],
        required_by=", ".join(f"plugin {line.plugin!r}" for line in requirements if line.name in named) or None,
        next_step=_ANOTHER_RELEASE,
    )


def _cause(match: re.Match[str], requirements: tuple[PluginRequirement, ...], base: Base) -> str:
    text = match["requirement"][1:-1]
    who = "plugins.yaml"
    if match["parent"] != "None":
        files = _FILE_OF_PARENT.findall(unquote(match["parent"]))
        who = _distribution(files[0]) if files else "a dependency"
        plugin = _plugin_of(who.split(" ")[0], requirements)
        who = f"{who} (plugin {plugin!r})" if plugin else who
    else:
        plugin = _plugin_of(text, requirements)
        who = f"plugin {plugin!r}" if plugin else who
    name = _name(text)
    there = base.get(name) if name else None
    has = f"; the base has {there.name} {there.version}" if there is not None else ""
    return f"{who} requires {text}{has}"


def _distribution(filename: str) -> str:
    try:
        name, version, _, _ = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        stem = re.sub(r"\.(tar\.gz|zip)$", "", filename)
        before, _, after = stem.rpartition("-")
        return f"{canonicalize_name(before)} {after}"
    return f"{name} {version}"


def _name(requirement: str) -> NormalizedName | None:
    try:
        return canonicalize_name(Requirement(requirement).name)
    except InvalidRequirement:
        return None


def _plugin_of(requirement: str, requirements: tuple[PluginRequirement, ...]) -> str | None:
    name = _name(requirement)
    return next((line.plugin for line in requirements if line.name == name), None)
