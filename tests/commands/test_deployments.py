"""The Dockerfiles and the examples of deployments, by the checkers of those who read them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.kit import chart
from tests.kit.deployments import COMPOSE, EXAMPLES, HELM, KUBERAY, KUBERNETES, pods, read
from vllm_plugins.cli import COMMANDS
from vllm_plugins.documents.editing.draft import Draft
from vllm_plugins.documents.manifest import GitSource, Plugin, PypiSource

ROOT = Path(__file__).parents[2]
DOCKERFILES = [ROOT / "Dockerfile", *sorted((EXAMPLES / "image").glob("*Dockerfile"))]
WORKFLOWS = sorted((EXAMPLES / "github-actions").iterdir())
RENOVATE = EXAMPLES / "renovate.json"
DIGEST = re.compile(r"[\w./-]+(:v[\d.]+)?@sha256:[0-9a-f]{64}")


def check_schema(name: str, *paths: Path) -> None:
    """In this process: the program takes seconds to import what it needs, and so would each process that collects tests."""
    import check_jsonschema

    done = CliRunner().invoke(check_jsonschema.main, ["--builtin-schema", f"vendor.{name}", *map(str, paths)])
    assert done.exit_code == 0, done.output


def check(program: str, *words: str | Path) -> None:
    path = os.path.join(os.path.dirname(sys.executable), program)
    done = subprocess.run([path, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_are_valid(path: Path) -> None:
    check("hadolint", "--failure-threshold", "style", path)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_named_by_a_digest_that_the_file_says_how_to_get(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    arguments = re.findall(r"^ARG (\w+)=\S+@sha256:\S+$", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {f"${{{argument}}}" for argument in arguments}
    assert all(f"--build-arg {argument}=" in text.replace("\\\n#     ", "") for argument in arguments)
    assert "RepoDigests" in text


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_an_image_installs_is_hashed(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for words in re.findall(r"pip install ([^&\n]*)", text):
        assert "--require-hashes" in words or "--no-index" in words, words


@pytest.mark.parametrize("path", sorted((EXAMPLES / "image").glob("*.txt")), ids=lambda path: path.name)
def test_every_requirement_of_an_image_has_a_version_and_hashes(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert lines
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+( ; [^-]+)?( --hash=sha256:[0-9a-f]{64})+", line) for line in lines)


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_compose_is_valid_and_hardened(path: Path) -> None:
    check_schema("compose-spec", path)
    (service,) = read(path)["services"].values()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    dockerfile = path.parent / service["build"]["context"] / service["build"]["dockerfile"]
    assert {f"ARG {name}=" in dockerfile.read_text(encoding="utf-8") for name in service["build"]["args"]} == {True}
    assert all(re.fullmatch(r"\$\{\w+:\?the digest of .+\}", value) for value in service["build"]["args"].values())


def test_compose_mounts_lock_and_store_where_a_start_installs() -> None:
    (service,) = read(COMPOSE[0])["services"].values()
    assert {volume.split(":")[1] for volume in service["volumes"]} >= {"/plugins", "/store"}


def test_the_workflows_are_valid() -> None:
    check_schema("github-workflows", *WORKFLOWS)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_workflows_are_pinned_and_call_known_commands(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    uses = re.findall(r"uses: (\S+)(.*)", text)
    assert uses
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) and "# v" in rest for action, rest in uses)
    installed = [line for line in text.splitlines() if "pip install" in line]
    assert all("--require-hashes" in line for line in installed)
    called = set(re.findall(r"(?:run:|^ +) vllm-plugins ([a-z]+)", text, re.MULTILINE))
    assert (
        called
        == {
            "plugins.yml": {"lock", "audit", "export", "bundle"},
            "upgrade.yml": {"upgrade", "diff", "audit", "outlook"},
        }[path.name]
    )
    assert called <= set(COMMANDS)


def found_by_renovate(text: str) -> list[tuple[str, str, str]]:
    """The dependencies that Renovate's custom managers find, with their sources. RE2 has neither lookarounds nor \\1."""
    found: list[tuple[str, str, str]] = []
    for manager in json.loads(RENOVATE.read_text(encoding="utf-8"))["customManagers"]:
        for pattern in manager["matchStrings"]:
            assert not re.search(r"\(\?[=!]|\(\?<[=!]|\\[1-9]", pattern)
            found += [
                (manager["datasourceTemplate"], match["depName"], match["currentValue"])
                for match in re.finditer(pattern.replace("(?<", "(?P<"), text)
            ]
    return found


def test_renovate_finds_what_has_a_version_or_a_tag() -> None:
    check_schema("renovate", RENOVATE)
    assert found_by_renovate((EXAMPLES / "plugins.yaml").read_text(encoding="utf-8")) == [
        ("pypi", "vllm-gguf-plugin", ">=0.0.5")
    ]
    assert found_by_renovate((EXAMPLES / "plugins.minimal.yaml").read_text(encoding="utf-8")) == []
    text = """
plugins:
  - name: a
    source: pypi
    package: "one"  # a comment
    version: '>=0.1,<2'
  - name: b
    source: git
    url: https://git.example.org/two.git
    ref: v2.0.0
  - name: c
    source: git
    url: https://git.example.org/three.git
    ref: main
  - name: d
    source: git
    url: https://${TOKEN}@git.example.org/four.git
    ref: v1.0
  - name: e
    source: pypi
    package: five
  - name: f
    source: pypi
    version: ">=1"
    package: six
"""
    assert found_by_renovate(text) == [
        ("pypi", "one", ">=0.1,<2"),
        ("git-tags", "https://git.example.org/two.git", "v2.0.0"),
    ]


def test_renovate_finds_what_add_writes() -> None:
    draft = Draft(Path("plugins.yaml"), None)
    draft.add(Plugin(name="one", source=PypiSource(package="one", version=">=1,<2")))
    draft.add(Plugin(name="two", source=GitSource(url="https://git.example.org/two.git", ref="v1.2", package="two")))
    assert found_by_renovate(draft.data.decode()) == [
        ("pypi", "one", ">=1,<2"),
        ("git-tags", "https://git.example.org/two.git", "v1.2"),
    ]


def test_kubernetes_manifests_and_the_pods_of_a_chart_and_a_ray_cluster_are_valid(tmp_path: Path) -> None:
    found = [pod for path in (KUBERAY, HELM) for pod in pods(path)]
    documents = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": pod}
        for number, pod in enumerate(found)
    ]
    assert len(documents) == 3
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    check("kubernetes-validate", "--strict", *KUBERNETES, chart.GOLDEN, tmp_path / "pods.yaml")


def test_the_pods_of_the_chart_are_made_of_these_values() -> None:
    """If this fails, make them again: ``tests/kit/chart.py`` says how."""
    assert f", values {chart.fingerprint()}\n" in chart.GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*KUBERNETES, KUBERAY, HELM], ids=lambda path: path.name)
def test_pods_are_hardened_and_their_images_pinned(path: Path) -> None:
    for pod in pods(path):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert not [volume for volume in pod["volumes"] if "configMap" in volume]  # wheels don't fit into one
        assert all(DIGEST.fullmatch(volume["image"]["reference"]) for volume in pod["volumes"] if "image" in volume)
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert DIGEST.fullmatch(container["image"])
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}


def unknown(content: Any, known: Any, where: str = "") -> list[str]:
    """The keys that a schema does not have: ``None`` for what is checked elsewhere, a list for its items."""
    if known is None:
        return []
    if isinstance(known, list):
        return [key for item in content for key in unknown(item, known[0], f"{where}[]")]
    wrong = [f"{where}.{key}" for key in content if key not in known]
    return wrong + [
        key
        for name in content.keys() & known.keys()
        for key in unknown(content[name], known[name], f"{where}.{name}")
    ]


# Kubernetes drops keys that a custom resource does not have. These are some of ray.io/v1 in KubeRay 1.7.
RAY_GROUP = {"rayStartParams": None, "template": {"spec": None}}
RAY_CLUSTER = {
    "headGroupSpec": {**RAY_GROUP, "serviceType": None},
    "workerGroupSpecs": [
        {**RAY_GROUP, "groupName": None, "replicas": None, "minReplicas": None, "maxReplicas": None}
    ],
}
# The chart ignores values that it does not know. These are some that vllm-stack 0.1.12 reads.
CHART = {
    "servingEngineSpec": {
        "imagePullPolicy": None,
        "securityContext": None,
        "containerSecurityContext": None,
        "startupProbe": {
            "exec": {"command": None},
            "periodSeconds": None,
            "timeoutSeconds": None,
            "failureThreshold": None,
        },
        "modelSpec": [
            {
                **dict.fromkeys(["name", "modelURL", "repository", "tag", "replicaCount", "resources", "env"]),
                "initContainer": dict.fromkeys(["name", "image", "command", "env", "resources", "extraVolumeMounts"]),
                **dict.fromkeys(["extraVolumes", "extraVolumeMounts", "shmSize"]),
                "vllmConfig": dict.fromkeys(["tensorParallelSize", "enablePrefixCaching", "extraArgs"]),
            }
        ],
    }
}


def test_the_ray_cluster_and_the_values_of_the_chart_have_known_keys_only() -> None:
    cluster = read(KUBERAY)
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert unknown(cluster["spec"], RAY_CLUSTER) == []
    assert unknown(read(HELM), CHART) == []


def test_a_ray_cluster_installs_nothing_and_starts_ray_as_kuberay_says() -> None:
    text = "\n".join(line.partition("#")[0] for line in KUBERAY.read_text(encoding="utf-8").splitlines())
    assert "runtime_env" not in text
    assert read(KUBERAY)["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}
    for pod in pods(KUBERAY):
        (container,) = pod["containers"]
        assert container["command"] == ["bash", "-c"]
        (script,) = container["args"]
        assert "$KUBERAY_GEN_RAY_START_CMD" in script
        subprocess.run(["bash", "-n"], input=script.encode(), check=True)
