"""Podman with a storage of its own, and a base image that stands in for vLLM's official one."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Podman", "base"]

_CONTAINERS = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=8192:8192"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
lock_type = "file"
tmp_dir = "{root}/tmp-engine"
"""
_STORAGE = """\
[storage]
driver = "{driver}"
graphroot = "{root}/storage"
runroot = "{root}/run"
"""
_PACKAGES = "python3,python3-pip,ca-certificates,libnuma1,libgomp1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Podman:
    """Podman, with all of its files below ``root``. What it builds and runs has ``site``, at the same path, read-only."""

    root: Path
    site: Path

    @classmethod
    def create(cls, root: Path, site: Path) -> Podman:
        kind = subprocess.run(["stat", "-fc", "%T", root], capture_output=True, text=True, check=True).stdout.strip()
        layers = "overlay" in Path("/proc/filesystems").read_text(encoding="utf-8") and kind != "overlayfs"
        (root / "tmp").mkdir()
        (root / "containers.conf").write_text(_CONTAINERS.format(root=root), encoding="utf-8")
        driver = "overlay" if layers else "vfs"
        (root / "storage.conf").write_text(_STORAGE.format(root=root, driver=driver), encoding="utf-8")
        return cls(root=root, site=site)

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "CONTAINERS_CONF": str(self.root / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.root / "storage.conf"),
            "TMPDIR": str(self.root / "tmp"),
        }
        volume = ["--volume", f"{self.site}:{self.site}:ro"] if words[0] in ("build", "run") else []
        argv = ["podman", "--log-level", "fatal", str(words[0]), *volume, *map(str, words[1:])]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, errors="replace", check=False)
        # A full disk shows as "io: read/write on closed pipe".
        free = f"{shutil.disk_usage(self.root).free / 1e9:.1f} GB free, the images need 3"
        assert not check or done.returncode == 0, f"{argv}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}\n{free}"
        return done

    def build(self, tag: str, file: Path, context: Path, **arguments: str) -> float:
        """Build an image; returns how many seconds it took."""
        words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        started = time.monotonic()
        # The format keeps HEALTHCHECK. The isolation needs no cgroups of its own.
        self.run(
            "build", "--isolation", "chroot", "--network", "host", "--format", "docker", "--pull-never",
            *words, "-f", file, "-t", tag, context,
        )  # fmt: skip
        return time.monotonic() - started

    def size(self, tag: str) -> int:
        """The size of an image in bytes."""
        return int(self.run("inspect", "--type", "image", "--format", "{{.Size}}", tag).stdout)

    def close(self) -> None:
        """Remove the containers and the storage."""
        self.run("rm", "--all", "--force", "--time", "2", check=False)
        self.run("rmi", "--all", "--force", check=False)
        subprocess.run(["umount", self.root / "storage" / "overlay"], capture_output=True, check=False)
        shutil.rmtree(self.root, ignore_errors=True)


def base(podman: Podman, *, model: Path, scratch: Path) -> str:
    """Debian with Python, vLLM for a CPU from the site of podman, and a model in ``/model``; returns the image's tag.

    It has this machine's certificates, so that pip reaches the package index from inside. As in vLLM's own image, the
    manager is not in it. vLLM's packages are links: two gigabytes would be copied three times, and hashed.
    """
    tag, tar, packages = "localhost/vllm-base:test", scratch / "root.tar", scratch / "packages"
    sources = next(
        path for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list") if os.path.exists(path)
    )
    packages.mkdir()
    for entry in podman.site.iterdir():
        # The manager comes with its own image. A server on a CPU works without triton.
        if "vllm_plugin" not in entry.name and not entry.name.startswith("triton"):
            (packages / entry.name).symlink_to(entry)
    hooks = [
        'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
        'tar -C /usr/local/share -chf - ca-certificates | tar -C "$1/usr/local/share" -xf -',
        'chroot "$1" update-ca-certificates > /dev/null',
        'printf "[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\n" > "$1/etc/pip.conf"',
        f'cp -R {shlex.quote(str(model))} "$1/model"',
        f'cp -a {shlex.quote(str(packages))}/. "$1/usr/local/lib/{podman.site.parent.name}/dist-packages/"',
    ]
    words: list[Any] = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}"]
    words += [f"--customize-hook={hook}" for hook in hooks]
    subprocess.run([*words, "bookworm", tar, sources], check=True)
    podman.run(
        "import", "--quiet", "--change", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "--change", "WORKDIR /vllm-workspace",
        "--change", 'ENTRYPOINT ["python3","-m","vllm.entrypoints.openai.api_server"]', tar, tag,
    )  # fmt: skip
    tar.unlink()
    return tag
