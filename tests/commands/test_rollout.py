"""What stops a rollout whose image has no manager, or another vLLM: the commands of the deployment examples, run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import metrics
from tests.kit.deployments import COMPOSE, EXAMPLES, HELM, KUBERAY, KUBERNETES, environment, pods, read
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

IN_VOLUME = EXAMPLES / "kubernetes/image-volume.yaml"
BY_PULL = EXAMPLES / "kubernetes/init-container-pull.yaml"
POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A place with an installed plugin, the directory of its image, and environments by what is in them."""

    place: Place
    image: Path
    environments: Path

    @property
    def pulled(self) -> Path:
        """The volume of the example that pulls."""
        return self.image.with_name("pulled")

    def run(self, command: Iterable[str], environment: str, variables: Mapping[str, str]) -> tuple[int, str]:
        """Run a container's command with one of the environments; returns the exit code and the output."""
        words = [*command]
        assert words[0] == "python3"
        words[0] = str(self.environments / environment / "bin/python")
        env = {"PATH": os.environ["PATH"], "HOME": "/tmp", **variables}
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=env, cwd=self.environments)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def world(place: Place, index: Index, templates: Templates) -> World:
    def make() -> None:
        index.wheel(
            "tiny", requires=["vllm>=0.30"], entry_points=POINTS, modules={"tiny.py": "def register(): ...\n"}
        )
        place.pypi("tiny")
        place.run("lock")
        place.run("sync")
        place.run("push", f"oci:{place.root / 'images'}:v1")

    templates.fill(place, index, make)
    image, environments = place.root / "image", place.root / "environments"
    place.run("pull", f"oci:{place.root / 'images'}:v1", "-o", image)
    for path in (image, place.store):
        for other in (path, *path.rglob("*")):
            other.chmod(other.stat().st_mode & ~0o022)
    environment(environments / "stock")
    environment(environments / "with the manager", manager=image / "manager")
    environment(environments / "another vLLM", manager=image / "manager", vllm="0.29.0")
    return World(place=place, image=image, environments=environments)


def install(world: World, path: Path) -> None:
    """Install as the image's Dockerfile or the first init container does: in an environment like the server's."""
    env = {name: value for name, value in world.place.environment.items() if name != "PYTHONPATH"}
    if path == BY_PULL:
        world.pulled.mkdir()
        world.pulled.chmod(0o777)  # as the volume is
        program, pull, _, *words = pod(path)["initContainers"][0]["command"]
        assert (program, pull, words) == ("vllm-plugins", "pull", ["-o", "/opt/vllm-plugins"])
        words = [pull, f"oci:{world.place.root / 'images'}:v1", "-o", str(world.pulled)]
        code, text = world.run(["python3", "-m", "vllm_plugins", *words], "with the manager", env)
        world.pulled.chmod(0o755)  # mounted read-only
    elif path != IN_VOLUME:
        code, text = world.run(["python3", "-m", "vllm_plugins", "sync", "--frozen"], "with the manager", env)
    else:
        return
    assert code == 0, text


def pod(path: Path) -> Any:
    (found,) = pods(path)
    return found


def image_variables() -> dict[str, str]:
    """The variables of the images that the Dockerfiles make."""
    text = "".join(path.read_text() for path in (EXAMPLES.parent / "Dockerfile", EXAMPLES / "image/baked.Dockerfile"))
    return dict(re.findall(r"(VLLM_PLUGIN_\w+)=(\S+)", text))


def variables(world: World, path: Path, container: Any) -> dict[str, str]:
    """The variables of a container, with the directories of this test in place of its mounts."""
    env = {item["name"]: item["value"] for item in container["env"]}
    places = {
        IN_VOLUME.name: {"/opt/vllm-plugins/": f"{world.image}/"},
        BY_PULL.name: {"/opt/vllm-plugins/": f"{world.pulled}/"},
        "init-container.yaml": {
            "/store/plugins.yaml": str(world.place.manifest),
            "/store/plugins": str(world.place.store),
        },
        "baked.yaml": {
            "/plugins/plugins.yaml": str(world.place.manifest),
            "/opt/vllm-plugins": str(world.place.store),
        },
    }[path.name]
    if path.name == "baked.yaml":
        env = image_variables() | env
    for there, here in places.items():
        env = {name: value.replace(there, here) for name, value in env.items()}
    return env


def checks(pod: Any) -> Any:
    """The init container that checks."""
    (found,) = [container for container in pod["initContainers"] if container["name"] == "check"]
    return found


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.stem)
def test_an_image_without_the_manager_does_not_get_past_the_check(world: World, path: Path) -> None:
    (server,) = pod(path)["containers"]
    check = checks(pod(path))
    assert (check["image"], check["env"]) == (server["image"], server["env"])
    there = {mount["name"]: mount["mountPath"] for mount in server["volumeMounts"]}
    assert {(mount["name"], mount["mountPath"]) for mount in check["volumeMounts"]} <= there.items()
    env = variables(world, path, check)
    install(world, path)
    own = "stock" if path in (IN_VOLUME, BY_PULL) else "with the manager"
    code, text = world.run(check["command"], own, env)
    assert (code, "no problems found" in text) == (0, True), text

    empty = {**env, "PYTHONPATH": str(world.environments)}  # a volume that was not mounted
    code, text = world.run(check["command"], "stock", empty)
    assert (code, "No module named vllm_plugins" in text) == (1, True), text


def test_an_image_with_another_vllm_or_a_wrong_variable_does_not_get_past_the_check(world: World) -> None:
    check = checks(pod(IN_VOLUME))
    env = variables(world, IN_VOLUME, check)
    code, text = world.run(check["command"], "another vLLM", env)
    assert (code, "[base-mismatch]" in text) == (1, True), text
    code, text = world.run(check["command"], "stock", {**env, "VLLM_PLUGINS": "tiny"})
    assert (code, "VLLM_PLUGINS does not name vllm_plugins" in text) == (1, True), text


@pytest.mark.parametrize("path", [KUBERAY, HELM], ids=lambda path: path.stem)
def test_every_pod_of_a_chart_or_a_ray_cluster_checks_as_a_single_pod_does(path: Path) -> None:
    """Command and variables are those that the other tests run with an image volume."""
    single = pod(IN_VOLUME)
    (reference,) = single["containers"]
    for found in pods(path):
        (server,) = found["containers"]
        check = checks(found)
        assert found["initContainers"] == [check]
        assert check["command"] == checks(single)["command"]
        for container in (check, server):  # the chart adds variables of its own
            assert [variable for variable in container["env"] if variable in reference["env"]] == reference["env"]
            assert len({variable["name"] for variable in container["env"]}) == len(container["env"])
        assert check["image"] == server["image"]
        assert [mount for mount in server["volumeMounts"] if mount in check["volumeMounts"]] == check["volumeMounts"]
        assert all(mount in server["volumeMounts"] for mount in reference["volumeMounts"])
        volumes = [volume for volume in found["volumes"] if volume["name"] == "plugins"]
        assert volumes == [volume for volume in single["volumes"] if volume["name"] == "plugins"]


def probes() -> list[list[str]]:
    """The commands that ask the running server, which the head of a Ray cluster is."""
    servers = [pods(path)[0]["containers"][0] for path in (*KUBERNETES, KUBERAY, HELM)]
    found = [server["startupProbe"]["exec"]["command"] for server in servers]
    for path in COMPOSE:
        (service,) = read(path)["services"].values()
        kind, *words = service["healthcheck"]["test"]
        assert kind == "CMD"
        found.append(words)
    return found


def test_a_server_without_the_plugins_never_becomes_ready(world: World) -> None:
    command, *others = probes()
    assert all(other == command for other in others)
    port = "127.0.0.1:8000"
    (server,) = pod(IN_VOLUME)["containers"]
    assert f"http://{port}" in command
    assert server["ports"][0]["containerPort"] == 8000
    env = variables(world, IN_VOLUME, server)
    lock = world.place.lock.read_bytes()
    good = metrics.line(overlay.key_of(lock), overlay.sha256(lock))
    answers = {
        "with the plugins": (good, 0, "up to date"),
        "without the manager": ("vllm:requests 1.0\n", 3, "the server runs without vllm-plugin-manager"),
        "disabled": (metrics.line("", ""), 3, "the server has no plugins"),
        "another lock": (metrics.line("1" * 32, "2" * 64), 3, "the server has another lock"),
    }
    for name, (text, expected, message) in answers.items():
        with metrics.serving(text) as url:
            words = [word.replace(f"http://{port}", url) for word in command]
            code, said = world.run(words, "stock", env)
        assert (code, message in said) == (expected, True), f"{name}: {said}"
    with metrics.serving(good) as url:
        words = [word.replace(f"http://{port}", url) for word in command]
        assert world.run(words, "stock", {**env, "PYTHONPATH": ""})[0] == 1
    code, said = world.run(command, "stock", env)
    assert (code, "the metrics of the server can't be read" in said) == (1, True), shlex.join(command)
