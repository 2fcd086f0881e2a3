"""A coverage-guided fuzzer: ``python -m tests.faults.fuzz SECONDS RUNS TARGET…``, each target in a process of its own.

It ends after so many seconds or inputs for each (-1 for any number), and prints the number of inputs. The first finding ends it with another exit
status, the input on standard error. Only the instrumentation, which takes longer than a short run, is shared.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(
    include=["vllm_plugins", "packaging", "tomllib", "yaml", "configparser", "_markupbase"]
):
    from .targets import TARGETS

from .campaign import LONG

_LONGEST = 4096  # bytes of an input
_SLOWEST = 20  # seconds that one input may take, on a busy machine
_MEMORY = 2048  # MiB


def main() -> None:
    """Run each target until its budget is spent, or something is found."""
    seconds, runs, *names = sys.argv[1:]
    for name in names:
        child = os.fork()
        if not child:
            fuzz(name, seconds, runs)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(1)


def fuzz(name: str, seconds: str, runs: str) -> NoReturn:
    """Run one target, and end the process as libFuzzer does."""
    target = TARGETS[name]

    def one(data: bytes) -> None:
        try:
            target.run(data)
        except Exception:
            print(f"FOUND by {name}: {data!r}", file=sys.stderr, flush=True)
            raise

    print(f"fuzzing {name}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        corpus = Path(scratch, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(target.seeds):
            (corpus / str(number)).write_bytes(seed)
        words = Path(scratch, "words")
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        options = [f"-max_total_time={seconds}", f"-runs={runs}", f"-max_len={_LONGEST}", f"-timeout={_SLOWEST}"]
        options += [
            f"-rss_limit_mb={_MEMORY}",
            f"-dict={words}",
            f"-artifact_prefix={scratch}/",
            "-print_final_stats=1",
        ]
        options += ["-seed=1"] if not LONG else []  # what it finds depends on no luck
        atheris.Setup([sys.argv[0], *options, str(corpus)], one)
        atheris.Fuzz()
    sys.exit()


def _escaped(word: str) -> str:
    """A word as libFuzzer's dictionaries have it."""
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


if __name__ == "__main__":
    main()
