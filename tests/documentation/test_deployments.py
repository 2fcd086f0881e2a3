"""The Dockerfiles and the examples of deployments, by the checkers of those who read them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vllm_plugins.cli import COMMANDS

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def check(program: str, *words: str | Path) -> None:
    path = os.path.join(os.path.dirname(sys.executable), program)
    done = subprocess.run([path, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", ["Dockerfile", "examples/baked.Dockerfile"])
def test_dockerfiles(name: str) -> None:
    check("hadolint", "--failure-threshold", "style", ROOT / name)


def test_compose() -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", EXAMPLES / "compose.yaml")


def test_github_actions() -> None:
    workflow = EXAMPLES / "github-actions" / "plugins.yml"
    check("check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow)
    called = set(re.findall(r"vllm-plugins ([a-z]+)", workflow.read_text(encoding="utf-8")))
    assert called == {"lock", "audit", "export", "bundle"}
    assert called <= set(COMMANDS)


@pytest.mark.parametrize("path", sorted((EXAMPLES / "kubernetes").iterdir()), ids=lambda path: path.name)
def test_kubernetes(path: Path) -> None:
    check("kubernetes-validate", "--strict", path)
    (document,) = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    pod = document["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
