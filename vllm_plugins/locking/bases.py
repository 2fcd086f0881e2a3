"""The base to lock against: this environment, a snapshot of another one, or the environment of a release of vLLM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.documents import base
from vllm_plugins.documents.manifest import HERE

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.locking._resolvers import Resolver
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import Settings

__all__ = ["read"]


def read(
    named: str | None,
    settings: Settings,
    *,
    reporter: Reporter,
    config: Callable[[], PipConfig] | None = None,
    python: str | None = None,
    platform: str | None = None,
    may_build: bool = True,
) -> Base:
    """The base to lock against: this environment, or the snapshot or release of vLLM that ``--base`` names.

    ``python`` and ``platform`` are the kind of machine of a release, by default this interpreter's.
    ``may_build``: see :func:`release_base.read`.

    Raises:
        UsageError: it names neither a snapshot nor a release.
        NoResolution: the release does not exist, or can't be resolved for this kind of machine.
    """
    if named in (None, HERE):
        return base.read()
    from vllm_plugins.core import scratch
    from vllm_plugins.locking import _resolvers, release_base
    from vllm_plugins.packages import pip_config
    from vllm_plugins.packages.index import Index

    if os.path.exists(named) or not release_base.is_release(named):
        return base.read_snapshot(Path(named))
    pip = (config or pip_config.read)()
    with scratch.directory() as temporary, Index(pip) as index:
        caches = settings.cache

        def resolver(empty: Base) -> Resolver:
            # pip would download every wheel, gigabytes of them, to read what it requires.
            cache = (caches or temporary) / "uv"
            return _resolvers.choose("uv", base=empty, config=pip, cache=cache, reporter=reporter)

        return release_base.read(
            named,
            resolver=resolver,
            index=index,
            caches=caches,
            scratch=temporary,
            reporter=reporter,
            empty=release_base.machine(python, platform),
            may_build=may_build,
        )
