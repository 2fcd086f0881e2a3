"""The errors for what can't be resolved: the plugins, the paths to what rules them out, and one next step.

The reasons come from the index and from metadata (``_search.walk``), and not from the output of a resolver.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from packaging.utils import NormalizedName, canonicalize_name

from vllm_plugins.core.errors import BaseMismatch, NoResolution, SourceError
from vllm_plugins.core.humanize import count
from vllm_plugins.core.redact import redact
from vllm_plugins.documents.lock import in_words, leave_out
from vllm_plugins.locking._search import suggested_overrides
from vllm_plugins.locking._search.findings import chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    from vllm_plugins.core.errors import CommandFailed
    from vllm_plugins.documents.base import Base
    from vllm_plugins.locking._search.findings import Finding, Root

__all__ = [
    "clash",
    "missing_vllm",
    "parents",
    "refuse_unknown_extras",
    "resolver_failed",
    "unsatisfiable",
    "url_dependency",
]

_LAST_LINES = 10
# A requirement of a distribution is its author's to change, not the user's.
_NOT_YOURS = "what a plugin requires is in its own metadata, which only its author can change"


def unsatisfiable(
    findings: Mapping[str, Finding],
    roots: Sequence[Root],
    base: Base,
    places: Callable[[NormalizedName], Iterable[str]],
    *,
    overrides: Mapping[NormalizedName, SpecifierSet] | None,
    no_index_step: str | None,
) -> NoResolution | BaseMismatch:
    """The error for plugins that can't be satisfied, all of them.

    ``places`` are the indexes that are asked for a name. ``overrides`` are packages of the base with which they would
    fit in another version. ``no_index_step`` is how to allow indexes, if the configuration forbids them.
    """
    needs_vllm = [name for name, found in findings.items() if found.kind == "vllm"]
    if needs_vllm:
        lines = [f"{chain(findings[name].path)} ({in_words(name)})" for name in needs_vllm]
        return missing_vllm(base, lines)
    by_name = {root.plugin: root for root in roots}
    verb = "does" if len(findings) == 1 else "do"
    unknown = [
        canonicalize_name(found.requirement.name) if found.requirement is not None else by_name[name].name
        for name, found in findings.items()
        if found.kind == "unknown"
    ]
    details = [f"{in_words(name)}: {_asked(by_name[name], found)}{found}" for name, found in findings.items()]
    details += dict.fromkeys(f"index: {place}" for name in unknown for place in places(name))
    return NoResolution(
        f"{_plugins(findings)} {verb} not fit this environment",
        details=details,
        next_step="; or, ".join(
            filter(
                None,
                (
                    f"{no_index_step}, or put its wheel into a directory of PIP_FIND_LINKS"
                    if unknown and no_index_step
                    else None,
                    _next_step(findings, by_name),
                    suggested_overrides.advice(overrides) if overrides else None,
                ),
            )
        ),
    )


def _asked(root: Root, finding: Finding) -> str:
    """The requirement of plugins.yaml, where the finding is about that."""
    return "" if finding.path else f"plugins.yaml requires {root.name}{root.specifier}; "


def _next_step(findings: Mapping[str, Finding], roots: Mapping[str, Root]) -> str:
    for name, found in findings.items():
        if not found.path and found.kind == "unknown" and roots[name].has_own_index:
            return f"correct `package` or `index` of {in_words(name)} in plugins.yaml"
        if not found.path and found.kind == "unknown":
            return f"correct `package` of {in_words(name)} in plugins.yaml, or the indexes of `pip config list`"
        if not found.path:
            return f"change `version` of {in_words(name)} in plugins.yaml"
    first, found = next(iter(findings.items()))
    without = f"{_leave_out(findings)} in plugins.yaml"
    if found.obstacle is not None and found.obstacle.kind == "yanked" and len(found.path) == 1:
        version = found.path[0].rpartition(" ")[2]
        return f'{without}; or, to accept what was yanked, set `version: "=={version}"` for {in_words(first)}'
    if found.obstacle is not None and found.obstacle.kind == "young" and found.path:
        package = found.path[-1].partition(" ")[0]
        return f"wait, or, after a review, add {package} to `min-age-exempt` of `policy:` in plugins.yaml"
    return f"{without}{_by_author(found, roots)}"


def _by_author(found: Finding, roots: Mapping[str, Root]) -> str:
    """What else helps: another environment, or, of a requirement by URL, another source, or its author."""
    if found.kind == "unknown" and found.requirement is not None:
        # As in a repository of several projects, which its author installs by paths that only their own tool reads.
        source = f"make {found.requirement.name} a plugin of its own in plugins.yaml"
        return f"; or, if a git repository or a directory has it, {source}; {_NOT_YOURS}"
    if found.kind != "url" or not found.path or found.requirement is None:
        return f", or use another environment; {_NOT_YOURS}"
    package, name = found.path[-1].partition(" ")[0], found.requirement.name
    same = next((root.plugin for root in roots.values() if root.name == canonicalize_name(name)), None)
    if same is not None:
        by_name = f"require {name} there by its name, without the URL"
        return f"; or give {in_words(same)} that source there; or, if you are the author of {package}, {by_name}"
    by_name = f"require {name} there by its name, without the URL, and make it a plugin of its own in plugins.yaml"
    return f"; or, if you are the author of {package}, {by_name}"


def _plugins(findings: Mapping[str, Finding]) -> str:
    described = list(map(in_words, findings))
    if len(described) > 1 and all(map(_is_plugin, findings)):
        return f"the plugins {', '.join(map(repr, findings))}"
    return " and ".join(described)


def _leave_out(findings: Mapping[str, Finding]) -> str:
    if all(map(_is_plugin, findings)):
        return f"set `enabled: false` for {_plugins(findings)}"
    return " and ".join(map(leave_out, findings))


def _is_plugin(requirer: str) -> bool:
    return in_words(requirer).startswith("plugin ")


def refuse_unknown_extras(release: str, extras: Sequence[str], known: Iterable[str], *, plugin: str) -> None:
    """Refuse extras that a release does not have, which are typing errors; pip only warns of them.

    Raises:
        NoResolution: one of them is not ``known``.
    """
    names = set(map(canonicalize_name, known))
    unknown = [extra for extra in extras if canonicalize_name(extra) not in names]
    if unknown:
        raise NoResolution(
            f"{release} has no {'extras' if unknown[1:] else 'extra'} {', '.join(unknown)}",
            expected=f"one of {', '.join(sorted(names))}" if names else "no extras: this release has none",
            found=", ".join(extras),
            required_by=f"plugin {plugin!r}",
            next_step="correct `extras` in plugins.yaml",
        )


def clash(lines: Sequence[str]) -> NoResolution:
    """The error for requirements that exclude one another."""
    return NoResolution(
        "the requirements of the plugins exclude one another",
        details=lines,
        next_step=f"set `enabled: false` for one of them in plugins.yaml, or name another `version`; {_NOT_YOURS}",
    )


def resolver_failed(
    error: CommandFailed, resolver: str, *, found_none: bool, is_here: bool = True, step: str | None = None
) -> NoResolution | SourceError:
    """The error where each plugin fits by itself, and the resolver failed: its own last lines say why.

    ``found_none``: it failed because no set of versions fits. ``is_here``: it resolved for this kind of machine, so
    that each resolver can be used. ``step`` takes the place of the next step.
    """
    lines = [error.what, *[line for line in error.stderr.splitlines() if line.strip()][-_LAST_LINES:]]
    other = "uv" if resolver != "uv" else "pip-compile"
    if step is None:
        step = (
            f"fix what its output names, or use the other resolver: vllm-plugins lock --resolver {other}"
            if is_here
            else "fix what its output names; only uv resolves for another machine or Python"
        )
    if resolver == "pip-compile" and "UnicodeDecodeError" in error.stderr:
        what = "pip can't read a page of the index, which is not valid UTF-8"
        return SourceError(what, details=lines[-1:], next_step=f"report it to the operator of the index; or {step}")
    if not found_none:
        return SourceError(f"{resolver} failed", details=lines, next_step=step)
    return NoResolution(f"{resolver} found no set of versions that fits all plugins", details=lines, next_step=step)


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


def missing_vllm(base: Base, names: Iterable[str]) -> BaseMismatch:
    """The error for a plugin that requires vLLM where there is none."""
    return BaseMismatch(
        "a plugin requires vllm, and this environment has none",
        expected="an environment in which vLLM is installed",
        found=f"Python {base.python} with {count(len(base.distributions), 'distribution')}",
        required_by=", ".join(dict.fromkeys(names)) or None,
        next_step="run `vllm-plugins base -o base.json` in the vLLM image, here `vllm-plugins lock --base base.json`",
    )
