"""What a build gets beyond what its project declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.lock import BuildRequirement

__all__ = ["BuildInputs"]


class _Configured(Protocol):
    """A plugin of plugins.yaml or of a lock, which have the same ``build``."""

    @property
    def build_requires(self) -> tuple[str, ...]: ...

    @property
    def with_base(self) -> tuple[NormalizedName, ...]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildInputs:
    """What a build gets beyond what its project declares. Equal inputs can share an environment.

    ``requires`` are further build requirements, and ``with_base`` distributions that come from the base, whatever the
    requirements say of them: both are what plugins.yaml says. ``pins`` (``name==version``) are constraints and no
    requirements: a lock can't bring a distribution into a build that nothing there requires, and some would run by
    themselves (hooks of setuptools). ``locked`` are the files that pins may be; ``None`` where no lock names them.
    """

    requires: frozenset[str] = frozenset()
    with_base: frozenset[NormalizedName] = frozenset()
    pins: frozenset[str] = frozenset()
    locked: frozenset[BuildRequirement] | None = None

    @classmethod
    def of(
        cls,
        plugin: _Configured | None,
        *,
        pins: Iterable[str] = (),
        locked: Iterable[BuildRequirement] | None = None,
    ) -> BuildInputs:
        """The inputs that a plugin has in plugins.yaml or in a lock; ``None`` is a dependency, which has none."""
        return cls(
            requires=frozenset(plugin.build_requires if plugin is not None else ()),
            with_base=frozenset(map(canonicalize_name, plugin.with_base if plugin is not None else ())),
            pins=frozenset(pins),
            locked=None if locked is None else frozenset(locked),
        )
