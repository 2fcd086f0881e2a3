"""The form of a lock with several targets: one PEP 751 document that contains a lock for each of them.

What is equal in all targets is written once. Everything else names its targets, and a package also has a marker that
says the same to pip and uv. :func:`split` undoes this: it returns a document for each target, in the form of a lock
that has only one, so that everything else is read and checked in one place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vllm_plugins.core.fields import FieldError, get, items, strings
from vllm_plugins.documents import versions
from vllm_plugins.documents.lock import TOOL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["environments", "is_merged", "markers_of", "package_marker", "split"]

TARGETS = "targets"
_SHARED = ("plugins", "overrides", "build-requirements")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SYSTEMS = {"linux": "linux", "macosx": "darwin", "win": "win32"}


def is_merged(document: Mapping[str, Any]) -> bool:
    """Whether a lock's targets have names; a document that is not a lock has none."""
    try:
        targets = document["tool"][TOOL][TARGETS]
        return any("name" in target for target in targets)
    except (KeyError, TypeError):
        return False


def markers_of(kinds: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """The marker of each target, by its name; ``kinds`` are pairs of a Python and a platform.

    The machine's architecture is in a marker only where it tells targets apart: wheels for others serve them as well.
    """
    return {name: _normal(_marker(python, platform, kinds.values())) for name, (python, platform) in kinds.items()}


def _marker(python: str, platform: str, kinds: Iterable[tuple[str, str]]) -> str:
    system, machine = _parts(platform)
    marker = f'python_version == "{python}" and sys_platform == "{_SYSTEMS.get(system, system)}"'
    machines = {_parts(other)[1] for version, other in kinds if version == python and _parts(other)[0] == system}
    return marker if len(machines) == 1 else f'{marker} and platform_machine == "{machine}"'


def _parts(platform: str) -> tuple[str, str]:
    return platform.partition("-")[0], platform.rpartition("-")[2]


def environments(markers: Mapping[str, str], fine: Mapping[str, Sequence[str]]) -> list[str]:
    """The ``environments`` of the document: the marker of each target, and of each finer condition of one."""
    found = [_both(marker, more) for name, marker in markers.items() for more in fine.get(name) or (None,)]
    return sorted(set(found))


def package_marker(names: Sequence[str] | None, own: str | None, markers: Mapping[str, str]) -> str | None:
    """The marker of a package: of its targets (``None`` for all of them) and of its ``own`` condition there."""
    if names is None:
        return None if own is None else _normal(own)
    of_targets = sorted({markers[name] for name in names})
    joined = of_targets[0] if len(of_targets) == 1 else " or ".join(f"({marker})" for marker in of_targets)
    return _both(joined, own)


def _both(one: str, other: str | None) -> str:
    return _normal(one if other is None else f"({one}) and ({other})")


def _normal(marker: str) -> str:
    return str(versions.marker(marker))


def split(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A document for each target, in the order of their names.

    Raises:
        FieldError: the targets, and the markers that pip and uv read, say something else.
    """
    here = f"tool.{TOOL}"
    tool = document["tool"][TOOL]
    targets = items(tool, here, TARGETS)
    tables = {_name(target, f"{here}.{TARGETS}[{i}]"): target for i, target in enumerate(targets)}
    if len(tables) != len(targets):
        raise FieldError(f"{here}.{TARGETS}: a name appears more than once")
    kinds = {
        name: (get(table, f"{here}.{TARGETS}", "python", str), get(table, f"{here}.{TARGETS}", "platform", str))
        for name, table in tables.items()
    }
    fine = {name: strings(table, f"{here}.{TARGETS}", "environments") for name, table in tables.items()}
    try:
        markers = markers_of(kinds)
        expected = environments(markers, fine)
        packages = list(_packages(document, markers))
    except ValueError as error:  # InvalidMarker
        raise FieldError(f"{here}.{TARGETS}: {error}") from error
    if (found := list(strings(document, "", "environments"))) != expected:
        raise FieldError(f"environments: expected those of the targets, {expected!r}, found {found!r}")
    shared = {key: _named(items(tool, here, key), f"{here}.{key}", tables) for key in _SHARED}
    return [
        {
            **{key: value for key, value in document.items() if key != "environments"},
            **({"environments": list(fine[name])} if fine[name] else {}),
            "packages": [package for names, package in packages if names is None or name in names],
            "tool": {
                **document["tool"],
                TOOL: {
                    **tool,
                    TARGETS: [{key: value for key, value in table.items() if key != "environments"}],
                    **{
                        key: [item for names, item in entries if names is None or name in names]
                        for key, entries in shared.items()
                        if entries
                    },
                },
            },
        }
        for name, table in sorted(tables.items())
    ]


def _name(target: Any, here: str) -> str:
    name: str = get(target, here, "name", str)
    if not _NAME.fullmatch(name):
        raise FieldError(f"{here}.name: expected the name of a target, found {name!r}")
    return name


def _named(entries: list[Any], here: str, known: Mapping[str, Any]) -> list[tuple[tuple[str, ...] | None, Any]]:
    """Each entry with the names of its targets, and without that key."""
    found = []
    for number, entry in enumerate(entries):
        names = _targets(entry, f"{here}[{number}]", known)
        found.append((names, {key: value for key, value in entry.items() if key != TARGETS}))
    return found


def _targets(table: Any, here: str, known: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names in the key ``targets`` of a table; ``None``, for all, without it."""
    get(table, here, TARGETS, list, default=[])  # it is a table
    if TARGETS not in table:
        return None
    names = strings(table, here, TARGETS)
    if not names or len(set(names)) != len(names) or not set(names) <= set(known):
        raise FieldError(f"{here}.{TARGETS}: expected names of {', '.join(sorted(known))}, found {list(names)!r}")
    return names


def _packages(
    document: Mapping[str, Any], markers: Mapping[str, str]
) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Any]]]:
    """Each package with its targets, as the lock of one of them has it."""
    for number, package in enumerate(get(document, "", "packages", list)):
        here = f"packages[{number}]"
        tool = get(get(package, here, "tool", dict, default={}), f"{here}.tool", TOOL, dict, default={})
        names = _targets(tool, f"{here}.tool.{TOOL}", markers)
        own = get(tool, f"{here}.tool.{TOOL}", "marker", str, default=None)
        marker = get(package, here, "marker", str, default=None)
        if names is not None and (twins := _twins(names, markers)):
            raise FieldError(f"{here}: markers can't tell its targets from {', '.join(twins)}")
        if (None if marker is None else _normal(marker)) != (expected := package_marker(names, own, markers)):
            raise FieldError(f"{here}.marker: expected that of its targets, {expected}, found {marker}")
        yield names, _of_one(package, tool, own)


def _twins(names: Iterable[str], markers: Mapping[str, str]) -> list[str]:
    """The other targets whose marker is also that of one of these."""
    there = {markers[name] for name in names}
    return sorted(name for name, marker in markers.items() if marker in there and name not in set(names))


def _of_one(package: Mapping[str, Any], tool: Mapping[str, Any], own: str | None) -> dict[str, Any]:
    of_ours = {key: value for key, value in tool.items() if key not in (TARGETS, "marker")}
    others = {key: value for key, value in package.get("tool", {}).items() if key != TOOL}
    rest = {key: value for key, value in package.items() if key not in ("marker", "tool")}
    tools = {**others, **({TOOL: of_ours} if of_ours else {})}
    return {**rest, **({} if own is None else {"marker": own}), **({"tool": tools} if tools else {})}
