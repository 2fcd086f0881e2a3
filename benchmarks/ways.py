"""``python -m benchmarks.ways -o docs/assets/until-it-answers.svg``: what you would do instead, until vLLM answers.

Each way brings the same locked wheels to a real vLLM server, whose start is measured with it. Needs ``VLLM_PYTHON``.
"""

from __future__ import annotations

import argparse
import functools
import html
import operator
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kit import index as indexes
from tests.vllm import environment, server

from .measure import use
from .servers import WITHOUT, place_around_vllm
from .syncs import write_requirements
from .world import DISTANCE, Size, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.kit.place import Place

    from .measure import Used

_PLUGINS = 8
_TOP, _ROW, _LEFT, _WIDTH, _RIGHT = 58, 44, 300, 400, 150  # pixels
_HASHED = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement", "requirements.txt"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to plugins: ``prepare`` runs before the server starts, with the variables ``env``."""

    label: str
    detail: str
    is_ours: bool
    prepare: Callable[[], Used | None]
    env: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A way with its medians: seconds of preparation, and of the server's start."""

    way: Way
    before: float
    start: float


def main() -> int:
    """Measure each way, print a line for it, and draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ways", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns that count; one more comes first (0: it counts)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the picture, as SVG")
    arguments = parser.parse_args()
    python = os.environ.get("VLLM_PYTHON")
    if python is None:
        parser.error("set VLLM_PYTHON to the Python of an environment with vLLM, such as .tox/vllm-cpu/bin/python")
    with tempfile.TemporaryDirectory(prefix="vllm-plugins-ways-") as scratch:
        root = Path(scratch)
        (root / "indexes").mkdir()
        with indexes.serve(root / "indexes") as index_server:
            place = _place(index_server, root / "place", python)
            model = environment.model(Path(python), root / "llama")
            ways = _ways(place)
            turns = [[_run(place, model, way) for way in ways] for _ in range(arguments.rounds + 1)]
    turns = turns[1:] or turns
    bars = [
        Bar(
            way=way,
            before=statistics.median(turn[number][0] for turn in turns),
            start=statistics.median(turn[number][1] for turn in turns),
        )
        for number, way in enumerate(ways)
    ]
    for bar in bars:
        print(f"{bar.way.label} ({bar.way.detail}): {bar.before:.1f} s, then {bar.start:.1f} s until it answers")
    arguments.output.write_text(_picture(bars), encoding="utf-8")
    return 0


def _place(index_server: indexes.Server, root: Path, python: str) -> Place:
    """A place around vLLM with eight plugins of four wheels each, locked."""
    index = index_server.index("ways", distance=DISTANCE)
    fill(index, Size(plugins=_PLUGINS))
    place = place_around_vllm(index, root, python, _PLUGINS)
    write_requirements(place)
    return place


def _ways(place: Place) -> list[Way]:
    target = place.root / "target"
    path = f"{place.environment.get('PYTHONPATH', '')}:{target}"
    instead = {"VLLM_PLUGIN_DISABLE": "1", "PYTHONPATH": path}
    pip = [place.interpreter, "-m", "pip", "install", "--quiet", *_HASHED, "--target", str(target)]
    uv = ["uv", "pip", "install", "--quiet", "--python", place.interpreter, "--link-mode", "copy", *_HASHED]
    uv += [
        "--cache-dir",
        str(place.root / "uv-cache"),
        "--default-index",
        place.index_url or "",
        "--target",
        str(target),
    ]
    layer = str(place.root / "layer.tar.gz")
    pack = ["tar", "-czf", layer, "-C", str(target), "."]
    unpack = ["sh", "-c", f"rm -rf {target} && mkdir {target} && tar -xzf {layer} -C {target}"]

    def commands(*argvs: Sequence[str]) -> Callable[[], Used]:
        def run() -> Used:
            shutil.rmtree(target, ignore_errors=True)
            return functools.reduce(operator.add, (use(argv, place.environment, place.root) for argv in argvs))

        return run

    def forget() -> None:
        shutil.rmtree(place.store, ignore_errors=True)

    return [
        Way(label="vLLM alone", detail="no plugins", is_ours=False, prepare=_nothing, env={"VLLM_PLUGINS": WITHOUT}),
        Way(label="vllm-plugins, first start", detail="installs from the lock", is_ours=True, prepare=forget, env={}),
        Way(label="vllm-plugins, each later start", detail="up to date", is_ours=True, prepare=_nothing, env={}),
        Way(label="uv pip install", detail="at each start", is_ours=False, prepare=commands(uv), env=instead),
        Way(
            label="pip install",
            detail="init container, each start",
            is_ours=False,
            prepare=commands(pip),
            env=instead,
        ),
        Way(
            label="image rebuild",
            detail="pip, pack and unpack the layer",
            is_ours=False,
            prepare=commands(pip, pack, unpack),
            env=instead,
        ),
    ]


def _nothing() -> None:
    """The way of those who prepare nothing."""


def _run(place: Place, model: Path, way: Way) -> tuple[float, float]:
    """Seconds of the preparation, without what it removes first, and from then on until the server answers."""
    used = way.prepare()
    began = time.perf_counter()
    with server.serve(place, model, **way.env):
        return 0.0 if used is None else used.seconds, time.perf_counter() - began


def _picture(bars: Sequence[Bar]) -> str:
    """A bar for each way. Its colours follow the reader's scheme, and its text is readable in either."""
    height, width = _TOP + _ROW * len(bars) + 44, _LEFT + _WIDTH + _RIGHT
    scale = _WIDTH / max(bar.before + bar.start for bar in bars)
    label = "Seconds until a vLLM server answers, by way of installing plugins"
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{label}">',
        "<style>text { font: 14px system-ui, sans-serif; fill: #1f2328 }",
        ".title { font-size: 16px; font-weight: 600 }",
        ".small { font-size: 12px; fill: #59636e } .paper { fill: #ffffff; stroke: #d1d9e0 }",
        ".start { fill: #b6bec8 } .before { fill: #bc4c00 } .ours { fill: #1a7f37 }",
        "@media (prefers-color-scheme: dark) { text { fill: #f0f6fc } .small { fill: #9198a1 }",
        ".paper { fill: #0d1117; stroke: #3d444d } .start { fill: #59636e } .before { fill: #db6d28 }",
        ".ours { fill: #3fb950 } }</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="6"/>',
        f'<text class="title" x="16" y="28">Seconds until a vLLM server with {_PLUGINS} plugins answers</text>',
    ]
    for number, bar in enumerate(bars):
        parts += _bar(bar, _TOP + number * _ROW, scale, plain=bars[0].start)
    left = _TOP + _ROW * len(bars) + 20
    notes = (
        "Grey: vLLM's own start, with a tiny model. Colour: what plugins add. Caches are warm; the image is built",
        "and unpacked on one machine, and pushed and pulled nowhere.",
    )
    parts += [f'<text class="small" x="16" y="{left + 15 * n}">{note}</text>' for n, note in enumerate(notes)]
    return "\n".join([*parts, "</svg>", ""])


def _bar(bar: Bar, top: int, scale: float, *, plain: float) -> list[str]:
    """The row of one way. Of our own starts, what takes longer than vLLM alone is ours."""
    start = min(bar.start, plain) if bar.way.is_ours else bar.start
    total = bar.before + bar.start
    edge = _LEFT + round((total - start) * scale)
    kind = "ours" if bar.way.is_ours else "before"
    end = edge + round(start * scale)
    return [
        f'<text x="{_LEFT - 12}" y="{top + 13}" text-anchor="end">{html.escape(bar.way.label)}</text>',
        f'<text class="small" x="{_LEFT - 12}" y="{top + 29}" text-anchor="end">{html.escape(bar.way.detail)}</text>',
        f'<rect class="{kind}" x="{_LEFT}" y="{top + 4}" width="{edge - _LEFT}" height="22"/>',
        f'<rect class="start" x="{edge}" y="{top + 4}" width="{end - edge}" height="22"/>',
        f'<text x="{end + 8}" y="{top + 20}">{total:.1f} s</text>',
    ]


if __name__ == "__main__":
    sys.exit(main())
