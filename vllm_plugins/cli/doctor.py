"""``vllm-plugins doctor``: why is my plugin not there?"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from vllm_plugins.documents import base, manifest
from vllm_plugins.review import doctor

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:  # noqa: ARG001
    """Exit code 1 when something is wrong."""
    findings = doctor.examine(settings, base.read(), manifest.find(settings), os.environ)
    text = "\n\n".join(
        f"{number}. {finding.what}\n   evidence: {finding.evidence}\n   mend:     {finding.mend}"
        for number, finding in enumerate(findings, 1)
    )
    output.result({"findings": [asdict(finding) for finding in findings]}, text or "nothing is wrong")
    return 1 if findings else 0
