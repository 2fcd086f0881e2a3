"""Environment variables that keep plugins away: ``VLLM_PLUGINS``, ``VLLM_TARGET_DEVICE``, and mistyped ones."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from vllm_plugins.documents.entry_point_names import HOOK, Names
from vllm_plugins.review import _vllm_groups
from vllm_plugins.startup.environment.mistyped import unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vllm_plugins.documents.state import State

__all__ = ["OURS", "allowlist", "device", "locked_names", "mistyped"]

OURS = HOOK
PLATFORM = "vllm.platform_plugins"
ENDPOINTS = "vllm.endpoint_plugins"
FREE = "vllm.logits_processors"  # VLLM_PLUGINS does not apply to this group

Texts = tuple[str, str, str]  # what, evidence, fix


def locked_names(state: State) -> Names:
    """Entry points of the locked plugins, with their plugins."""
    found: Names = {}
    for plugin in state.locked.lock.plugins if state.locked is not None else ():
        for group, name, _ in plugin.entry_points:
            found.setdefault(group, {})[name] = plugin.name
    return found


def allowlist(state: State, base: Names, environ: Mapping[str, str]) -> Iterator[Texts]:
    """Problems of ``VLLM_PLUGINS``. A fix only adds names to those that the user has chosen."""
    unknown_groups = _vllm_groups.lacks(state.base.vllm)
    settings = state.settings
    locked = {group: points for group, points in locked_names(state).items() if group not in unknown_groups}
    if settings.allowed is None:
        if names := sorted(locked.get(ENDPOINTS, ())):
            what = f"endpoint plugins are loaded only if VLLM_PLUGINS names them: {', '.join(names)}"
            # Setting the variable turns off what vLLM loads by default, so everything must be named.
            default = [points for group, points in base.items() if group not in (FREE, ENDPOINTS)]
            default += [points for group, points in locked.items() if group != FREE]
            yield what, "VLLM_PLUGINS is not set", _export({name for points in default for name in points})
        return
    evidence = f"VLLM_PLUGINS={shlex.quote(environ.get('VLLM_PLUGINS', ''))}"
    every = (*base.values(), *locked_names(state).values())
    known = {name for points in every for name in points} | {OURS}
    failed = {(failure.group, failure.name) for failure in state.failures}
    left_out = {
        name: f"{name} ({plugin}, {group})"
        for group, points in sorted(locked.items())
        for name, plugin in sorted(points.items())
        # An entry point that fails is better left out: the load check advises it.
        if not settings.lets_through(group, name) and (group, name) not in failed
    }
    chosen = {name for name in settings.allowed if name in known}
    chosen |= {name.strip() for name in settings.allowed if name.strip() in known}
    fix = _export(chosen | left_out.keys())
    if OURS not in settings.allowed:
        yield f"VLLM_PLUGINS does not name {OURS}: vLLM never calls the hook", evidence, fix
    # Without a lock, the names of its entry points are unknown.
    unknown = [name for name in settings.allowed if name and name not in known and state.locked is not None]
    if unknown:
        spaces = any(name != name.strip() for name in unknown)
        hint = " (vLLM splits at commas and keeps spaces)" if spaces else ""
        what = f"VLLM_PLUGINS names entry points that don't exist: {', '.join(map(repr, unknown))}{hint}"
        yield what, evidence, fix
    if left_out:
        endpoints = sorted(name for name in settings.allowed if name in locked.get(ENDPOINTS, {}))
        why = f"; naming the endpoint plugin {', '.join(endpoints)} turns off all others" if endpoints else ""
        yield f"VLLM_PLUGINS leaves out locked plugins: {', '.join(left_out.values())}{why}", evidence, fix


def _export(names: set[str]) -> str:
    return f"export VLLM_PLUGINS={','.join([OURS, *sorted(names - {OURS})])}"


def device(state: State, environ: Mapping[str, str]) -> Iterator[Texts]:
    """Platform plugins that ``VLLM_TARGET_DEVICE=cpu`` turns off (seen in vLLM 0.28 to 0.33)."""
    names = [name for name in locked_names(state).get(PLATFORM, {}) if state.settings.lets_through(PLATFORM, name)]
    if environ.get("VLLM_TARGET_DEVICE") == "cpu" and names:
        what = f"VLLM_TARGET_DEVICE=cpu turns off the locked platform plugin {', '.join(sorted(names))}"
        yield what, "VLLM_TARGET_DEVICE=cpu: vLLM does not call platform plugins", "unset VLLM_TARGET_DEVICE"


def mistyped(environ: Mapping[str, str]) -> Iterator[Texts]:
    """Variables that look like ones of ours, and that nothing reads."""
    for name, meant in unknown(environ).items():
        fix = f"unset {name}"
        if meant:
            fix = f"export {meant}={shlex.quote(environ[name])}; {fix}"
        yield f"{name} is not a variable of vllm-plugins: it has no effect", f"{name} is set", fix
