"""Plugins whose package the base has already: used from there if the manifest accepts that version, else refused.

Nothing of the base is installed a second time. Only what the extras of such a package require is locked.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import BaseMismatch
from vllm_plugins.documents.base import satisfies
from vllm_plugins.documents.overrides import WHY_FIXED, is_fixed
from vllm_plugins.locking import _conflicts
from vllm_plugins.locking._search import suggested_overrides
from vllm_plugins.packages import requirement_lines
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vllm_plugins.documents.base import Base, Distribution
    from vllm_plugins.locking._preparation.prepared import PreparedPlugin

__all__ = ["notes", "settle"]

_NAME = re.compile(r"[A-Za-z0-9._-]+")  # the beginning of a requirement


def settle(plugins: Iterable[PreparedPlugin], base: Base) -> tuple[PreparedPlugin, ...]:
    """The plugins, with those marked as provided whose package the base has.

    Raises:
        BaseMismatch: the base has a package in another version than a plugin requires, or a plugin is built from a
            source.
        NoResolution: a package of the base does not have an extra that a plugin names.
    """
    every = tuple(plugins)
    there = {item.locked.name: base.get(item.locked.package) for item in every}
    refused = [(item, found) for item in every if (found := there[item.locked.name]) and not _fits(item, found)]
    if refused:
        raise BaseMismatch(
            f"the vLLM environment has {'another version' if len(refused) == 1 else 'other versions'} than "
            "plugins.yaml requires",
            details=[
                *(_line(item, found) for item, found in refused),
                *([WHY_FIXED] if any(is_fixed(found.name) for _, found in refused) else []),
            ],
            next_step=_next_step(*refused[0], base),
        )
    return tuple(item if (found := there[item.locked.name]) is None else _settled(item, found) for item in every)


def notes(plugins: Iterable[PreparedPlugin]) -> Iterator[str]:
    """A line for each plugin that is provided."""
    for item in plugins:
        locked = item.locked
        if locked.provided:
            yield f"plugin {locked.name!r} is provided by the vLLM environment: {locked.package} {locked.version}"


def _fits(plugin: PreparedPlugin, there: Distribution) -> bool:
    return plugin.wheel is None and satisfies(there.version, str(Requirement(plugin.requirement).specifier))


def _settled(plugin: PreparedPlugin, there: Distribution) -> PreparedPlugin:
    extras = sorted(Requirement(plugin.requirement).extras)
    release = f"{there.name} {there.version} of the vLLM environment"
    _conflicts.refuse_unknown_extras(release, extras, there.extras, plugin=plugin.locked.name)
    locked = plugin.locked.replace(version=there.version, provided=True)
    # The specifier is met. A resolver would compare it by its own rules for pre-releases.
    return replace(plugin, locked=locked, requirement=f"{there.name}{requirement_lines.bracketed(extras)}")


def _line(plugin: PreparedPlugin, there: Distribution) -> str:
    has = f"the base has {there.name} {there.version}"
    if plugin.wheel is None:
        return f"plugin {plugin.locked.name!r} requires {plugin.requirement}; {has}"
    return f"plugin {plugin.locked.name!r} is {plugin.locked.package} from its own source; {has}, which comes first"


def _next_step(plugin: PreparedPlugin, there: Distribution, base: Base) -> str:
    if plugin.wheel is None:
        whose = f"`version` of plugin {plugin.locked.name!r}"
        step = f"leave {whose} out of plugins.yaml to use {there.name} {there.version}"
        if is_fixed(there.name):
            return step
        return f"{step}; or, {suggested_overrides.advice({there.name: Requirement(plugin.requirement).specifier})}"
    removal = ""
    if base.is_here and (left := _left_by_a_build(there.name)) is not None:
        # pip can't uninstall it, and the next build would write it again.
        place, item = os.path.split(left)
        removal = (
            f"to use its own source, take {place} out of PYTHONPATH, as {item} of a build is there, and lock again; "
        )
    elif not is_fixed(there.name) and not _is_needed(there, base):
        removal = (
            f"to use its own source, run `python -m pip uninstall {there.name}` with the Python of vLLM "
            "(in an image: remove the line that installs it), and lock again; "
        )
    return (
        f"{removal}to use {there.name} {there.version} of the vLLM environment, write `source: pypi` and "
        f"`package: {there.name}` for plugin {plugin.locked.name!r} in plugins.yaml; else set `enabled: false` for it"
    )


def _left_by_a_build(name: str) -> str | None:
    """The ``.egg-info`` of a distribution that setuptools has left in a directory of PYTHONPATH, as in ``src``."""
    text = os.environ.get("PYTHONPATH", "")
    named = {os.path.realpath(entry) for entry in text.split(os.pathsep) if entry}
    for entry in overlay.base_paths():
        if os.path.realpath(entry) in named and os.path.isdir(entry):
            for item in sorted(os.listdir(entry)):
                stem, kind = os.path.splitext(item)
                if kind == ".egg-info" and canonicalize_name(stem.partition("-")[0]) == name:
                    return os.path.join(entry, item)
    return None


def _is_needed(there: Distribution, base: Base) -> bool:
    """Whether anything else of the base may require a distribution, so that the base would break without it."""
    lines = (
        line for item in base.distributions if item.name != there.name for line in (*item.ordinary, *item.requires)
    )
    names = (_NAME.match(line) for line in lines)
    return any(found is not None and canonicalize_name(found[0]) == there.name for found in names)
