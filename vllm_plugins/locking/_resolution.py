"""Requirements and a base, resolved to exact versions.

Every distribution of the base is a constraint that names a metadata-only stub (``stub_wheels``), so the
resolver can use the base and can't move it. It pins; which files a pin has is asked of the index.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, NormalizedName, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from vllm_plugins.core.errors import BaseMismatch, CommandFailed, DiskError, NoResolution, SourceError
from vllm_plugins.core.humanize import count
from vllm_plugins.core.redact import redact
from vllm_plugins.packages import stub_wheels
from vllm_plugins.packages.releases import Pin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.locking._resolvers import Resolver
    from vllm_plugins.locking.request import PluginRequirement, Upgrade

__all__ = ["compile_pins", "constraints", "read_pins"]

VLLM = canonicalize_name("vllm")

# How resolvelib shows one cause: SpecifierRequirement('torch<2'), parent=LinkCandidate('https://… (from …)')
_CAUSE = re.compile(r"requirement=\w+\((?P<requirement>'[^']*'|\"[^\"]*\")\), parent=(?P<parent>None|\w+\([^)]*)")
_FILE_OF_PARENT = re.compile(r"[^/'\" ]{1,255}\.(?:whl|tar\.gz|zip)")
_NO_MATCH = re.compile(r"(?:satisfies the requirement|No matching distribution found for) (?P<requirement>[^(\n]+)")
# What pip warns of, before it goes on as if an index had nothing.
_UNREAD = (
    "confirming the ssl certificate",
    "Credentials not correct",
    "Max retries exceeded",
    "connection error:",
    "ConnectionError",
    "ReadTimeout",
    "Could not fetch URL",
    # Where it does not expect a bad answer, it ends with a traceback, whose last line says what it was.
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
_VERSIONS = re.compile(r"\(from versions: (?P<versions>[^)]*)\)")


def constraints(base: Base, directory: Path) -> dict[NormalizedName, str]:
    """A line for each distribution of the base, which names its stub in a directory.

    Raises:
        OSError: a stub can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lines = {
        distribution.name: stub_wheels.write(
            directory,
            name=distribution.name,
            version=distribution.version,
            extras=distribution.extras,
            requires=distribution.requires,
        )
        for distribution in base.distributions
    }
    if base.vllm is None:
        # A plugin that needs vllm meets this one, and no resolver walks through gigabytes of vLLM releases.
        lines[VLLM] = stub_wheels.write(directory, name=VLLM, version="0")
    return {name: f"{name} @ {stub.as_uri()}" for name, stub in lines.items()}


def compile_pins(
    wanted: Iterable[PluginRequirement],
    *,
    base: Base,
    offered: Mapping[NormalizedName, str],
    seeds: Mapping[NormalizedName, str],
    upgrade: Upgrade,
    resolver: Resolver,
    scratch: Path,
) -> tuple[Pin, ...]:
    """Pin everything that the wanted requirements need, sorted by name; what the base has is among it, as stubs.

    ``offered`` are the base's :func:`constraints`. ``seeds`` are the old lock's pins: kept where they still fit and
    ``upgrade`` does not free them. ``scratch`` is an empty directory.

    Raises:
        NoResolution: no set of versions satisfies all; says who wants what, and what the base has.
        SourceError: an index can't be reached.
        DiskError: there is no space for it.
    """
    lines = tuple(wanted)
    (scratch / "requirements.in").write_text("".join(f"{line.requirement}\n" for line in lines), encoding="utf-8")
    own = {line.name for line in lines}
    given = (f"{line}\n" for name, line in offered.items() if name not in own)
    (scratch / "constraints.txt").write_text("".join(given), encoding="utf-8")
    output = scratch / "requirements.txt"
    free = upgrade.names if not upgrade.everything else frozenset(seeds)
    # "==1.0" would let 1.0+cu129 in, which an index may have got since.
    kept = (f"{name}==={version}\n" for name, version in sorted(seeds.items()) if name not in free)
    output.write_text("".join(kept), encoding="utf-8")
    try:
        resolver.compile(scratch, base)
    except CommandFailed as error:
        if (full := DiskError.from_output(error.stderr, details=error.details)) is not None:
            raise full from error
        raise (_explain if resolver.name == "pip-compile" else _retell)(error, lines, base) from error
    text = output.read_text(encoding="utf-8")
    urls = (item.partition(" @ ")[2] for item in (*offered.values(), *(line.requirement for line in lines)))
    pins = tuple(read_pins(text, given={_path(url) for url in urls}))
    if base.vllm is None and any(pin.name == VLLM for pin in pins):
        raise _missing_vllm(base, [name for name in _askers(text, VLLM) if name in {pin.name for pin in pins}])
    return pins


def read_pins(text: str, *, given: Collection[str | None] = ()) -> Iterable[Pin]:
    """The pins of a requirements file that a resolver has written; ``given`` are paths of the wheels it was given.

    Raises:
        NoResolution: a line of it is no pin, or is one of what has no version but a URL.
    """
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith(("#", "--")):
            continue
        try:
            requirement = Requirement(line.strip())
            if requirement.url is not None and _path(requirement.url) not in given:
                raise _by_url(requirement, text)
            yield _pin(requirement)
        except (InvalidRequirement, InvalidWheelFilename, InvalidVersion, ValueError) as error:
            raise NoResolution(
                "what the resolver has written is not understood",
                expected="a version, or the file: URL of a wheel, for each name",
                found=redact(line.strip()[:200]),
                next_step="try another version of pip-tools, or --resolver uv",
            ) from error


def _path(url: str) -> str | None:
    """The path of a ``file:`` URL, which every resolver quotes in its own way."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else None


def _by_url(requirement: Requirement, text: str) -> NoResolution:
    """What we give a resolver by URL are wheels of ours; any other URL (PEP 508) is what a distribution asks for."""
    return NoResolution(
        f"{requirement.name} is asked for by its URL, and a lock holds what an index has",
        found=redact(requirement.url or ""),
        required_by=", ".join(_askers(text, canonicalize_name(requirement.name))) or None,
        next_step="ask the author of what needs it to name a version, and leave that plugin out until then",
    )


def _pin(requirement: Requirement) -> Pin:
    name = canonicalize_name(requirement.name)
    extras = frozenset(map(canonicalize_name, requirement.extras))
    if requirement.url is not None:
        version = str(parse_wheel_filename(unquote(urlsplit(requirement.url).path).rpartition("/")[2])[1])
        return Pin(name=name, version=version, extras=extras, url=requirement.url)
    (specifier,) = requirement.specifier
    if specifier.operator != "==":
        raise ValueError(f"{specifier} is no exact version")
    Version(specifier.version)
    return Pin(name=name, version=specifier.version, extras=extras, url=None)


def _askers(text: str, name: NormalizedName) -> Iterable[str]:
    """Who needs a distribution, as pip-compile notes it below the line of its pin: ``# via one``, a line each."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"{name} @ "):
            break
    for line in itertools.takewhile(lambda line: line.lstrip().startswith("#"), lines):
        yield from (word for word in line.split()[1:] if word != "via")


def _missing_vllm(base: Base, askers: Iterable[str] = ()) -> BaseMismatch:
    return BaseMismatch(
        "a plugin needs vllm, and this environment has none",
        expected="an environment in which vLLM is installed",
        found=f"Python {base.python} with {count(len(base.distributions), 'distribution')}",
        required_by=", ".join(dict.fromkeys(askers)) or None,
        next_step="in the vLLM image: vllm-plugins base -o base.json; here: vllm-plugins lock --base base.json",
    )


def _explain(
    error: CommandFailed, wanted: tuple[PluginRequirement, ...], base: Base
) -> NoResolution | SourceError | BaseMismatch:
    """Turn what pip-compile says of a failure into who wants what, and what the base has."""
    words = error.stderr
    without = [match for match in _CAUSE.finditer(words) if _name(match["requirement"][1:-1]) == VLLM]
    if base.vllm is None and without:
        return _missing_vllm(base, (_cause(match, wanted, base).partition(" wants ")[0] for match in without))
    unread = [line for line in words.splitlines() if any(part in line for part in _UNREAD)]
    if unread:
        return SourceError(
            "the index can't be read",
            details=list(dict.fromkeys(unread))[:5],
            next_step="mend the network, the login, or the index configuration (pip config list)",
        )
    causes = [_cause(match, wanted, base) for match in _CAUSE.finditer(words)]
    missing = _NO_MATCH.search(words)
    versions = _VERSIONS.search(words)
    if versions is not None and missing is not None and len(causes) <= 1:
        requirement = missing["requirement"].strip()
        offered = versions["versions"].strip()
        return NoResolution(
            f"no release satisfies {requirement}",
            expected=requirement,
            found="no release at all: no index has that name" if offered == "none" else f"releases {offered}",
            required_by=_plugin_of(requirement, wanted),
            next_step="correct the name or the version in plugins.yaml, or the index configuration (pip config list)",
        )
    if causes:
        return NoResolution(
            "no set of versions satisfies every plugin and the base",
            details=list(dict.fromkeys(causes)),
            next_step="change one of these requirements in plugins.yaml, or lock against another vLLM environment",
        )
    if "Traceback (most recent call last)" in words:
        return SourceError(
            "pip-compile does not understand what an index answers",
            details=[line for line in words.splitlines() if line.strip()][-1:],
            next_step="mend the index, or its configuration (pip config list)",
        )
    return NoResolution(
        "pip-compile failed", details=error.details, next_step="look at its words above, mend the cause, lock again"
    )


def _retell(error: CommandFailed, wanted: tuple[PluginRequirement, ...], base: Base) -> NoResolution | BaseMismatch:
    """What uv says of a failure, which it says well, with what the base has."""
    words = [line.strip(" │╰─▶×") for line in error.stderr.splitlines()]
    named = {canonicalize_name(name) for line in words for name in re.findall(r"[A-Za-z0-9][\w.-]*", line)}
    if base.vllm is None and VLLM in named:
        return _missing_vllm(base, (line.plugin for line in wanted if line.name in named))
    has = [f"the base has {item.name} {item.version}" for item in base.distributions if item.name in named]
    return NoResolution(
        "no set of versions satisfies every plugin and the base",
        details=[*filter(None, words), *has],
        required_by=", ".join(f"plugin {line.plugin!r}" for line in wanted if line.name in named) or None,
        next_step="change one of these requirements in plugins.yaml, or lock against another vLLM environment",
    )


def _cause(match: re.Match[str], wanted: tuple[PluginRequirement, ...], base: Base) -> str:
    text = match["requirement"][1:-1]
    who = "plugins.yaml"
    if match["parent"] != "None":
        files = _FILE_OF_PARENT.findall(unquote(match["parent"]))
        who = _distribution(files[0]) if files else "a dependency"
        plugin = _plugin_of(who.split(" ")[0], wanted)
        who = f"{who} (plugin {plugin!r})" if plugin else who
    else:
        plugin = _plugin_of(text, wanted)
        who = f"plugin {plugin!r}" if plugin else who
    name = _name(text)
    there = base.get(name) if name else None
    has = f"; the base has {there.name} {there.version}" if there is not None else ""
    return f"{who} wants {text}{has}"


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


def _plugin_of(requirement: str, wanted: tuple[PluginRequirement, ...]) -> str | None:
    name = _name(requirement)
    return next((line.plugin for line in wanted if line.name == name), None)
