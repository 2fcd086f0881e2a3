"""``python -m benchmarks [--rounds N] [--gate]``: lock, cold sync and the warm hook."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .measure import Row, clock, take_turns
from .world import world

if TYPE_CHECKING:
    from tests.kit.place import Place

# What vLLM has imported long before it calls plugins.
_START = "import dataclasses, hashlib, importlib.metadata, json, logging, subprocess, threading"
_HOOK = f"{_START}; from vllm_plugins.hook import general; general()"


def main() -> int:
    """Print a line for each promise; with ``--gate``, exit 1 where a figure is over its goal by half."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--gate", action="store_true", help="fail where a figure is over its goal by half")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vllm-plugins-bench-") as scratch, world(Path(scratch)) as place:
        rows = [
            lock_first(place, arguments.rounds),
            lock_again(place, arguments.rounds),
            sync_cold(place, arguments.rounds),
            hook_warm(place, arguments.rounds * 5),
        ]
    print("\n".join(map(str, rows)))
    return int(arguments.gate and any(row.value > row.goal * 1.5 for row in rows))


def lock_first(place: Place, rounds: int) -> Row:
    """A lock from nothing against pip-compile of the same requirements; both with warm caches of pip."""
    wanted = place.root / "wanted"
    wanted.mkdir()
    requirements = [f"plugin-{number}" for number in range(4)]
    (wanted / "in.txt").write_text("\n".join(requirements))
    # A bare pip-compile would walk through vLLM's releases; it gets the base as we give it.
    (wanted / "constraints.txt").write_text(_stubs(place, wanted))
    bare = [sys.executable, "-m", "piptools", "compile", "--generate-hashes", "--no-config", "-q"]
    bare += ["-c", "constraints.txt", "--cache-dir", "cache", "-o", "out.txt", "in.txt"]

    def theirs() -> float:
        (wanted / "out.txt").unlink(missing_ok=True)
        shutil.rmtree(wanted / "cache", ignore_errors=True)
        return clock(bare, place.environment, wanted)

    def ours() -> float:
        place.lock.unlink(missing_ok=True)
        return clock([sys.executable, "-m", "vllm_plugins", "lock"], place.environment, place.root)

    mine, other = take_turns(rounds, ours, theirs)
    return Row(what="lock, first", ours=mine, other="pip-compile --generate-hashes", others=other, goal=1.1)


def _stubs(place: Place, into: Path) -> str:
    from vllm_plugins import base, stubs

    found = base.read([str(path) for path in place.paths]).distributions
    return "".join(
        f"{item.name} @ {stubs.write(into, name=item.name, version=item.version).as_uri()}\n" for item in found
    )


def lock_again(place: Place, rounds: int) -> Row:
    """Nothing has changed: no resolution. The goal is half a second, as a ratio to an idle interpreter's start."""
    ours = lambda: clock([sys.executable, "-m", "vllm_plugins", "lock"], place.environment, place.root)  # noqa: E731
    idle = lambda: clock([sys.executable, "-c", "pass"], place.environment, place.root)  # noqa: E731
    mine, other = take_turns(rounds, ours, idle)
    return Row(
        what="lock, nothing changed", ours=mine, other="an idle interpreter", others=other, goal=500, figure="ms more"
    )


def sync_cold(place: Place, rounds: int) -> Row:
    """An empty store, a warm cache, uv, bytecode compiled; all of our checks are in it but the load check."""
    bare_target, requirements = place.root / "target", place.root / "requirements.txt"
    lines = [
        f"{package['name']}=={package['version']} "
        + " ".join(f"--hash=sha256:{wheel['hashes']['sha256']}" for wheel in package["wheels"])
        for package in place.locked["packages"]
    ]
    requirements.write_text("\n".join(lines))
    uv = ["uv", "pip", "install", "-q", "--python", sys.executable, "--require-hashes", "--no-deps"]
    uv += [
        "--only-binary",
        ":all:",
        "--link-mode",
        "copy",
        "--cache-dir",
        str(place.root / "uv-cache"),
        "--compile-bytecode",
    ]
    uv += ["--default-index", place.index_url or "", "--target", str(bare_target)]
    uv += ["--requirements", str(requirements)]

    def theirs() -> float:
        shutil.rmtree(bare_target, ignore_errors=True)
        return clock(uv, place.environment, place.root)

    def ours() -> float:
        shutil.rmtree(place.store, ignore_errors=True)
        return clock(
            [sys.executable, "-m", "vllm_plugins", "sync", "--installer", "uv", "--no-load-check"],
            place.environment,
            place.root,
        )

    mine, other = take_turns(rounds, ours, theirs)
    return Row(what="sync, cold, uv", ours=mine, other="uv pip install --compile-bytecode", others=other, goal=1.5)


def hook_warm(place: Place, rounds: int) -> Row:
    """The hook in step, in a fresh process that has imported what vLLM has; import of the hook included."""
    clock([sys.executable, "-c", _HOOK], place.environment, place.root)
    cached = {**place.environment, "PYTHONDONTWRITEBYTECODE": ""}
    ours = lambda: clock([sys.executable, "-c", _HOOK], cached, place.root)  # noqa: E731
    idle = lambda: clock([sys.executable, "-c", _START], cached, place.root)  # noqa: E731
    mine, other = take_turns(rounds, ours, idle)
    return Row(
        what="hook, in step, whole process",
        ours=mine,
        other="the same without us",
        others=other,
        goal=5,
        figure="ms more",
    )


if __name__ == "__main__":
    sys.exit(main())
