"""``vllm-plugins audit``: check the lock before you install it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_plugins.cli._process.streams import refuse_stdout
from vllm_plugins.cli._terminal.table import table
from vllm_plugins.cli.lock import add_policy_option, add_target_option
from vllm_plugins.core import atomic
from vllm_plugins.core.errors import UsageError
from vllm_plugins.core.humanize import count
from vllm_plugins.documents import lock_reader
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents.policy import CHECKS, Policy
from vllm_plugins.packages import own_indexes, pip_config
from vllm_plugins.packages.index import Index
from vllm_plugins.review import advisories, audit

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.review.audit import Audit, NotRun
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins audit": "Check the lock against the policy of plugins.yaml",
    "vllm-plugins audit --html report.html": "Also write a report as a page",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument("--offline", action="store_true", help="Use no network (also: VLLM_PLUGIN_OFFLINE=1).")
    parser.add_argument(
        "--service",
        metavar="SERVICE",
        default="pypi",
        help=f"Look up vulnerabilities there: {', '.join(advisories.SERVICES)}, or a URL with OSV's API.",
    )
    parser.add_argument(
        "--require",
        metavar="CHECK",
        action="append",
        default=[],
        choices=list(CHECKS),
        help="Fail if this check could not be made, and count its findings even if the policy ignores them. Can be "
        "repeated; one of %(choices)s.",
    )
    add_policy_option(parser)
    parser.add_argument("--html", metavar="FILE", help="Also write a report as one HTML page.")
    add_target_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print the findings. The exit code is 1 if one fails under the policy, or a required check did not run."""
    if arguments.service not in advisories.SERVICES and not arguments.service.startswith(("https://", "http://")):
        raise UsageError(
            "--service is not a valid advisory service",
            expected=f"{', '.join(advisories.SERVICES)}, or a URL",
            found=arguments.service,
            next_step="vllm-plugins audit --service osv",
        )
    refuse_stdout("--html", arguments.html)
    settings = settings.replace(offline=settings.offline or arguments.offline)
    locked = lock_reader.read(settings.lock, target=arguments.target)
    manifest = manifests.find(settings)
    policy = manifest.policy if manifest is not None else Policy()
    if (named := manifests.read_policy(settings)) is not None:
        policy = named.policy
    config = pip_config.PipConfig.without_index() if settings.offline else pip_config.read()
    # A lock that somebody changed does not decide where a login goes, if there is a manifest.
    config = (
        own_indexes.with_lock(config, locked, settings)
        if manifest is None
        else own_indexes.with_manifest(config, manifest)
    )
    found = audit.run(
        locked,
        policy,
        manifest,
        settings,
        index=lambda: Index(config),
        service=arguments.service,
        required=arguments.require,
        reporter=output.reporter,
    )
    if arguments.html:
        path = Path(os.path.abspath(arguments.html))
        _write(path, locked, found)
        output.progress(f"Wrote the report: {path}")
    output.result({"lock": str(settings.lock), "fails": found.fails, **_data(found)}, _text(locked, found))
    return 1 if found.fails else 0


def _data(found: Audit) -> dict[str, Any]:
    return {
        "findings": [
            {
                "check": item.check,
                "level": item.level,
                "package": item.package or None,
                "version": item.version or None,
                "required_by": list(item.required_by),
                "what": item.what,
                "next_step": item.next_step,
            }
            for item in found.findings
        ],
        "not_run": [
            {"check": item.check, "package": item.package, "why": item.why, "required": item.demanded}
            for item in found.not_run
        ],
        "facts": [
            {
                "package": fact.package,
                "license": fact.license,
                "uploaded": fact.uploaded,
                "publishers": list(fact.publishers),
            }
            for fact in found.facts
        ],
    }


def _text(locked: Lock, found: Audit) -> str:
    rows = [
        (item.level, item.check, f"{item.package} {item.version}".strip(), item.what, ", ".join(item.required_by))
        for item in found.findings
    ]
    lines = [table(("level", "check", "package", "what", "required by"), rows)] if rows else []
    lines += _not_run(found.not_run)
    failures = sum(item.level == "fail" for item in found.findings)
    warnings = len(found.findings) - failures
    counts = (
        f"{count(failures, 'failure')}, {count(warnings, 'warning')}, {count(len(found.not_run), 'part')} not run"
    )
    if demanded := sum(item.demanded for item in found.not_run):
        counts += f", {demanded} of them required"
    plugins, packages = count(len(locked.plugins), "plugin"), count(len(locked.packages), "package")
    lines.append(f"{plugins}, {packages}: {counts}")
    return "\n".join(lines)


def _not_run(missed: Sequence[NotRun]) -> Iterator[str]:
    """A line for all checks and packages with one reason."""
    checks: dict[tuple[bool, str, str | None], list[str]] = {}
    for item in missed:
        checks.setdefault((item.demanded, item.why, item.package), []).append(item.check)
    packages: dict[tuple[bool, str, tuple[str, ...]], list[str]] = {}
    for (demanded, why, package), names in checks.items():
        packages.setdefault((demanded, why, tuple(names)), []).append(package or "")
    for (demanded, why, tests), of in packages.items():
        parts = [", ".join(tests), *([", ".join(of)] if any(of) else []), why]
        yield f"not run: {': '.join(parts)}{' (required)' if demanded else ''}"


def _write(path: Path, locked: Lock, found: Audit) -> None:
    from vllm_plugins.review import html_report

    try:
        atomic.write(path, html_report.render(locked, found).encode("utf-8"))
    except OSError as error:
        raise UsageError(
            "the report can't be written",
            where=str(path),
            found=error.strerror or str(error),
            next_step="choose a file in a directory that this user can write",
        ) from error
