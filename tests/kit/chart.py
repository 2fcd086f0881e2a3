"""The pods that Helm makes of the values of vLLM's production stack: ``python -m tests.kit.chart DIRECTORY``.

Neither Helm nor the chart is in a package index that CI reaches, so what they make is kept in ``tests/golden``. To make
it again after a change of the values: ``pip install helm-python-sdk`` (Helm's own library, 75 MB), and give the ``helm``
directory of a checkout of vllm-project/production-stack. The charts of Prometheus that it depends on are left out.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

__all__ = ["GOLDEN", "VALUES", "fingerprint", "rendered"]

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/production-stack.yaml"
VALUES = ROOT / "examples/helm/production-stack.yaml"
_TEMPLATE = "templates/deployment-vllm-multi.yaml"


def fingerprint() -> str:
    """A hash of the values, without their comments."""
    return hashlib.sha256(json.dumps(_values(), sort_keys=True).encode()).hexdigest()


def rendered() -> Any:
    """The deployment that Helm made of the values."""
    return yaml.safe_load(GOLDEN.read_text(encoding="utf-8"))


def _values() -> Any:
    return yaml.safe_load(VALUES.read_text(encoding="utf-8"))


def main(directory: Path) -> None:
    """Write the deployment of an engine, with the versions that made it."""
    helm: Any = importlib.import_module("helm_python")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "chart"
        shutil.copytree(directory, copy)
        (copy / "Chart.lock").unlink(missing_ok=True)
        about = yaml.safe_load((copy / "Chart.yaml").read_text(encoding="utf-8"))
        about.pop("dependencies", None)
        (copy / "Chart.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
        with helm.Chart.load(str(copy)) as chart:
            chart.validate_schema(_values())
            made = chart.render(_values(), name="vllm", namespace="default")
    (text,) = [text for name, text in made.items() if name.endswith(_TEMPLATE)]
    head = f"# {about['name']} {about['version']}, Helm {helm.helm_sdk_version()}, values {fingerprint()}\n"
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    GOLDEN.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
