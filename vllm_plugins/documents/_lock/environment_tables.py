"""The form of what a lock says of the vLLM environment: its targets, what is used of them, and overrides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from vllm_plugins.core.fields import get, items
from vllm_plugins.documents._lock import values
from vllm_plugins.documents.lock import BaseUse, Override, Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["override_fields", "read_override", "read_target", "target_fields"]


def read_target(item: Any, here: str) -> Target:
    """Read a table of ``targets``.

    Raises:
        FieldError: it is not valid.
    """
    return Target(
        name=get(item, here, "name", str, default=None),
        python=values.python(get(item, here, "python", str), f"{here}.python"),
        platform=get(item, here, "platform", str),
        vllm=get(item, here, "vllm", str, default=None),
        base=tuple(_read_use(use, f"{here}.base[{i}]") for i, use in enumerate(items(item, here, "base"))),
    )


def read_override(item: Any, here: str) -> Override:
    """Read a table of ``overrides``.

    Raises:
        FieldError: it is not valid.
    """
    return Override(
        package=canonicalize_name(get(item, here, "package", str)),
        version=get(item, here, "version", str),
        replaces=get(item, here, "replaces", str),
        requested=values.requirement(get(item, here, "requested", str), f"{here}.requested"),
        reason=get(item, here, "reason", str),
        against=_read_dependents(item, here, "against"),
    )


def _read_use(use: Any, here: str) -> BaseUse:
    return BaseUse(
        name=canonicalize_name(get(use, here, "name", str)),
        version=get(use, here, "version", str),
        required_by=_read_dependents(use, here, "required-by"),
    )


def _read_dependents(item: Any, here: str, key: str) -> tuple[tuple[str, str], ...]:
    """Pairs of a name and the specifier that it requires."""
    found = []
    for i, dependent in enumerate(items(item, here, key)):
        place = f"{here}.{key}[{i}]"
        specifier = values.specifier(get(dependent, place, "specifier", str), f"{place}.specifier")
        found.append((get(dependent, place, "name", str), specifier))
    return tuple(found)


def target_fields(target: Target, *, environments: Sequence[str] = ()) -> dict[str, Any]:
    """The keys of a target, as they are written; ``environments`` are its finer markers in a lock with several."""
    return {
        "name": target.name,
        "environments": list(environments),
        "python": target.python,
        "platform": target.platform,
        "vllm": target.vllm,
        "base": [
            {"name": use.name, "version": use.version, "required-by": _dependents(use.required_by)}
            for use in target.base
        ],
    }


def override_fields(override: Override) -> dict[str, Any]:
    """The keys of an override, as they are written."""
    return {
        "package": override.package,
        "version": override.version,
        "replaces": override.replaces,
        "requested": override.requested,
        "reason": override.reason,
        "against": _dependents(override.against),
    }


def _dependents(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "specifier": specifier} for name, specifier in pairs]
