"""Plugins, overrides and build requirements in two locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.documents._diff.pair import by_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_plugins.documents._diff.pair import Pair
    from vllm_plugins.documents.lock import BuildRequirement, Lock, Override, Plugin

__all__ = ["build_requirements", "overrides", "plugins"]


def plugins(old: Lock, new: Lock) -> Iterator[Pair[Plugin]]:
    """The plugins that differ in more than the version of their package."""
    return by_name(
        ((plugin.name, plugin) for plugin in old.plugins), ((plugin.name, plugin) for plugin in new.plugins), _lines
    )


def overrides(old: Lock, new: Lock) -> Iterator[Pair[Override]]:
    """The overrides that differ."""
    return by_name(
        ((str(item.package), item) for item in old.overrides),
        ((str(item.package), item) for item in new.overrides),
        _override_lines,
    )


def build_requirements(old: Lock, new: Lock) -> Iterator[Pair[BuildRequirement]]:
    """The build requirements that differ."""
    return by_name(
        ((item.pin, item) for item in old.build_requirements),
        ((item.pin, item) for item in new.build_requirements),
        _build_lines,
    )


def _build_lines(pin: str, was: BuildRequirement | None, now: BuildRequirement | None) -> Iterator[str]:
    if was is None or now is None:
        yield f"build requirement {pin}: {'added' if was is None else 'removed'}"
    elif was != now:
        yield f"build requirement {pin}: other files"


def _lines(name: str, was: Plugin | None, now: Plugin | None) -> Iterator[str]:
    if was is None or now is None:
        yield f"plugin {name}: {'added' if was is None else 'removed'}"
    else:
        yield from (f"plugin {name}: {change}" for change in _field_changes(was, now))
    for kind, before, after in (
        ("entry point", _entry_points(was), _entry_points(now)),
        ("`loads`", set(was.loads if was else ()), set(now.loads if now else ())),
    ):
        yield from (f"plugin {name}: adds {kind} {point}" for point in sorted(after - before))
        yield from (f"plugin {name}: removes {kind} {point}" for point in sorted(before - after))


def _field_changes(was: Plugin, now: Plugin) -> Iterator[str]:
    for label, before, after in (
        ("source", was.source, now.source),
        ("package", was.package, now.package),
        ("requested", was.requested, now.requested),
        ("url", was.url, now.url),
        ("index", was.index, now.index),
        ("address of its index", was.index_url, now.index_url),
        ("further build requirements", ", ".join(was.build_requires), ", ".join(now.build_requires)),
        ("built with, of the vLLM environment:", ", ".join(was.with_base), ", ".join(now.with_base)),
        ("subdirectory", was.subdirectory, now.subdirectory),
        ("commit", was.commit, now.commit),
        ("provided by the vLLM environment:", _provided(was), _provided(now)),
        ("required by its extras:", _names(was), _names(now)),
        ("editable", "yes" if was.editable else "no", "yes" if now.editable else "no"),
        ("metadata of the editable source", _short(was.project_sha256), _short(now.project_sha256)),
        ("source files", _short(was.tree_sha256), _short(now.tree_sha256)),
        ("filename", was.filename, now.filename),
        ("content of the file", _short(was.file_sha256), _short(now.file_sha256)),
        ("newest release, not locked:", was.passed_over, now.passed_over),
    ):
        if before != after:
            yield f"{label} {before or '-'} → {after or '-'}"


def _provided(plugin: Plugin) -> str | None:
    return f"{plugin.package} {plugin.version}" if plugin.provided else None


def _names(plugin: Plugin) -> str | None:
    return ", ".join(plugin.dependencies) or None


def _short(digest: str | None) -> str | None:
    return digest and digest[:12]


def _entry_points(plugin: Plugin | None) -> set[str]:
    return {f"{group}: {name} = {value}" for group, name, value in plugin.entry_points} if plugin else set()


def _override_lines(name: str, was: Override | None, now: Override | None) -> Iterator[str]:
    if was != now:
        yield f"override {name}: {_override(was)} → {_override(now)}"


def _override(override: Override | None) -> str:
    if override is None:
        return "-"
    against = ", ".join(f"{who} ({specifier})" for who, specifier in override.against)
    asked = f"{override.requested}: {override.reason}"
    return f"{override.version} for {override.replaces} ({asked})" + (f", against {against}" if against else "")
