from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import registry
from tests.vllm.server import IN_ENGINE

from . import images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .images import Podman

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "examples/image"
PYTHON = os.environ.get("VLLM_PYTHON", "")
needed = [name for name in ("podman", "runc", "mmdebstrap", "docker-registry") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(
    bool(needed) or not PYTHON or os.geteuid() != 0,
    reason=f"needs root, VLLM_PYTHON, and {', '.join(needed) or 'nothing else'}: tox -e container",
)

# As a production container: no root, nothing writable but /tmp, no network, no capabilities, no passwd entry, no HOME.
PRODUCTION = (
    "--network", "none", "--read-only", "--tmpfs", "/tmp:rw,size=256m", "--user", "54321:54321", "--passwd=false",
    "--unsetenv", "HOME", "--cap-drop", "all", "--security-opt", "no-new-privileges",
)  # fmt: skip
SERVER = (
    "--model", "/model", "--load-format", "dummy", "--enforce-eager", "--max-model-len", "128", "--dtype", "float32",
    "--gpu-memory-utilization", "0.3",
    *IN_ENGINE,
)  # fmt: skip
VARIABLES = (
    "VLLM_CPU_KVCACHE_SPACE=1",
    "HF_HUB_OFFLINE=1",
    "VLLM_NO_USAGE_STATS=1",
    "SAMPLE_PLUGIN_TOKEN=65",
    "TORCHINDUCTOR_CACHE_DIR=/tmp/t",
)
ASK = """\
import json, urllib.request
body = json.dumps({"model": "/model", "prompt": "hello", "max_tokens": 8, "temperature": 0}).encode()
request = urllib.request.Request("http://127.0.0.1:8000/v1/completions", body, {"Content-Type": "application/json"})
print(json.load(urllib.request.urlopen(request, timeout=60))["choices"][0]["text"])
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    podman: Podman
    plugins: Path
    figures: dict[str, float]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The base, the manager's image, and an image with the sample plugin baked in."""
    scratch = tmp_path_factory.mktemp("images")
    (scratch / "podman").mkdir()
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    podman = images.Podman.create(scratch / "podman", Path(site).resolve())
    try:
        subprocess.run([PYTHON, ROOT / "examples/tiny_model.py", scratch / "model"], check=True)
        base = images.base(podman, model=scratch / "model", scratch=scratch)
        plugins = scratch / "plugins"
        shutil.copytree(ROOT / "examples/sample-plugin", plugins / "sample-plugin")
        (plugins / "plugins.yaml").write_text("plugins:\n  - {name: sample, source: local, path: sample-plugin}\n")
        for words in (["lock"], ["bundle"]):
            config = ["--config", str(plugins / "plugins.yaml")]
            subprocess.run([PYTHON, "-m", "vllm_plugins", *words, *config], check=True, cwd=plugins)
        figures = {"manager, seconds": podman.build("localhost/manager", ROOT / "Dockerfile", ROOT, BASE_IMAGE=base)}
        file = IMAGES / "baked.Dockerfile"
        figures["baked, seconds"] = podman.build("localhost/baked", file, plugins, MANAGER_IMAGE="localhost/manager")
        figures["manager, MB"] = (podman.size("localhost/manager") - podman.size(base)) / 1e6
        figures["plugins, MB"] = (podman.size("localhost/baked") - podman.size("localhost/manager")) / 1e6
        yield World(podman=podman, plugins=plugins, figures=figures)
        print("\n".join(["", *(f"{name}: {value:.1f}" for name, value in figures.items())]))
    finally:
        podman.close()


def start(world: World, name: str, image: str, *words: str, **env: str) -> float:
    """Start a server and wait for its health check; returns the seconds until then."""
    variables = [word for pair in (*VARIABLES, *(f"{k}={v}" for k, v in env.items())) for word in ("--env", pair)]
    log = world.podman.root / f"{name}.log"
    log.unlink(missing_ok=True)  # of a container that had the name before
    words = ("--log-driver", "k8s-file", "--log-opt", f"path={log}", *words)
    started = time.monotonic()
    world.podman.run("run", "--detach", "--shm-size", "1g", "--name", name, *variables, *words, image, *SERVER)
    # A health check starts an interpreter in the container: it would take a third of a processor.
    while "Application startup complete" not in log.read_text(errors="replace"):
        check_runs(world, name, started)
        time.sleep(3)
    while world.podman.run("healthcheck", "run", name, check=False).returncode != 0:
        check_runs(world, name, started)
        time.sleep(0.5)
    return time.monotonic() - started


def check_runs(world: World, name: str, started: float) -> None:
    state = world.podman.run("inspect", "--format", "{{.State.Status}}", name).stdout.strip()
    assert state == "running" and time.monotonic() - started < 300, logs(world, name)  # noqa: PT018


def logs(world: World, name: str) -> str:
    done = world.podman.run("logs", name)
    return done.stdout + done.stderr


def stop(world: World, name: str) -> int:
    """SIGTERM; returns the exit code."""
    world.podman.run("stop", "--time", "60", name)
    return int(world.podman.run("inspect", "--format", "{{.State.ExitCode}}", name).stdout)


def test_the_baked_image_is_frozen_and_runs_as_a_user(world: World) -> None:
    (image,) = json.loads(world.podman.run("inspect", "--type", "image", "localhost/baked").stdout)
    config = image["Config"]
    assert config["User"] == "10001"
    assert config["Entrypoint"] == ["python3", "-m", "vllm.entrypoints.openai.api_server"]
    health = image.get("HealthCheck") or image.get("Healthcheck") or config["Healthcheck"]
    assert health["Test"][0] == "CMD"
    assert "VLLM_PLUGIN_FROZEN=1" in config["Env"]


def test_a_baked_plugin_changes_a_completion(world: World) -> None:
    world.figures["start, baked, seconds"] = start(
        world, "baked", "localhost/baked", *PRODUCTION, VLLM_PLUGIN_VERIFY="1"
    )
    assert world.podman.run("exec", "baked", "python3", "-c", ASK).stdout.strip() == "bbbbbbbb"
    said = logs(world, "baked")
    assert "is active: sample 1.0.0" in said
    assert "Verified " in said
    assert "installing" not in said
    who = world.podman.run("exec", "baked", "sh", "-c", "id -u; touch /x 2>&1; getent passwd 54321; true").stdout
    assert who.startswith("54321\n")
    assert "Read-only file system" in who
    status = world.podman.run("exec", "baked", "vllm-plugins", "status", "--json").stdout
    assert json.loads(status)["up_to_date"] is True
    assert stop(world, "baked") == 0


def test_the_first_start_installs_into_a_volume(world: World) -> None:
    places = ("--volume", f"{world.plugins}:/plugins:ro", "--volume", "store:/store")
    hardened = ("--cap-drop", "all", "--security-opt", "no-new-privileges")
    for name in ("start, installing, seconds", "start, up to date, seconds"):
        world.figures[name] = start(world, "volume", "localhost/manager", *places, *hardened)
        said = logs(world, "volume")
        assert ("Installing 1 distribution" in said) == ("installing" in name)
        assert world.podman.run("exec", "volume", "python3", "-c", ASK).stdout.strip() == "bbbbbbbb"
        assert stop(world, "volume") == 0
        world.podman.run("rm", "volume")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            "echo >> $(echo /opt/vllm-plugins/overlays/*/site/sample_plugin/__init__.py)",
            "[hash-mismatch]",
        ),
        ("sed -i s/sample/simple/ /plugins/plugins.lock", "[lock-invalid]"),
    ],
    ids=["tampered", "another lock"],
)
def test_a_changed_image_does_not_start(world: World, damage: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "Containerfile"
    file.write_text(f"FROM localhost/baked\nUSER 0\nRUN {damage}\nUSER 10001\n")
    world.podman.build("localhost/damaged", file, tmp_path)
    variables = [word for pair in (*VARIABLES, "VLLM_PLUGIN_VERIFY=1") for word in ("--env", pair)]
    done = world.podman.run("run", "--rm", *variables, *PRODUCTION, "localhost/damaged", *SERVER, check=False)
    assert done.returncode != 0
    assert words in done.stdout + done.stderr


STOCK = {
    "PYTHONPATH": "/opt/vllm-plugins/manager",
    "VLLM_PLUGIN_CONFIG": "/opt/vllm-plugins/plugins.yaml",
    "VLLM_PLUGIN_REGISTRY_DIR": "/opt/vllm-plugins/store",
    "VLLM_PLUGIN_FROZEN": "1",
    "VLLM_PLUGIN_VERIFY": "1",
}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    with registry.serve(tmp_path) as served:
        yield served


def test_a_stock_image_serves_with_the_plugins_of_another_image(world: World, host: str, tmp_path: Path) -> None:
    """vLLM's own image has no manager. Both come from an image volume, by digest, without network, for any user."""
    store = ["--registry-dir", str(tmp_path / "store"), "--config", str(world.plugins / "plugins.yaml")]
    command = [PYTHON, "-m", "vllm_plugins"]
    subprocess.run([*command, "sync", *store], check=True, cwd=tmp_path)
    started = time.monotonic()
    words = [*command, "push", f"{host}/team/plugins:v1", "--json", *store]
    pushed = json.loads(subprocess.run(words, check=True, capture_output=True, cwd=tmp_path).stdout)
    world.figures["push, seconds"] = time.monotonic() - started
    world.figures["plugins' image, MB"] = pushed["size"] / 1e6
    started = time.monotonic()
    subprocess.run([*command, "pull", pushed["image"], "-o", tmp_path / "pulled"], check=True, cwd=tmp_path)
    world.figures["pull, seconds"] = time.monotonic() - started
    world.podman.run("pull", "--quiet", "--tls-verify=false", pushed["image"])
    mount = ("--mount", f"type=image,source={pushed['image']},destination=/opt/vllm-plugins")
    health = "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=2)"
    check = ("--health-cmd", f'python3 -c "{health}"', "--health-interval", "disable")
    took = start(world, "stock", "localhost/vllm-base:test", *mount, *check, *PRODUCTION, **STOCK)
    world.figures["start, stock image, seconds"] = took
    assert world.podman.run("exec", "stock", "python3", "-c", ASK).stdout.strip() == "bbbbbbbb"
    said = logs(world, "stock")
    assert "is active: sample 1.0.0" in said
    assert "installing" not in said
    assert stop(world, "stock") == 0
