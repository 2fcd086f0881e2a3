"""Write ``plugins.lock``: equal locks are equal bytes, in a layout for reviews."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from packaging.markers import Marker
from packaging.specifiers import SpecifierSet

from vllm_plugins.core.errors import LockInvalid
from vllm_plugins.documents import lock_reader, selection
from vllm_plugins.documents._form import build_requirements, merged, toml_text
from vllm_plugins.documents.lock_reader import FORMAT, FORMAT_OF_TARGETS, TOOL, content_sha256
from vllm_plugins.startup.settings import WHEELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vllm_plugins.documents._form.toml_text import Table
    from vllm_plugins.documents.lock import Identity, Lock, Override, Package, Plugin, Target, Wheel

__all__ = ["indistinct", "normal_form", "render"]

_T = TypeVar("_T")
_HEAD = "Written by `vllm-plugins lock`. Review it and commit it; it is never edited by hand."


def render(*locks: Lock) -> bytes:
    """The bytes of a lock file: sorted, without times and without paths of this machine.

    Several locks, or one whose target has a name, are the targets of one lock.

    Raises:
        LockInvalid: they could not be read again. That is a fault of ours, and must not replace a lock that works.
    """
    ordered = sorted(locks, key=_target_name)
    try:
        data = _render_all(list(map(normal_form, ordered))) if _target_name(ordered[0]) else _render(ordered[0])
    except ValueError as error:  # a marker or a specifier
        raise _not_readable(str(error)) from error
    if list(map(normal_form, lock_reader.parse_all(data, Path("plugins.lock")))) != list(map(normal_form, ordered)):
        raise _not_readable("other content")
    return data


def _not_readable(found: str) -> LockInvalid:
    return LockInvalid(
        "the new lock would not have the content that was resolved",
        found=found,
        next_step="report this, with plugins.yaml; the old lock is unchanged",
    )


def indistinct(locks: Sequence[Lock]) -> list[str]:
    """The targets that have the same marker and other packages, a line for each package that differs."""
    markers = merged.markers_of(
        {_target_name(lock): (lock.targets[0].python, lock.targets[0].platform) for lock in locks}
    )
    reasons = []
    for one, other in itertools.combinations(locks, 2):
        first, second = _target_name(one), _target_name(other)
        if markers[first] != markers[second]:
            continue
        for name in sorted({package.name for package in (*one.packages, *other.packages)}):
            if (here := one.package(name)) != (there := other.package(name)):
                versions = f"{here.version if here else 'none'} and {there.version if there else 'none'}"
                reasons.append(f"{first} and {second}: {name} {versions}")
    return reasons


def _target_name(lock: Lock) -> str:
    return (lock.targets[0].name or "") if lock.targets else ""


def normal_form(lock: Lock) -> Lock:
    """The lock as it is read from its file: everything in the order of the file, markers and specifiers normalized.

    Two locks with the same content differ otherwise, and ``lock --check`` would report a change.
    """
    return lock.replace(
        packages=tuple(
            package.replace(
                marker=None if package.marker is None else str(Marker(package.marker)),
                requires_python=None
                if package.requires_python is None
                else str(SpecifierSet(package.requires_python)),
                dependencies=tuple(sorted(package.dependencies)),
                wheels=tuple(_sorted(package.wheels)),
                identities=tuple(sorted(map(_identity, package.identities))),
            )
            for package in sorted(lock.packages, key=lambda package: package.name)
        ),
        plugins=tuple(
            plugin.replace(
                entry_points=tuple(sorted(plugin.entry_points)), dependencies=tuple(sorted(plugin.dependencies))
            )
            for plugin in sorted(lock.plugins, key=lambda plugin: plugin.name)
        ),
        targets=tuple(
            target.replace(base=tuple(sorted(target.base, key=lambda use: use.name))) for target in lock.targets
        ),
        environments=tuple(sorted(lock.environments)),
        overrides=tuple(
            override.replace(against=tuple(sorted(override.against)))
            for override in sorted(lock.overrides, key=lambda override: override.package)
        ),
        build_requirements=tuple(
            item.replace(wheels=tuple(_sorted(item.wheels)))
            for item in sorted(lock.build_requirements, key=lambda item: item.pin)
        ),
    )


def _identity(identity: Identity) -> Identity:
    return tuple(sorted(identity, key=lambda pair: (pair[0] != "kind", pair)))


def _render(lock: Lock) -> bytes:
    lock = normal_form(lock)
    return _document(
        lock,
        environments=list(lock.environments),
        packages=[_package(package) for package in lock.packages],
        targets=[_target(target) for target in lock.targets],
        overrides=[_override(item) for item in lock.overrides],
        built=[toml_text.table(build_requirements.fields(item)) for item in lock.build_requirements],
        plugins=[_plugin(plugin) for plugin in lock.plugins],
    )


def _render_all(locks: Sequence[Lock]) -> bytes:
    """One document of the locks of several targets: what is equal in all of them is written once."""
    by_name = {_target_name(lock): lock for lock in locks}
    kinds = {name: (lock.targets[0].python, lock.targets[0].platform) for name, lock in by_name.items()}
    markers = merged.markers_of(kinds)
    packages = _grouped({name: lock.packages for name, lock in by_name.items()}, key=lambda package: package.name)
    return _document(
        locks[0],
        environments=merged.environments(markers, {name: lock.environments for name, lock in by_name.items()}),
        packages=[_package_of_targets(package, names, markers) for package, names in packages],
        targets=[_target(lock.targets[0], environments=lock.environments) for lock in locks],
        overrides=[
            _of_targets(_override(item), names)
            for item, names in _grouped(
                {name: lock.overrides for name, lock in by_name.items()}, key=lambda item: item.package
            )
        ],
        built=[
            _of_targets(toml_text.table(build_requirements.fields(item)), names)
            for item, names in _grouped(
                {name: lock.build_requirements for name, lock in by_name.items()}, key=lambda item: item.pin
            )
        ],
        plugins=[
            _of_targets(_plugin(plugin), names)
            for plugin, names in _grouped(
                {name: lock.plugins for name, lock in by_name.items()}, key=lambda plugin: plugin.name
            )
        ],
    )


def _grouped(
    entries: Mapping[str, Sequence[_T]], *, key: Callable[[_T], str]
) -> list[tuple[_T, tuple[str, ...] | None]]:
    """Each entry once, sorted, with the names of the targets that have it; ``None`` for all of them."""
    found: dict[_T, tuple[str, ...]] = {}
    for name, items in entries.items():
        for item in items:
            found[item] = (*found.get(item, ()), name)
    ordered = sorted(found, key=lambda item: (key(item), found[item]))
    return [(item, None if len(found[item]) == len(entries) else found[item]) for item in ordered]


def _document(
    lock: Lock,
    *,
    environments: list[str],
    packages: list[Table],
    targets: list[Table],
    overrides: list[Table],
    built: list[Table],
    plugins: list[Table],
) -> bytes:
    by_key = {"targets": targets, "overrides": overrides, "build-requirements": built, "plugins": plugins}
    tool = toml_text.table(
        {
            "format": FORMAT_OF_TARGETS if _target_name(lock) else FORMAT,
            "manifest-sha256": lock.manifest_sha256,
            "manifest": lock.manifest_name,
            "content-sha256": "",
            **by_key,
        }
    )
    document = toml_text.table(
        {
            "lock-version": "1.0",
            "environments": environments,
            "created-by": "vllm-plugin-manager",
            "packages": packages,
            "tool": toml_text.Table({TOOL: tool}),
        }
    )
    document.setdefault("packages", [])  # PEP 751 requires the key even if there is nothing to install
    tool["content-sha256"] = content_sha256(document)
    return toml_text.dumps(document, comment=_HEAD).encode("utf-8")


def _sorted(wheels: Iterable[Wheel]) -> list[Wheel]:
    """Wheels by name; the highest build tag goes first, because pip takes the first wheel of a lock that fits."""
    by_name = sorted(wheels, key=lambda wheel: wheel.filename)
    return sorted(by_name, key=lambda wheel: selection.build_number(wheel.filename), reverse=True)


def _package(package: Package, *, marker: str | None = None, more: Mapping[str, Any] | None = None) -> Table:
    """A package; ``marker`` replaces its own, and ``more`` are further keys of our table."""
    table = toml_text.table(
        {
            "name": package.name,
            "version": package.version,
            "marker": package.marker if more is None else marker,
            "requires-python": package.requires_python,
            "dependencies": [{"name": name} for name in sorted(package.dependencies)],
            "directory": None,
            "index": package.index,
            "attestation-identities": [dict(identity) for identity in package.identities],
            "wheels": [_wheel(wheel) for wheel in _sorted(package.wheels)],
        }
    )
    if package.directory is not None:
        table["directory"] = {"path": package.directory, "editable": True}
    built = toml_text.table(
        {
            **(more or {}),
            "sdist-url": package.sdist_url,
            "sdist-sha256": package.sdist_sha256,
            "built-with": list(package.built_with),
            "find-links": package.find_links,
        }
    )
    if built:
        table["tool"] = toml_text.Table({TOOL: built})
    return table


def _package_of_targets(package: Package, names: tuple[str, ...] | None, markers: Mapping[str, str]) -> Table:
    """A package with the marker of its targets; our table has what a reader needs to tell its own marker from it."""
    more = {"targets": list(names or ()), "marker": package.marker}
    return _package(package, marker=merged.package_marker(names, package.marker, markers), more=more)


def _of_targets(table: Table, names: tuple[str, ...] | None) -> Table:
    if names is not None:
        table[merged.TARGETS] = list(names)
    return table


def _wheel(wheel: Wheel) -> dict[str, Any]:
    place = {"path": f"{WHEELS}/{wheel.filename}"} if wheel.url is None else {"url": wheel.url}
    return {"name": wheel.filename, **place, "size": wheel.size, "hashes": {"sha256": wheel.sha256}}


def _target(target: Target, *, environments: Sequence[str] = ()) -> Table:
    return toml_text.table(
        {
            "name": target.name,
            "environments": list(environments),
            "python": target.python,
            "platform": target.platform,
            "vllm": target.vllm,
            "base": [
                {
                    "name": use.name,
                    "version": use.version,
                    "required-by": [{"name": who, "specifier": specifier} for who, specifier in use.required_by],
                }
                for use in sorted(target.base, key=lambda use: use.name)
            ],
        }
    )


def _override(override: Override) -> Table:
    return toml_text.table(
        {
            "package": override.package,
            "version": override.version,
            "replaces": override.replaces,
            "requested": override.requested,
            "reason": override.reason,
            "against": [{"name": who, "specifier": specifier} for who, specifier in sorted(override.against)],
        }
    )


def _plugin(plugin: Plugin) -> Table:
    return toml_text.table(
        {
            "name": plugin.name,
            "source": plugin.source,
            "package": plugin.package,
            "version": plugin.version,
            "requested": plugin.requested,
            "index": plugin.index,
            "index-url": plugin.index_url,
            "url": plugin.url,
            "subdirectory": plugin.subdirectory,
            "commit-id": plugin.commit,
            "tree-sha256": plugin.tree_sha256,
            "editable": plugin.editable,
            "provided": plugin.provided,
            "dependencies": sorted(plugin.dependencies),
            "project-sha256": plugin.project_sha256,
            "filename": plugin.filename,
            "file-sha256": plugin.file_sha256,
            "loads": list(plugin.loads),
            "build-requires": list(plugin.build_requires),
            "with-base": list(plugin.with_base),
            "passed-over": plugin.passed_over,
            "entry-points": [
                {"group": group, "name": name, "value": value} for group, name, value in sorted(plugin.entry_points)
            ],
        }
    )
