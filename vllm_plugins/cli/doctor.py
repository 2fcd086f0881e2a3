"""``vllm-plugins doctor``: find out why a plugin is not active."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from vllm_plugins.documents import state
from vllm_plugins.install import link
from vllm_plugins.review import doctor

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.review.doctor import Report
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins doctor": "Look for everything that keeps a plugin out of vLLM",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:  # noqa: ARG001
    """Print findings with evidence and next step, and what was checked. The exit code is 1 if there is one."""
    linked = link.read()
    plain = str(linked.path) if linked is not None and linked.is_plain else None
    open_link = str(linked.path) if linked is not None and linked.is_open else None
    report = doctor.examine(state.read(settings), os.environ, plain_link=plain, open_link=open_link)
    output.result(_data(report), _text(report))
    return 1 if report.findings else 0


def _data(report: Report) -> dict[str, Any]:
    return {
        "findings": [
            {"what": item.what, "evidence": item.evidence, "next_step": item.fix, "error": item.error}
            for item in report.findings
        ],
        "checks": [{"subject": item.subject, "finding_count": item.findings} for item in report.checks],
        "notes": list(report.notes),
    }


def _text(report: Report) -> str:
    parts = [
        f"{number}. {finding.what}{f' [{finding.error}]' if finding.error else ''}\n"
        f"   evidence: {finding.evidence}\n"
        f"   next:     {finding.fix}"
        for number, finding in enumerate(report.findings, 1)
    ]
    states = ["ok" if not check.findings else f"see above ({check.findings})" for check in report.checks]
    width = max(map(len, states))
    lines = [f"  {state.ljust(width)}  {check.subject}" for state, check in zip(states, report.checks, strict=True)]
    parts += ["\n".join(["checked:", *lines])]
    parts += [f"note: {note}" for note in report.notes]
    return "\n\n".join([*parts, *([] if report.findings else ["no problems found"])])
