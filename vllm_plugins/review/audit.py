"""Audit a lock before anything is installed: licences, vulnerabilities, yanked and changed files, moved refs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vllm_plugins.core.humanize import count
from vllm_plugins.review._audit import advisory_checks, index_checks, lock_checks, ref_checks
from vllm_plugins.review._audit.auditor import Auditor, Finding, NotRun
from vllm_plugins.review._audit.index_checks import Facts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.documents.policy import Policy
    from vllm_plugins.packages.index import Index
    from vllm_plugins.startup.settings import Settings

__all__ = ["Audit", "Facts", "Finding", "NotRun", "run"]


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
    found: list[Finding | NotRun] = [*lock_checks.run(auditor)]
    facts: dict[str, Facts] = {}
    asking = (
        f"Asking the index about {count(len(lock.packages), 'package')}"
        if not settings.offline
        else "Offline: checks that need the network are skipped"
    )
    with reporter.step(asking):
        found += index_checks.run(auditor, index, facts)
    found += ref_checks.run(auditor)
    found += advisory_checks.run(auditor, service, reporter)
    findings = [item for item in found if isinstance(item, Finding) and item.level != "ignore"]
    missed = {item for item in found if isinstance(item, NotRun)}
    return Audit(
        findings=tuple(
            sorted(findings, key=lambda item: (item.level != "fail", item.check, item.package, item.what))
        ),
        not_run=tuple(sorted(missed, key=lambda item: (not item.demanded, item.check, item.package or "", item.why))),
        facts=tuple(facts[name] for name in sorted(facts)),
    )
