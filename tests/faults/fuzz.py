"""A coverage-guided fuzzer for one target: ``python -m tests.faults.fuzz TARGET SECONDS [RUNS]``.

It ends after so many seconds or inputs, whatever comes first, and prints the number of inputs. The first finding ends it
with another exit status, the input on standard error.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(
    include=["vllm_plugins", "packaging", "tomllib", "yaml", "configparser", "_markupbase"]
):
    from .targets import TARGETS

_LONGEST = 4096  # bytes of an input
_SLOWEST = 20  # seconds that one input may take, on a busy machine
_MEMORY = 2048  # MiB


def main() -> None:
    """Run until the budget is spent, or something is found."""
    name, seconds, *runs = sys.argv[1:]
    target = TARGETS[name]

    def one(data: bytes) -> None:
        try:
            target.run(data)
        except Exception:
            print(f"FOUND by {name}: {data!r}", file=sys.stderr, flush=True)
            raise

    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        corpus = Path(scratch, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(target.seeds):
            (corpus / str(number)).write_bytes(seed)
        words = Path(scratch, "words")
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        options = [f"-max_total_time={seconds}", f"-max_len={_LONGEST}", f"-timeout={_SLOWEST}"]
        options += [
            f"-rss_limit_mb={_MEMORY}",
            f"-dict={words}",
            f"-artifact_prefix={scratch}/",
            "-print_final_stats=1",
        ]
        options += [f"-runs={runs[0]}"] if runs else []
        options += ["-seed=1"] if os.environ.get("FAULTS_LONG") != "1" else []  # what it finds depends on no luck
        atheris.Setup([sys.argv[0], *options, str(corpus)], one)
        atheris.Fuzz()


def _escaped(word: str) -> str:
    """A word as libFuzzer's dictionaries have it."""
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


if __name__ == "__main__":
    main()
