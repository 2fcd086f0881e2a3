"""Targets, and the distributions of the base that are used, in two locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.documents._diff.pair import Pair, by_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_plugins.documents.lock import BaseUse, Lock, Target

__all__ = ["base_uses", "environments", "targets"]


def environments(old: Lock, new: Lock) -> Iterator[Pair[tuple[str, ...]]]:
    """The markers of the environments that the lock is for, if they differ."""
    if old.environments != new.environments:
        was, now = old.environments or None, new.environments or None
        line = f"environments: {' or '.join(was or '-')} → {' or '.join(now or '-')}"
        yield Pair(name="environments", old=was, new=now, lines=(line,))


def targets(old: Lock, new: Lock) -> Iterator[Pair[Target]]:
    """The kinds of environment that differ. Only one of a kind can be in a lock."""
    return by_name(
        ((_kind(item), item) for item in old.targets), ((_kind(item), item) for item in new.targets), _target_lines
    )


def base_uses(old: Lock, new: Lock) -> Iterator[Pair[BaseUse]]:
    """The distributions of the base that locked packages require, where their version or a requirement differs."""

    def named(lock: Lock) -> Iterator[tuple[str, BaseUse]]:
        return ((f"base {use.name} ({_kind(target)})", use) for target in lock.targets for use in target.base)

    return by_name(named(old), named(new), _use_lines)


def _kind(target: Target) -> str:
    return target.kind if target.name is None else f"{target.name}, {target.kind}"


def _target_lines(name: str, was: Target | None, now: Target | None) -> Iterator[str]:
    before, after = _vllm(was), _vllm(now)
    if before != after:
        yield f"target {name}: {before} → {after}"


def _vllm(target: Target | None) -> str:
    if target is None:
        return "-"
    return f"vLLM {target.vllm}" if target.vllm else "no vLLM"


def _use_lines(name: str, was: BaseUse | None, now: BaseUse | None) -> Iterator[str]:
    if was != now:
        yield f"{name}: {_use(was)} → {_use(now)}"


def _use(use: BaseUse | None) -> str:
    if use is None:
        return "-"
    required_by = ", ".join(f"{name} requires {specifier or 'any'}" for name, specifier in use.required_by)
    return f"{use.version}, {required_by}"
