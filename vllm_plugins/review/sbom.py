"""A lock as a software bill of materials in CycloneDX 1.6, written by CycloneDX's own library.

The same lock gives the same document: the serial number is derived from the lock's bytes, and the document has a time
only if ``SOURCE_DATE_EPOCH`` is set.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import TYPE_CHECKING, Any

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from vllm_plugins.core.hashes import sha256
from vllm_plugins.startup.settings import WHEELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_plugins.documents.lock import BuildRequirement, Lock, Override, Package, Plugin, Wheel

__all__ = ["render"]

_PREFIX = "vllm-plugins"


def render(lock: Lock, data: bytes, *, epoch: int | None = None) -> str:
    """The document as JSON. ``data`` are the lock's bytes, ``epoch`` is in seconds since 1970."""
    digest = sha256(data)
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, digest))
    root = Component(name="plugins", type=ComponentType.APPLICATION, bom_ref="plugins", version=digest[:12])
    bom.metadata.component = root
    overrides = {item.package: item for item in lock.overrides}
    if epoch is not None:
        bom.metadata.timestamp = dt.datetime.fromtimestamp(epoch, dt.UTC)
    plugins = {plugin.package: plugin for plugin in lock.plugins}
    components = {
        str(package.name): _package(package, plugins.get(package.name), overrides.get(package.name))
        for package in lock.packages
    }
    base = {str(use.name): use for target in lock.targets for use in target.base}
    components |= {
        f"base {name}": Component(
            name=name,
            version=use.version,
            type=ComponentType.LIBRARY,
            bom_ref=f"base {name}",
            purl=PackageURL("pypi", name=name, version=use.version),
            scope=ComponentScope.EXCLUDED,  # it belongs to the vLLM environment
            properties=[Property(name=f"{_PREFIX}:base", value="true")],
        )
        for name, use in base.items()
    }
    components |= {f"build {item.pin}": _build_requirement(item) for item in lock.build_requirements}
    for component in components.values():
        bom.components.add(component)
    packages = [*components]
    roots = [name for plugin in lock.plugins for name in _names(plugin) if name in packages]
    roots += [str(item.package) for item in lock.overrides]
    bom.register_dependency(root, [components[name] for name in dict.fromkeys(roots)])
    for package in lock.packages:
        needs = [components[str(name)] for name in package.dependencies if str(name) in components]
        uses = [name for name, use in base.items() if any(who == package.name for who, _ in use.required_by)]
        bom.register_dependency(
            components[str(package.name)], [*needs, *(components[f"base {name}"] for name in uses)]
        )
    document: Any = json.loads(JsonV1Dot6(bom).output_as_string())
    if epoch is None:
        document["metadata"].pop("timestamp", None)
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _names(plugin: Plugin) -> list[str]:
    """The components of a plugin: its package, or the base's and what the extras of that require."""
    return [f"base {plugin.package}" if plugin.provided else str(plugin.package), *map(str, plugin.dependencies)]


def _package(package: Package, plugin: Plugin | None, override: Override | None) -> Component:
    source = {"vcs_url": f"git+{plugin.url}@{plugin.commit}"} if plugin is not None and plugin.commit else None
    is_file = plugin is not None and plugin.filename is not None  # no index has it
    if plugin is not None and plugin.index_url is not None:
        source = {"repository_url": plugin.index_url}
    component = Component(
        name=package.name,
        version=package.version,
        type=ComponentType.FILE if is_file else ComponentType.LIBRARY,
        bom_ref=str(package.name),
        purl=PackageURL(
            "generic" if is_file else "pypi", name=package.name, version=package.version, qualifiers=source
        ),
        hashes=[_hash(wheel) for wheel in package.wheels] if len(package.wheels) == 1 else None,
        properties=[
            Property(name=f"{_PREFIX}:{name}", value=value) for name, value in _properties(package, plugin, override)
        ],
    )
    for wheel in package.wheels:
        component.external_references.add(
            ExternalReference(
                type=ExternalReferenceType.DISTRIBUTION,
                url=XsUri(wheel.url or f"{WHEELS}/{wheel.filename}"),
                comment=wheel.filename,
                hashes=[_hash(wheel)],
            )
        )
    if plugin is not None and plugin.url:
        kind = ExternalReferenceType.SOURCE_DISTRIBUTION if is_file else ExternalReferenceType.VCS
        component.external_references.add(
            ExternalReference(type=kind, url=XsUri(plugin.url), comment=plugin.commit or plugin.filename)
        )
    return component


def _build_requirement(item: BuildRequirement) -> Component:
    """A package that wheels were built with, and that is not installed."""
    component = Component(
        name=item.name,
        version=item.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"build {item.pin}",
        purl=PackageURL("pypi", name=item.name, version=item.version),
        scope=ComponentScope.EXCLUDED,
        properties=[Property(name=f"{_PREFIX}:build-requirement", value="true")],
    )
    for wheel in item.wheels:
        reference = ExternalReference(
            type=ExternalReferenceType.DISTRIBUTION,
            url=XsUri(wheel.url or wheel.filename),
            comment=wheel.filename,
            hashes=[_hash(wheel)],
        )
        component.external_references.add(reference)
    return component


def _hash(wheel: Wheel) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=wheel.sha256)


def _properties(package: Package, plugin: Plugin | None, override: Override | None) -> Iterator[tuple[str, str]]:
    if override is not None:
        yield "overrides", f"{override.package} {override.replaces} of the vLLM environment"
        yield "override-reason", override.reason
        yield from (("override-against", f"{who} {specifier}") for who, specifier in override.against)
    if package.directory is not None:
        yield "editable", package.directory
    for built in package.built_with:
        yield "built-with", built
    if plugin is not None:
        fields = (
            ("plugin", plugin.name),
            ("source", plugin.source),
            ("requested", plugin.requested),
            ("subdirectory", plugin.subdirectory),
            ("commit-id", plugin.commit),
            ("tree-sha256", plugin.tree_sha256),
            ("filename", plugin.filename),
            ("file-sha256", plugin.file_sha256),
        )
        yield from ((name, value) for name, value in fields if value)
        for group, name, value in plugin.entry_points:
            yield "entry-point", f"{group}: {name} = {value}"
