"""Audit a lock before anything is installed: licences, vulnerabilities, yanked and changed files, moved refs."""

from __future__ import annotations

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import PluginsError, archive_errors
from vllm_plugins.core.humanize import count
from vllm_plugins.core.redact import public_url
from vllm_plugins.documents import selection
from vllm_plugins.documents.manifest import GitSource
from vllm_plugins.packages import archives, attestations, simple_api
from vllm_plugins.review import _licenses, _lock_checks, _provenance, advisories
from vllm_plugins.review._auditor import Auditor, Finding, NotRun
from vllm_plugins.sources import git_refs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.lock import Lock, Package, Plugin
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.documents.policy import Policy
    from vllm_plugins.packages.index import Index
    from vllm_plugins.review._provenance import Published
    from vllm_plugins.review.advisories import Advisory
    from vllm_plugins.startup.settings import Settings

__all__ = ["Audit", "Facts", "Finding", "NotRun", "run"]

_THREADS = 8
_OF_INDEX = ("changed", "yanked", "young", "attestation", "no-attestation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Facts about a package. ``uploaded`` is a date; ``publishers`` come from its attestations."""

    package: str
    license: str | None = None
    uploaded: str | None = None
    publishers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """The result of an audit: failures first. Findings that the policy ignores are left out."""

    findings: tuple[Finding, ...]
    not_run: tuple[NotRun, ...]
    facts: tuple[Facts, ...]

    @property
    def fails(self) -> bool:
        """Whether the audit fails under the policy."""
        return any(item.level == "fail" for item in self.findings) or any(item.demanded for item in self.not_run)


def run(
    lock: Lock,
    policy: Policy,
    manifest: Manifest | None,
    settings: Settings,
    *,
    index: Callable[[], Index],
    service: str = "pypi",
    required: Collection[str] = (),
    now: datetime | None = None,
    reporter: Reporter,
) -> Audit:
    """Run each check that the policy does not ignore.

    ``required`` are checks that must run, in addition to the policy's. Nothing is installed or written. Offline
    (``settings.offline``), checks that need the network are reported as not run.
    """
    auditor = Auditor(
        lock=lock,
        policy=policy,
        manifest=manifest,
        settings=settings,
        required={*policy.required, *required},
        now=now or datetime.now(UTC),
    )
    found: list[Finding | NotRun] = [*_lock_checks.run(auditor)]
    facts: dict[str, Facts] = {}
    asking = (
        f"Asking the index about {count(len(lock.packages), 'package')}"
        if not settings.offline
        else "Offline: checks that need the network are skipped"
    )
    with reporter.step(asking):
        found += _of_index(auditor, index, facts)
    found += _of_refs(auditor)
    found += _of_advisories(auditor, service, reporter)
    findings = [item for item in found if isinstance(item, Finding) and item.level != "ignore"]
    missed = {item for item in found if isinstance(item, NotRun)}
    return Audit(
        findings=tuple(
            sorted(findings, key=lambda item: (item.level != "fail", item.check, item.package, item.what))
        ),
        not_run=tuple(sorted(missed, key=lambda item: (not item.demanded, item.check, item.package or "", item.why))),
        facts=tuple(facts[name] for name in sorted(facts)),
    )


def _of_index(auditor: Auditor, index: Callable[[], Index], facts: dict[str, Facts]) -> Iterator[Finding | NotRun]:
    packages = [package for package in auditor.lock.packages if package.directory is None]
    private = _private(auditor)
    with index() as opened, ThreadPoolExecutor(max_workers=_THREADS) as pool:
        for found, fact in pool.map(lambda package: _of_package(auditor, package, opened, private), packages):
            facts[fact.package] = fact
            yield from found
    if auditor.settings.offline:
        for check in _OF_INDEX:
            yield auditor.not_run(check, "offline")


def _of_package(
    auditor: Auditor, package: Package, index: Index, private: Collection[str]
) -> tuple[list[Finding | NotRun], Facts]:
    found: list[Finding | NotRun] = []
    fact = Facts(package=package.name)
    try:
        license_ = _license(package, auditor.settings, index)
    except archive_errors(PluginsError) as error:
        found.append(auditor.not_run("license", _first(error), package.name))
    else:
        fact = replace(fact, license=license_)
        policy = auditor.policy
        wrong = _licenses.problem(license_, allowed=policy.allowed_licenses, denied=policy.denied_licenses)
        if wrong is not None:
            step = "review it, then add it to `policy.allowed-licenses` in plugins.yaml, or remove the plugin"
            found.append(auditor.finding("license", package, wrong, step))
    if package.name in private and not package.find_links:
        return found, fact
    if package.find_links:
        why = "it comes from a directory of find-links"
        return found + [auditor.not_run(check, why, package.name) for check in _OF_INDEX], fact
    if auditor.settings.offline:
        return found, fact
    try:
        published = _provenance.read(package, index)
    except PluginsError as error:
        return found + [auditor.not_run(check, _first(error), package.name) for check in _OF_INDEX], fact
    found += _published(auditor, package, published)
    day = published.uploaded.date().isoformat() if published.uploaded else None
    return found, replace(fact, uploaded=day, publishers=published.publishers)


def _published(auditor: Auditor, package: Package, published: Published) -> Iterator[Finding | NotRun]:
    if published.none:
        for check in _OF_INDEX:
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
                return _licenses.declared(archives.metadata_files(archive, ("METADATA",))["METADATA"])
    if not package.remote_wheels or settings.offline:
        raise FileNotFoundError("its wheel is not in plugins.wheels/")
    file = simple_api.locked(package.remote_wheels[0], package.index)
    return _licenses.declared(index.members(file, ("METADATA",)).get("METADATA", b""))


def _of_refs(auditor: Auditor) -> Iterator[Finding | NotRun]:
    if auditor.level("moved-ref") == "ignore":
        return
    for plugin in auditor.lock.plugins:
        package = auditor.lock.package(plugin.package)
        if plugin.commit is None or package is None:
            continue
        if auditor.settings.offline:
            yield auditor.not_run("moved-ref", "offline")
            continue
        try:
            now = git_refs.resolve(_source(plugin, auditor.manifest), environ=os.environ, plugin=plugin.name)
        except PluginsError as error:
            yield auditor.not_run("moved-ref", _first(error), package.name)
            continue
        if now != plugin.commit:
            what = f"{plugin.requested} is now commit {now[:12]}; {plugin.commit[:12]} is locked"
            yield auditor.finding("moved-ref", package, what, f"vllm-plugins lock --upgrade-package {plugin.package}")


def _source(plugin: Plugin, manifest: Manifest | None) -> GitSource:
    """The source in the manifest if it is the locked one, because it has the login; else the one in the lock."""
    item = next((item for item in manifest.plugins if item.name == plugin.name), None) if manifest else None
    source = item.source if item is not None else None
    if isinstance(source, GitSource) and public_url(source.url) == plugin.url:
        return source.replace(ref=plugin.requested)
    return GitSource(url=plugin.url or "", ref=plugin.requested)


def _of_advisories(auditor: Auditor, service: str, reporter: Reporter) -> Iterator[Finding | NotRun]:
    check = "vulnerabilities"
    if auditor.level(check) == "ignore":
        return
    if auditor.settings.offline:
        yield auditor.not_run(check, "offline")
        return
    program = advisories.find()
    if program is None:
        yield auditor.not_run(check, "pip-audit is not installed: pipx install pip-audit")
        return
    # A private package has no public advisories, and its name must not leave this machine. What the lock says of a
    # package's index does not decide: taking it out would hide the package.
    own = {plugin.package: plugin.index for plugin in auditor.lock.plugins if plugin.index is not None}
    private = {*_private(auditor), *own}
    public = [package for package in auditor.lock.packages if package.name not in private]
    for name, index in own.items():
        yield auditor.not_run(check, f"it comes from the index {index!r} alone, and its name stays there", name)
    for item in auditor.lock.packages:
        if item.find_links:
            yield auditor.not_run(check, "it comes from a directory, and its name stays here", item.name)
    builds = advisories.build_requirements(auditor.lock, private)
    asked = [
        *public,
        *(item for pin, item in builds.items() if pin not in {f"{it.name}=={it.version}" for it in public}),
    ]
    try:
        with reporter.step(f"Asking for advisories about {count(len(asked), 'package')}"):
            settings = auditor.settings
            known, skipped = advisories.ask(
                asked, program, service=service, cache=settings.cache, patience=settings.patience
            )
    except PluginsError as error:
        yield auditor.not_run(check, _first(error))
        return
    yield from (auditor.not_run(check, why, name) for name, why in skipped.items())
    for advisory in known:
        if auditor.policy.accepts(advisory.ids, auditor.now.date()) is None:
            yield from _of_advisory(auditor, advisory, builds)


def _of_advisory(auditor: Auditor, advisory: Advisory, builds: Mapping[str, Package]) -> Iterator[Finding]:
    pin = f"{advisory.package}=={advisory.version}"
    locked, names = auditor.lock.package(advisory.package), [advisory.package]
    if locked is None or locked.version != advisory.version:
        locked = builds.get(pin)
        names = [item.name for item in auditor.lock.packages if pin in item.built_with]
    if locked is None:
        return
    fixed = f"fixed in {', '.join(advisory.fixed_in)}" if advisory.fixed_in else "no release fixes it"
    what = f"is vulnerable: {_names(advisory.ids)}; {fixed}"
    if names != [advisory.package]:
        what += f"; {', '.join(names)} was built with it"
    step = f"vllm-plugins lock {' '.join(f'--upgrade-package {name}' for name in names)}"
    remove = "remove the plugin, or add it to `policy.accepted`"
    yield auditor.finding("vulnerabilities", locked, what, step if advisory.fixed_in else remove)


def _private(auditor: Auditor) -> set[str]:
    """The packages that no index is asked about: plugins from git and directories, and wheels of find-links.

    The manifest says which plugins those are, where there is one.
    """
    requested = {plugin.name: plugin for plugin in auditor.manifest.plugins} if auditor.manifest is not None else {}
    kinds = {
        plugin.package: requested[plugin.name].kind if plugin.name in requested else plugin.source
        for plugin in auditor.lock.plugins
    }
    built = {name for name, kind in kinds.items() if kind != "pypi"}
    return built | {package.name for package in auditor.lock.packages if package.find_links}


def _names(ids: Iterable[str]) -> str:
    first, *others = ids
    return f"{first} ({', '.join(others)})" if others else first


def _first(error: Exception) -> str:
    """An error as one line."""
    if isinstance(error, PluginsError):
        return f"{error.what}: {error.found}" if error.found else error.what
    return str(error)
