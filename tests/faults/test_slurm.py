"""The batch script for Slurm, run by bash on two nodes that have the same path on different disks, and a registry."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import registry
from tests.kit.deployments import EXAMPLES, environment
from tests.kit.sandbox import needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

pytestmark = [
    needs_root,
    pytest.mark.skipif(registry.PROGRAM is None, reason="needs docker-registry, a package of Debian"),
]

SCRIPT = EXAMPLES / "slurm" / "vllm.sbatch"
NODES = 2
POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
CODE = "import os\ndef register(): print('plugin on', os.uname().nodename, flush=True)\n"

# A node is a name, and a disk at the path that all nodes have.
NODE = """\
#!/bin/sh
mount --bind "$DISKS/$1" "$LOCAL_DISK" && hostname "node-$1" && export SLURM_NODEID="$1" && shift && exec "$@"
"""
SRUN = """\
#!/bin/sh
[ "$1 $2 $3" = "--nodes=$SLURM_JOB_NUM_NODES --ntasks-per-node=1 --kill-on-bad-exit=1" ] || exit 98
shift 3
echo "$1" >> "$STEPS"
for number in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do
  unshare --mount --uts "$NODE" "$number" "$@" &
  tasks="$tasks $!"
done
worst=0
for task in $tasks; do wait "$task" || worst=$?; done
exit "$worst"
"""
VLLM = """\
#!/bin/sh
echo "$(hostname): $*"
exec python3 -c 'from vllm_plugins.startup import hook; hook.general()'
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Programs, disks and a log of the steps."""

    root: Path

    @property
    def steps(self) -> list[str]:
        """The commands that ran on all nodes."""
        log = self.root / "steps"
        return log.read_text().splitlines() if log.exists() else []

    def plugins(self, node: int) -> list[Path]:
        """The directories of images on a node's disk."""
        return list((self.root / "disks" / str(node)).glob("*/*"))

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the script on the first node, as Slurm does."""
        (self.root / "steps").unlink(missing_ok=True)
        env = {
            "PATH": f"{self.root / 'bin'}:{self.root / 'vllm/bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.root / "home"),
            "SLURM_JOB_NUM_NODES": str(NODES),
            "SLURMD_NODENAME": "node-0",
            "LOCAL_DISK": str(self.root / "local"),
            "DISKS": str(self.root / "disks"),
            "STEPS": str(self.root / "steps"),
            "NODE": str(self.root / "bin/node"),
        }
        argv = ["unshare", "--mount", "--uts", str(self.root / "bin/node"), "0", "bash", str(SCRIPT), *words]
        return subprocess.run(argv, env=env, cwd=self.root, capture_output=True, text=True, check=False)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    root = tmp_path_factory.mktemp("cluster")
    for name in ("bin", "home", "local", *(f"disks/{node}" for node in range(NODES))):
        (root / name).mkdir(parents=True)
    for name, text in {"node": NODE, "srun": SRUN, "vllm": VLLM}.items():
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    (root / "bin/vllm-plugins").symlink_to(Path(sys.executable).with_name("vllm-plugins"))
    environment(root / "vllm")
    return Cluster(root=root)


@pytest.fixture
def image(
    place: Place, index: Index, templates: Templates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    def make() -> None:
        index.wheel("tiny", requires=["vllm>=0.30"], entry_points=POINTS, modules={"tiny.py": CODE})
        place.pypi("tiny")
        place.run("lock")
        place.run("sync")

    templates.fill(place, index, make)
    with registry.serve(tmp_path_factory.mktemp("registry")) as host:
        yield str(place.run("push", f"{host}/team/plugins:v1", "--json").json["image"])


def test_each_node_pulls_once_and_all_serve_with_the_same_plugins(cluster: Cluster, image: str) -> None:
    words = ["some/model", "--tensor-parallel-size", "2"]
    done = cluster.submit(image, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cluster.steps == ["vllm-plugins", "python3", "bash"]
    serve = "serve some/model --tensor-parallel-size 2 --nnodes 2 --node-rank {} --master-addr node-0"
    lines = done.stdout.splitlines()
    assert f"node-0: {serve.format(0)}" in lines
    assert f"node-1: {serve.format(1)} --headless" in lines
    assert {"plugin on node-0", "plugin on node-1"} <= set(lines)
    # Each disk has the image, at a path that names it; the shared path itself has nothing.
    for node in range(NODES):
        (directory,) = cluster.plugins(node)
        assert directory.name == image.partition("@sha256:")[2]
        assert done.stdout.count("pulled: ") == NODES
    assert list((cluster.root / "local").iterdir()) == []

    # A second job downloads nothing, and does not start vLLM where a node's copy was edited.
    (site,) = cluster.plugins(1)[0].glob("store/overlays/*/site")
    site.joinpath("tiny.py").write_text(CODE + "# edited\n")
    done = cluster.submit(image, *words)
    assert done.stdout.count("up to date: ") == NODES
    assert (done.returncode != 0, cluster.steps) == (True, ["vllm-plugins", "python3"])
    assert "tiny.py" in done.stdout


def test_a_job_ends_before_vllm_where_a_node_has_no_fitting_plugins(cluster: Cluster, image: str) -> None:
    done = cluster.submit()
    assert (done.returncode != 0, "give the image of the plugins" in done.stderr, cluster.steps) == (True, True, [])
    done = cluster.submit(image.partition("@")[0] + ":v1", "some/model")
    assert (done.returncode, "expected IMAGE@sha256:" in done.stderr, cluster.steps) == (2, True, [])
    other = image[:-1] + ("0" if image[-1] != "0" else "1")
    done = cluster.submit(other, "some/model")
    assert (done.returncode != 0, len(cluster.steps)) == (True, 1), done.stderr

    environment(cluster.root / "older", vllm="0.29.0")
    python = cluster.root / "bin/python3"
    own, older = (cluster.root / name / "bin/python3" for name in ("vllm", "older"))
    python.write_text(f'#!/bin/sh\n[ "$(hostname)" = node-1 ] && exec {older} "$@"\nexec {own} "$@"\n')
    python.chmod(0o755)
    done = cluster.submit(image, "some/model")
    assert (done.returncode != 0, len(cluster.steps), "[base-mismatch]" in done.stdout) == (True, 2, True), (
        done.stdout
    )
