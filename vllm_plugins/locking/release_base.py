"""The base that a release of vLLM makes: its environment, resolved from the index and never installed.

For locking where neither vLLM nor a snapshot of its environment is available. Only metadata is fetched. It is
cached, because a release does not change.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_plugins.core import workers
from vllm_plugins.core.errors import CommandFailed, NoResolution, PluginsError, UsageError
from vllm_plugins.core.humanize import count
from vllm_plugins.core.progress import SILENT
from vllm_plugins.documents import base, versions
from vllm_plugins.locking import _conflicts
from vllm_plugins.locking._resolution import read_pins
from vllm_plugins.locking._search.candidates import Candidates, Obstacle
from vllm_plugins.locking._search.lookahead import Lookahead
from vllm_plugins.packages import cache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base, Distribution
    from vllm_plugins.locking._resolvers import Resolver
    from vllm_plugins.packages.index import Index
    from vllm_plugins.packages.metadata import Metadata
    from vllm_plugins.packages.releases import Pin

__all__ = ["is_release", "machine", "read"]

# Only uv resolves a release. A snapshot needs no resolver.
_ANOTHER_BASE = (
    "fix what its output names, name another release, or name a snapshot: `vllm-plugins base -o base.json` in the "
    "vLLM image, here `vllm-plugins lock --base base.json`"
)


def is_release(text: str) -> bool:
    """Whether ``--base`` names a release, ``vllm==0.32.0``, rather than a file."""
    try:
        requirement = versions.requirement(text)
    except InvalidRequirement:
        return False
    return bool(requirement.specifier) or canonicalize_name(text) == base.VLLM


def read(
    release: str,
    *,
    resolver: Callable[[Base], Resolver],
    index: Index,
    caches: Path | None,
    scratch: Path,
    reporter: Reporter,
    empty: Base | None = None,
    may_build: bool = True,
) -> Base:
    """The environment of a release, from the cache if it is there.

    ``empty`` is the kind of machine, without distributions (:func:`machine`), by default this interpreter's.
    ``caches`` is our cache directory, ``scratch`` an empty one. Sdists are built, to read what they require, only
    where wheels alone have no solution, and if that is allowed (``may_build``).

    Raises:
        UsageError: the requirement does not name exactly one release of vLLM.
        NoResolution: the release does not exist, or can't be resolved for this kind of machine.
        SourceError: the resolver failed for another reason.
    """
    requirement = Requirement(release)
    if not canonicalize_name(requirement.name).startswith("vllm"):
        raise _not_a_release("--base names a release of something other than vLLM", release)
    exact = [item for item in requirement.specifier if item.operator == "==" and not item.version.endswith(".*")]
    if len(exact) != 1 or len(requirement.specifier) != 1:
        raise _not_a_release("--base does not name exactly one release", release)
    empty = empty or base.of_here(())
    place = None
    if caches is not None:
        depends = (str(requirement), empty.python_minor, empty.markers, empty.platforms, index.places)
        digest = hashlib.sha256(repr(depends).encode()).hexdigest()[:12]
        place = caches / "bases" / f"{canonicalize_name(requirement.name)}{requirement.specifier}-{digest}.base"
        cached = _cached(place)
        if cached is not None:
            return cached
    (scratch / "requirements.in").write_text(f"{release}\n", encoding="utf-8")
    (scratch / "constraints.txt").touch()
    # The resolver most likely takes the newest release of everything, and it takes seconds.
    candidates = Candidates(base=empty, index=index, caches=caches, reporter=SILENT)
    ahead = Lookahead(base=empty, candidates=candidates, preferred={}, fixed=frozenset())
    read_ahead = workers.begin(lambda: ahead.requirements([requirement]))
    with reporter.step(f"Resolving the environment of {release} from the index"):
        pins = _pins(release, resolver(empty), empty, index, scratch, may_build=may_build)
    read_ahead()
    reading = f"Reading the metadata of its {count(len(pins), 'distribution')}"
    with reporter.step(reading), ThreadPoolExecutor(max_workers=16) as pool:
        distributions = list(pool.map(lambda pin: _distribution(pin, candidates), pins))
    environment = empty.replace(distributions=_with_vllm(distributions))
    if place is not None:
        cache.write(place, environment.to_json())
    return environment


def _compile(program: Resolver, scratch: Path, empty: Base, *, may_build: bool) -> None:
    try:
        program.compile(scratch, empty, builds=False)
    except CommandFailed as error:
        if not (may_build and program.found_none(error)):
            raise
        program.compile(scratch, empty)


def _pins(release: str, program: Resolver, empty: Base, index: Index, scratch: Path, *, may_build: bool) -> list[Pin]:
    """What the environment of a release consists of. Raises as :func:`read`."""
    try:
        _compile(program, scratch, empty, may_build=may_build)
    except CommandFailed as error:
        if not program.found_none(error):
            index.files(canonicalize_name(Requirement(release).name))  # an index that can't be read says why
            raise _conflicts.resolver_failed(error, program.name, found_none=False, step=_ANOTHER_BASE) from error
        raise NoResolution(
            f"the environment of {release} can't be resolved for this kind of machine",
            details=(*error.details[1:], *(() if may_build else ("only wheels count: a check builds nothing",))),
            next_step=f"{index.no_index_step}, or name a snapshot that `vllm-plugins base` wrote in the image"
            if index.no_index_step
            else "name a release that the index has, or a snapshot that `vllm-plugins base` wrote in the image",
        ) from error
    return [pin for pin in read_pins((scratch / "requirements.txt").read_text(encoding="utf-8")) if pin.url is None]


def machine(python: str | None, platform: str | None) -> Base:
    """A machine of this system with another Python (``3.12``) or architecture (``linux-aarch64``), without packages.

    Its bug-fix release and its C library are not known: the first one is assumed, and the library of this machine.

    Raises:
        UsageError: it is of another system.
    """
    here = base.of_here(())
    python, platform = python or here.python_minor, platform or here.platform
    system, _, was = here.platform.rpartition("-")
    if platform.rpartition("-")[0] != system:
        raise UsageError(
            "the environment of a release can only be resolved for this system",
            expected=f"a platform such as {here.platform}",
            found=platform,
            next_step="name a snapshot as `base`, which vllm-plugins base -o base.json writes there",
        )
    full, architecture = here.python if python == here.python_minor else f"{python}.0", platform.rpartition("-")[2]
    values = {
        "python_version": python,
        "python_full_version": full,
        "implementation_version": full,
        "platform_machine": architecture,
    }
    tags = (tag.removesuffix(was) + architecture for tag in here.platforms if tag.endswith(was))
    return here.replace(
        python=full,
        platform=platform,
        markers=tuple(sorted({**dict(here.markers), **values}.items())),
        platforms=tuple(tags),
    )


def _not_a_release(what: str, found: str) -> UsageError:
    return UsageError(
        what,
        expected="a file that vllm-plugins base wrote, or a release such as vllm==0.32.0",
        found=found,
        next_step="name one release: vllm-plugins lock --base vllm==0.32.0",
    )


def _cached(place: Path) -> Base | None:
    text = cache.read(place)
    try:
        return None if text is None else base.from_json(text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # written by another version of this program


def _distribution(pin: Pin, candidates: Candidates) -> Distribution:
    try:
        metadata = _metadata(pin, candidates)
    except PluginsError:
        metadata = None  # its extras stay unknown; name and version are what counts
    return base.distribution(
        pin.name, pin.version, metadata.extras if metadata else (), metadata.requires if metadata else ()
    )


def _metadata(pin: Pin, candidates: Candidates) -> Metadata | None:
    """What a pin requires; most likely it was read while the resolver ran."""
    version = Version(pin.version)
    candidate = next((found for found in candidates.all(pin.name) if found.version == version), None)
    if candidate is None or candidate.wheel is None:
        return None
    found = candidates.requirements(candidate)
    return None if isinstance(found, Obstacle) else found


def _with_vllm(distributions: list[Distribution]) -> tuple[Distribution, ...]:
    names = {found.name: found for found in distributions}
    owner = next((name for name in names if name.startswith("vllm-")), None)
    if base.VLLM not in names and owner is not None:
        names[base.VLLM] = base.as_vllm(names[owner])
    return tuple(names[name] for name in sorted(names))
