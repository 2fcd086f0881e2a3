"""Checks of a lock against its indexes: licences, changed and withdrawn files, ages and publishers."""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import PluginsError, archive_errors
from vllm_plugins.core.humanize import count
from vllm_plugins.documents import selection
from vllm_plugins.packages import archives, attestations, simple_api
from vllm_plugins.review._audit import licenses, provenance
from vllm_plugins.review._audit.auditor import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from vllm_plugins.documents.lock import Package
    from vllm_plugins.packages.index import Index
    from vllm_plugins.review._audit.auditor import Auditor, Finding, NotRun
    from vllm_plugins.review._audit.provenance import Published
    from vllm_plugins.startup.settings import Settings

__all__ = ["OF_INDEX", "Facts", "run"]

_THREADS = 8
OF_INDEX = ("changed", "yanked", "young", "attestation", "no-attestation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Facts about a package. ``uploaded`` is a date; ``publishers`` come from its attestations."""

    package: str
    license: str | None = None
    uploaded: str | None = None
    publishers: tuple[str, ...] = ()


def run(auditor: Auditor, index: Callable[[], Index], facts: dict[str, Facts]) -> Iterator[Finding | NotRun]:
    """Run these checks; ``facts`` gets what they learn of each package."""
    packages = [package for package in auditor.lock.packages if package.directory is None]
    private = auditor.private
    with index() as opened, ThreadPoolExecutor(max_workers=_THREADS) as pool:
        for found, fact in pool.map(lambda package: _of_package(auditor, package, opened, private), packages):
            facts[fact.package] = fact
            yield from found
    if auditor.settings.offline:
        for check in OF_INDEX:
            yield auditor.not_run(check, "offline")


def _of_package(
    auditor: Auditor, package: Package, index: Index, private: Collection[str]
) -> tuple[list[Finding | NotRun], Facts]:
    found: list[Finding | NotRun] = []
    fact = Facts(package=package.name)
    try:
        license_ = _license(package, auditor.settings, index)
    except archive_errors(PluginsError) as error:
        found.append(auditor.not_run("license", one_line(error), package.name))
    else:
        fact = replace(fact, license=license_)
        policy = auditor.policy
        wrong = licenses.problem(license_, allowed=policy.allowed_licenses, denied=policy.denied_licenses)
        if wrong is not None:
            step = "review it, then add it to `policy.allowed-licenses` in plugins.yaml, or remove the plugin"
            found.append(auditor.finding("license", package, wrong, step))
    if package.name in private and not package.find_links:
        return found, fact
    if package.find_links:
        why = "it comes from a directory of find-links"
        return found + [auditor.not_run(check, why, package.name) for check in OF_INDEX], fact
    if auditor.settings.offline:
        return found, fact
    try:
        published = provenance.read(package, index)
    except PluginsError as error:
        return found + [auditor.not_run(check, one_line(error), package.name) for check in OF_INDEX], fact
    found += _published(auditor, package, published)
    day = published.uploaded.date().isoformat() if published.uploaded else None
    return found, replace(fact, uploaded=day, publishers=published.publishers)


def _published(auditor: Auditor, package: Package, published: Published) -> Iterator[Finding | NotRun]:
    if published.none:
        for check in OF_INDEX:
            yield auditor.not_run(check, "none of its locked files is at an index", package.name)
        return
    yield from _files(auditor, package, published)
    if package.name in map(canonicalize_name, auditor.policy.min_age_exempt):
        pass
    elif published.uploaded is None:
        yield auditor.not_run("young", "the index has no upload time", package.name)
    elif auditor.now - published.uploaded < timedelta(days=auditor.policy.min_age_days):
        hours = max(0, int((auditor.now - published.uploaded).total_seconds() // 3600))
        age = count(hours // 24, "day") if hours >= 24 else count(hours, "hour")
        what = f"was uploaded {age} ago; the policy requires {count(auditor.policy.min_age_days, 'day')}"
        yield auditor.finding("young", package, what, "wait, or review the release")
    yield from _attestations(auditor, package, published)
    if published.unattested:
        what = f"has no attestation: {', '.join(published.unattested[:3])}"
        yield auditor.finding("no-attestation", package, what, "ask the project to publish with attestations")


def _attestations(auditor: Auditor, package: Package, published: Published) -> Iterator[Finding | NotRun]:
    """The publishers of the files, against those in the lock."""
    if not published.is_verified:
        if published.publishers or package.identities:
            yield auditor.not_run("attestation", f"pypi-attestations is not installed: {attestations.INSTALL}")
        return
    for what in published.invalid:
        step = "don't use that file until you know why: report it to the index and to the project"
        yield auditor.finding("attestation", package, f"has an attestation that does not verify: {what}", step)
    publishers = attestations.listed(published.identities)
    if package.identities and set(published.identities) != set(package.identities):
        locked = attestations.listed(package.identities)
        what = f"has another publisher: {publishers}; the lock says {locked}"
        yield auditor.finding("publisher", package, what, "find out why, before you use it")
    elif published.identities and not package.identities:
        what = f"has a publisher that is not in the lock: {publishers}"
        step = f"vllm-plugins lock --upgrade-package {package.name}, unless you find out that somebody took it out"
        yield auditor.finding("publisher", package, what, step)


def _files(auditor: Auditor, package: Package, published: Published) -> Iterator[Finding | NotRun]:
    """The locked files against those that the index has today."""
    if published.changed:
        what = f"has another file at its index than the locked one: {', '.join(published.changed)}"
        yield auditor.finding("changed", package, what, "find out who changed it, and trust neither file until then")
    if published.missing:
        what = f"is no longer at its index: {', '.join(published.missing)}"
        yield auditor.finding("yanked", package, what, f"vllm-plugins lock --upgrade-package {package.name}")
    if published.yanked is not None:
        what = f"was yanked from its index: {published.yanked or 'no reason given'}"
        yield auditor.finding("yanked", package, what, f"vllm-plugins lock --upgrade-package {package.name}")
    if published.unknown:
        yield auditor.not_run("changed", f"the index has no hash of {', '.join(published.unknown)}", package.name)
    if published.wheel is not None:
        what = f"has a wheel next to the lock, though its index has one: {published.wheel}"
        yield auditor.finding("local-wheel", package, what, f"vllm-plugins lock --upgrade-package {package.name}")


def _license(package: Package, settings: Settings, index: Index) -> str | None:
    """The licence in the wheel in ``plugins.wheels/``, or else in the wheel at the index."""
    for wheel in package.wheels:
        path = selection.find_wheel(settings.wheels / wheel.filename, wheel.sha256)
        if path is not None:
            with zipfile.ZipFile(path) as archive:
                return licenses.declared(archives.metadata_files(archive, ("METADATA",))["METADATA"])
    if not package.remote_wheels or settings.offline:
        raise FileNotFoundError("its wheel is not in plugins.wheels/")
    file = simple_api.locked(package.remote_wheels[0], package.index)
    return licenses.declared(index.members(file, ("METADATA",)).get("METADATA", b""))
