"""Walks over a page of links: a directory of wheels and sdists, read as any index is."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from tests.kit import projects
from vllm_plugins.core.progress import Reporter
from vllm_plugins.documents import base
from vllm_plugins.locking._search.candidates import Candidates
from vllm_plugins.locking._search.findings import Root
from vllm_plugins.locking._search.walk import Walk
from vllm_plugins.packages.index import Index
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.locking._search.findings import Finding

__all__ = ["BASE", "POINTS", "Links", "root"]

POINTS = {"vllm.general_plugins": {"it": "it:register"}}
BASE = base.of_here(
    (
        base.distribution(canonicalize_name("vllm"), "0.32.0", (), ()),
        base.distribution(canonicalize_name("torch"), "2.13.0+cpu", (), ()),
        base.distribution(canonicalize_name("ray"), "2.50", ("default",), ("aiohttp>=3; extra == 'default'",)),
    )
)


def root(text: str, plugin: str | None = None) -> Root:
    """A plugin from an index, by its requirement."""
    requirement = Requirement(text)
    return Root(
        plugin=plugin or requirement.name,
        name=canonicalize_name(requirement.name),
        extras=frozenset(map(canonicalize_name, requirement.extras)),
        specifier=requirement.specifier,
    )


@dataclass(kw_only=True)
class Links:
    """A directory of files, and what was reported while they were read."""

    directory: Path
    reported: list[str] = field(default_factory=list)

    def wheel(self, name: str, version: str = "1.0", **fields: Any) -> Path:
        """Add a wheel (see :func:`tests.kit.projects.wheel`)."""
        return projects.wheel(self.directory, name, version, **fields)

    def sdist(self, name: str, version: str = "1.0", **fields: Any) -> Path:
        """Add an sdist (see :func:`tests.kit.projects.sdist`)."""
        return projects.sdist(self.directory, name, version, **fields)

    @contextlib.contextmanager
    def walk(
        self,
        *roots: str | Root,
        base: Base = BASE,
        preferred: Mapping[NormalizedName, str] | None = None,
        config: PipConfig | None = None,
    ) -> Iterator[Walk]:
        """A walk from some plugins over these files, or those of another configuration."""
        with Index(config or PipConfig(index_url=None, find_links=(self.directory.as_uri(),))) as index:
            candidates = Candidates(base=base, index=index, caches=None, reporter=Reporter(line=self.reported.append))
            plugins = tuple(root(item) if isinstance(item, str) else item for item in roots)
            yield Walk(base=base, candidates=candidates, roots=plugins, preferred=preferred or {})

    def findings(self, *roots: str | Root, base: Base = BASE) -> dict[str, Finding]:
        """What rules plugins out."""
        with self.walk(*roots, base=base) as walk:
            return walk.run()

    def lines(self, *roots: str | Root) -> dict[str, str]:
        """The same as text."""
        return {name: str(found) for name, found in self.findings(*roots).items()}
