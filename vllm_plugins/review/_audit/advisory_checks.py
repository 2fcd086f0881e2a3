"""Checks of a lock against known vulnerabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.core.errors import PluginsError
from vllm_plugins.core.humanize import count
from vllm_plugins.review import advisories
from vllm_plugins.review._audit.auditor import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.lock import Package
    from vllm_plugins.review._audit.auditor import Auditor, Finding, NotRun
    from vllm_plugins.review.advisories import Advisory

__all__ = ["run"]


def run(auditor: Auditor, service: str, reporter: Reporter) -> Iterator[Finding | NotRun]:
    """Ask for advisories about every public package, and about what wheels were built with."""
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
    private = {*auditor.private, *own}
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
        yield auditor.not_run(check, one_line(error))
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


def _names(ids: Iterable[str]) -> str:
    first, *others = ids
    return f"{first} ({', '.join(others)})" if others else first
