"""Write ``plugins.lock``: equal locks are equal bytes, in a layout for reviews."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet

from vllm_plugins.core.errors import LockInvalid
from vllm_plugins.documents import lock_reader, selection
from vllm_plugins.documents.lock_reader import FORMAT, TOOL, content_sha256
from vllm_plugins.startup.settings import WHEELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tomlkit.items import AoT, Array, Table

    from vllm_plugins.documents.lock import Identity, Lock, Override, Package, Plugin, Target, Wheel

__all__ = ["normal_form", "render"]

_HEAD = "Written by `vllm-plugins lock`. Review it and commit it; it is never edited by hand."


def render(lock: Lock) -> bytes:
    """The bytes of a lock file: sorted, without times and without paths of this machine.

    Raises:
        LockInvalid: they could not be read again. That is a fault of ours, and must not replace a lock that works.
    """
    data = _render(lock)
    read = lock_reader.parse(data, Path("plugins.lock"))
    if normal_form(read) != normal_form(lock):
        raise LockInvalid(
            "the new lock would not have the content that was resolved",
            next_step="report this, with plugins.yaml; the old lock is unchanged",
        )
    return data


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
    )


def _identity(identity: Identity) -> Identity:
    return tuple(sorted(identity, key=lambda pair: (pair[0] != "kind", pair)))


def _render(lock: Lock) -> bytes:
    document = tomlkit.document()
    document.add(tomlkit.comment(_HEAD))
    document.add("lock-version", tomlkit.item("1.0"))
    if lock.environments:
        document.add("environments", _lines(sorted(lock.environments)))
    document.add("created-by", tomlkit.item("vllm-plugin-manager"))
    packages = sorted(lock.packages, key=lambda package: package.name)
    # PEP 751 requires the key even if there is nothing to install.
    document.add("packages", _tables(map(_package, packages)) if packages else tomlkit.array())
    tool = tomlkit.table()
    tool.add("format", FORMAT)
    tool.add("manifest-sha256", lock.manifest_sha256)
    tool.add("content-sha256", "")
    if lock.targets:
        tool.add("targets", _tables(map(_target, lock.targets)))
    if lock.overrides:
        tool.add("overrides", _tables(map(_override, sorted(lock.overrides, key=lambda item: item.package))))
    if lock.plugins:
        tool.add("plugins", _tables(map(_plugin, sorted(lock.plugins, key=lambda plugin: plugin.name))))
    parent = tomlkit.table(is_super_table=True)
    parent.add(TOOL, tool)
    document.add("tool", parent)
    tool["content-sha256"] = content_sha256(document.unwrap())
    return tomlkit.dumps(document).encode("utf-8")


def _tables(tables: Iterable[Table]) -> AoT:
    array = tomlkit.aot()
    for table in tables:
        array.append(table)
    return array


def _table(fields: Mapping[str, Any]) -> Table:
    table = tomlkit.table()
    for key, value in fields.items():
        if value is not None and value != [] and value is not False:
            table.add(key, _lines(value) if isinstance(value, list) else value)
    return table


def _lines(values: Iterable[Any]) -> Array:
    array = tomlkit.array()
    array.multiline(multiline=True)
    for value in values:
        array.append(_inline(value) if isinstance(value, dict) else value)
    return array


def _inline(fields: Mapping[str, Any]) -> Any:
    table = tomlkit.inline_table()
    for key, value in fields.items():
        table.append(key, _inline(value) if isinstance(value, dict) else value)
    return table


def _sorted(wheels: Iterable[Wheel]) -> list[Wheel]:
    """Wheels by name; the highest build tag goes first, because pip takes the first wheel of a lock that fits."""
    by_name = sorted(wheels, key=lambda wheel: wheel.filename)
    return sorted(by_name, key=lambda wheel: selection.build_number(wheel.filename), reverse=True)


def _package(package: Package) -> Table:
    table = _table(
        {
            "name": package.name,
            "version": package.version,
            "marker": package.marker,
            "requires-python": package.requires_python,
            "dependencies": [{"name": name} for name in sorted(package.dependencies)],
            "directory": None,
            "index": package.index,
            "attestation-identities": [dict(identity) for identity in package.identities],
            "wheels": [_wheel(wheel) for wheel in _sorted(package.wheels)],
        }
    )
    if package.directory is not None:
        table.add("directory", _inline({"path": package.directory, "editable": True}))
    built = _table(
        {
            "sdist-url": package.sdist_url,
            "sdist-sha256": package.sdist_sha256,
            "built-with": list(package.built_with),
            "find-links": package.find_links,
        }
    )
    if built:
        tool = tomlkit.table(is_super_table=True)
        tool.add(TOOL, built)
        table.add("tool", tool)
    return table


def _wheel(wheel: Wheel) -> dict[str, Any]:
    place = {"path": f"{WHEELS}/{wheel.filename}"} if wheel.url is None else {"url": wheel.url}
    return {"name": wheel.filename, **place, "size": wheel.size, "hashes": {"sha256": wheel.sha256}}


def _target(target: Target) -> Table:
    return _table(
        {
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
    return _table(
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
    return _table(
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
