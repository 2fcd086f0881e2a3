"""Why is my plugin not active? Each finding is a problem, its evidence, and one command or change that fixes it.

Some checks are those of ``documents.state``, so whatever makes ``status`` fail is reported here, too.
"""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import stat
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core import foreign_json, regular_file
from vllm_plugins.core.errors import PluginsError
from vllm_plugins.core.redact import redact
from vllm_plugins.documents import entry_point_names
from vllm_plugins.review import _doctor_variables, _modules, _vllm_groups, base_problems, drift
from vllm_plugins.startup import last_failure, overlay, permissions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from vllm_plugins.documents.entry_point_names import Names
    from vllm_plugins.documents.state import State

__all__ = ["Check", "Finding", "Report", "examine"]

_HOOKS = ("vllm.platform_plugins", "vllm.general_plugins")
_PLAIN = "an earlier release has written the link, which puts the overlay on the path without a guard"
_OPEN = "an earlier release has written the link, by which files of the overlay can run in this command, too"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One problem: ``what`` is wrong, the ``evidence``, and a command or change to ``fix`` it.

    ``error`` is the id of the error that other commands report for it, if there is one.
    """

    what: str
    evidence: str
    fix: str
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One check: its subject, and the number of its findings."""

    subject: str
    findings: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All findings, the most general first; all checks; and ``notes``, which are facts that need no fix."""

    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """The input of the checks. ``points`` are the entry points of the base."""

    state: State
    points: Names
    environ: Mapping[str, str]
    plain_link: str | None
    open_link: str | None


def examine(
    state: State, environ: Mapping[str, str], *, plain_link: str | None = None, open_link: str | None = None
) -> Report:
    """Run each check. Nothing is changed, and no network is used.

    ``plain_link`` and ``open_link`` are the paths of links to the overlay that earlier releases have written: without
    a guard, and one by which the commands of this package can import from the overlay.
    """
    case = _Case(
        state=state, points=entry_point_names.of_base(), environ=environ, plain_link=plain_link, open_link=open_link
    )
    findings: list[Finding] = []
    checks: list[Check] = []
    for subject, check in _CHECKS.items():
        found = list(check(case))
        findings += found
        checks.append(Check(subject=subject, findings=len(found)))
    return Report(findings=tuple(findings), checks=tuple(checks), notes=tuple(_notes(case)))


def _interpreter(case: _Case) -> Iterator[Finding]:
    if case.state.base.vllm is None:
        other = _other_interpreter()
        yield Finding(
            what="the Python interpreter of this command has no vLLM",
            evidence=f"{sys.executable} can't import vllm" + (f"; the command vllm uses {other}" if other else ""),
            fix=f"use the interpreter that runs vLLM: {other or 'python'} -m pip install {_ourselves()}",
        )
    missing = [group for group in _HOOKS if _doctor_variables.OURS not in case.points.get(group, {})]
    if missing:
        yield Finding(
            what="vLLM does not find the hook",
            evidence=f"{sys.prefix} has no entry point {_doctor_variables.OURS} in {' and '.join(missing)}",
            fix=f"{shlex.quote(sys.executable)} -m pip install --force-reinstall --no-deps {_ourselves()}",
        )


def _ourselves() -> str:
    """A requirement for pip: the place that this package came from, if it is still there, or name and version."""
    name = "vllm-plugin-manager"
    try:
        ours = importlib.metadata.distribution(name)
        url: str = foreign_json.read(ours.read_text("direct_url.json") or "{}").get("url", "")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return name
    path = regular_file.of_url(url) if url.startswith("file://") else None
    if not url or (path is not None and not os.path.exists(path)):
        return f"{name}=={ours.version}"
    return shlex.quote(redact(path or url))


def _other_interpreter() -> str | None:
    """The interpreter in the first line of the ``vllm`` on the PATH."""
    script = shutil.which("vllm")
    if script is None:
        return None
    line = regular_file.read_bytes(script, 1000).partition(b"\n")[0].decode("utf-8", "replace").strip()
    return line.removeprefix("#!").strip() if line.startswith("#!/") else None


def _environment(case: _Case) -> Iterator[Finding]:
    if case.plain_link is not None and case.state.settings.verify:
        yield Finding(
            what=f"the linked overlay is not verified before vLLM imports it: {_PLAIN}",
            evidence=f"VLLM_PLUGIN_VERIFY=1; {case.plain_link}",
            fix="vllm-plugins sync --bake",
        )
    if case.state.settings.disabled:
        yield Finding(what="the hook is disabled", evidence="VLLM_PLUGIN_DISABLE=1", fix="unset VLLM_PLUGIN_DISABLE")
    texts = (
        *_doctor_variables.mistyped(case.environ),
        *_doctor_variables.allowlist(case.state, case.points, case.environ),
        *_doctor_variables.device(case.state, case.environ),
        *_vllm_groups.rust(_doctor_variables.locked_names(case.state), case.environ),
    )
    yield from (Finding(what=what, evidence=evidence, fix=fix) for what, evidence, fix in texts)


def _agreement(case: _Case) -> Iterator[Finding]:
    yield from map(_from_error, case.state.problems)


def _from_error(error: PluginsError) -> Finding:
    parts = (
        error.where,
        *error.details,
        error.expected and f"expected {error.expected}",
        error.found and f"found {error.found}",
    )
    return Finding(
        what=error.what,
        evidence="; ".join(filter(None, parts)),
        fix=error.next_step or "vllm-plugins status",
        error=error.id,
    )


def _local_sources(case: _Case) -> Iterator[Finding]:
    yield from map(_from_error, drift.local_sources(case.state, case.environ))


def _entry_points(case: _Case) -> Iterator[Finding]:
    locked = case.state.locked
    for point in entry_point_names.of_lock(locked.lock) if locked is not None else ():
        try:
            entry_point_names.check([point], case.points)
        except PluginsError as error:
            yield _from_error(error)


def _copies(case: _Case) -> Iterator[Finding]:
    """Distributions of the lock that the base has, too, including leftovers such as egg-info.

    Nothing is removed from the base: locked again, its copy is used, or the error says what there is to do.
    """
    locked = {package.name for package in case.state.locked.lock.packages} if case.state.locked is not None else set()
    for entry in overlay.base_paths() if locked else ():
        for item in sorted(os.listdir(entry)) if os.path.isdir(entry) else ():
            stem, _, kind = item.rpartition(".")
            name = canonicalize_name(stem.partition("-")[0])
            if kind in ("dist-info", "egg-info", "egg-link") and name in locked:
                path = os.path.join(entry, item)
                yield Finding(
                    what=f"vLLM's environment has another copy of {name}, which is imported instead",
                    evidence=path,
                    fix="vllm-plugins lock"
                    if case.state.base.get(name) is not None
                    else f"make the vLLM environment again, without {path}",
                )


def _shadowed(case: _Case) -> Iterator[Finding]:
    yield from map(_from_error, drift.hidden_modules(case.state))


def _store(case: _Case) -> Iterator[Finding]:
    yield from map(_from_error, drift.others_can_write(case.state))
    yield from map(_from_error, drift.other_nodes(case.state, case.environ))
    store = case.state.settings.store
    if not store.exists():
        return
    if not os.access(store, os.W_OK) and case.state.marker is None and not case.state.settings.frozen:
        status = store.stat()
        yield Finding(
            what="this user can't install into the store",
            evidence=f"{store} belongs to uid {status.st_uid} and has mode {stat.S_IMODE(status.st_mode):04o}; "
            f"this is uid {os.getuid()}",
            fix="export VLLM_PLUGIN_REGISTRY_DIR=DIRECTORY, a directory that this user can write",
        )


def _notes(case: _Case) -> Iterable[str]:
    yield from _next_to_user(case)
    yield from _links(case)
    if (refused := permissions.refused_cache(case.state.settings)) is not None:
        yield f"the cache is not used, so everything is downloaded again: {refused.what}; next: {refused.next_step}"
    yield from base_problems.problems()
    if case.state.is_empty:
        yield case.state.summary
    yield from _vllm_groups.too_new(case.state.base.vllm, _doctor_variables.locked_names(case.state))
    if (marker := case.state.marker) is not None:
        site = str(overlay.directory(case.state.settings.store, marker.key) / overlay.SITE)
        yield from _vllm_groups.omni(_modules.top_level(site), is_linked=site in map(overlay.real, overlay.entries()))
    if case.state.is_rolled_back:
        yield "the lock was rolled back, and plugins.yaml asks for something else; to go forward: vllm-plugins lock"
    for plugin in case.state.locked.lock.plugins if case.state.locked is not None else ():
        if plugin.provided:
            yield (
                f"plugin {plugin.name!r} is provided by the vLLM environment ({plugin.package} {plugin.version} when "
                "it was locked): its files and entry points are those of the environment"
            )
        elif plugin.filename is not None:
            how = f"vllm-plugins path {plugin.name} prints its path"
            yield f"plugin {plugin.name!r} is the file {plugin.filename}: vLLM loads it where you name it; {how}"
        elif not plugin.entry_points and not plugin.loads:
            yield (
                f"plugin {plugin.name!r} has no vLLM entry point: vLLM loads it where you name it; "
                "to have that checked, add `loads: [module:attribute]` in plugins.yaml"
            )


def _links(case: _Case) -> Iterator[str]:
    """The link of an earlier release."""
    if case.plain_link is not None:
        if not case.state.settings.verify:
            yield f"{case.plain_link}: {_PLAIN}; before you set VLLM_PLUGIN_VERIFY=1, run vllm-plugins sync --bake"
    elif case.open_link is not None:
        yield f"{case.open_link}: {_OPEN}; replace it with vllm-plugins sync --bake"


def _next_to_user(case: _Case) -> Iterator[str]:
    """Modules of the working directory with the name of a plugin's module."""
    if case.state.marker is None:
        return
    site = overlay.directory(case.state.settings.store, case.state.marker.key) / overlay.SITE
    for clash in _modules.clashes(str(site), [os.getcwd()]):
        if clash.hides and clash.path:
            yield (
                f"the working directory has a module {clash.name}, like the lock: {clash.path}; the hook refuses to "
                "start vLLM with `python -m` here, which would import it; the command vllm does not look here"
            )


def _last_start(case: _Case) -> Iterator[Finding]:
    """The note that the hook writes when a start fails. The next start that succeeds removes it."""
    failure = last_failure.read(case.state.settings)
    if failure is None or any(problem.what == failure.error.what for problem in case.state.problems):
        return
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(failure.at))
    found = _from_error(failure.error)
    since = f"changed since: {', '.join(failure.changed)}" if failure.changed else ""
    yield Finding(
        what=f"the last start of vLLM failed: {found.what}",
        evidence="; ".join(filter(None, (when, f"VLLM_PLUGIN_ON_ERROR={failure.on_error}", found.evidence, since))),
        fix="start vLLM again, which removes this note if it succeeds" if failure.changed else found.fix,
        error=found.error,
    )


_CHECKS: dict[str, Callable[[_Case], Iterator[Finding]]] = {
    "interpreter and hook": _interpreter,
    "environment variables": _environment,
    "plugins.yaml, plugins.lock, vLLM environment and overlay": _agreement,
    "local sources": _local_sources,
    "names of entry points": _entry_points,
    "copies of distributions": _copies,
    "names of modules": _shadowed,
    "permissions of lock, manifest and store": _store,
    "the last start of vLLM": _last_start,
}
