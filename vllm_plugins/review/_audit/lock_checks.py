"""Checks of a lock that need only the lock and the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.documents import consistency

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_plugins.review._audit.auditor import Auditor, Finding

__all__ = ["run"]

_WHO = "find out who changed the lock and why; then run vllm-plugins lock, and review the difference"


def run(auditor: Auditor) -> Iterator[Finding]:
    """Every finding of these checks."""
    yield from _contradictions(auditor)
    for package in auditor.lock.packages:
        if package.directory is not None:
            what = f"is editable: {package.directory} has no hash, and is used as it is when vLLM starts"
            step = "remove `editable: true` in plugins.yaml, then run vllm-plugins lock"
            yield auditor.finding("unhashed", package, what, step)
        elif unhashed := consistency.unhashed(auditor.lock, package):
            what = f"was built with packages of which the lock has no hash: {', '.join(unhashed)}"
            yield auditor.finding("unhashed", package, what, "run vllm-plugins lock, and review the difference")
        if package.directory is not None:
            continue
        if package.sdist_sha256 is not None:
            what = "has no wheel at its index; its wheel was built from the sdist on the machine that locked"
            yield auditor.finding(
                "no-wheel", package, what, "review that wheel, or ask the project to publish wheels"
            )
        elif package.find_links:
            what = "comes from a directory of find-links; only that directory has its wheel"
            yield auditor.finding("local-wheel", package, what, "review that wheel, or publish it at an index")
    for override in auditor.lock.overrides:
        against = ", ".join(f"{who} of it requires {specifier}" for who, specifier in override.against)
        what = f"overrides {override.replaces} of the vLLM environment ({override.reason})"
        step = "review the reason; remove it from `overrides` in plugins.yaml once the environment has such a version"
        package_of = auditor.lock.package(override.package)
        yield auditor.finding("override", package_of, f"{what}; {against}" if against else what, step)
    for plugin in auditor.lock.plugins:
        package_of = auditor.lock.package(plugin.package)
        if package_of is not None and not (plugin.entry_points or plugin.loads or plugin.filename):
            what = f"has no entry point in vLLM's groups: vLLM loads plugin {plugin.name!r} only where you name it"
            yield auditor.finding("no-entry-point", package_of, what, "check that it is the right distribution")


def _contradictions(auditor: Auditor) -> Iterator[Finding]:
    lock, manifest = auditor.lock, auditor.manifest
    for package in consistency.orphans(lock):
        yield auditor.finding("orphan", package, "is required by no plugin", _WHO)
    for package, why in consistency.foreign_wheels(lock):
        yield auditor.finding("local-wheel", package, f"has a wheel of another origin: {why}", _WHO)
    for line in consistency.claims(lock):
        yield auditor.finding("contradiction", None, line, _WHO)
    if manifest is None:
        return
    if manifest.sha256 == lock.manifest_sha256:
        for line in consistency.with_manifest(lock, manifest):
            yield auditor.finding("contradiction", None, line, _WHO)
    else:
        what = "was rolled back: plugins.yaml has changed since"
        if manifest.sha256 not in lock.accepted_manifests:
            what = "was not made from this plugins.yaml"
        yield auditor.finding("contradiction", None, what, "run vllm-plugins lock, and review the difference")
    if auditor.policy != manifest.policy:
        what = "plugins.yaml has another policy than the one of this audit"
        yield auditor.finding("policy-changed", None, what, "review the change of `policy:` in plugins.yaml")
