"""What is measured on: a loopback index with sixteen wheels of 12 MB in all, and a base of 150 distributions."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.kit import index as indexes
from tests.kit import vllm
from tests.kit.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.index import Index

PLUGINS = 4
WHEELS = 16
DISTRIBUTIONS = 150
MODULES_PER_WHEEL = 60
DATA_PER_WHEEL = 500_000  # bytes that can't be compressed


@contextmanager
def world(root: Path) -> Iterator[Place]:
    """Four plugins, each needing three more distributions and vLLM."""
    with indexes.serve(_directory(root / "indexes")) as server:
        index = server.index("bench")
        _fill(index)
        base = vllm.environment(root / "base")
        for number in range(DISTRIBUTIONS - len(vllm.DISTRIBUTIONS)):
            vllm.distribution(base, f"base-{number}", "1.0")
        place = Place(root=root, index_url=index.url, paths=(base,))
        place.pypi(*(f"plugin-{number}" for number in range(PLUGINS)))
        yield place


def _fill(index: Index) -> None:
    noise = random.Random(0)
    helpers = [f"helper-{number}" for number in range(WHEELS - PLUGINS)]
    for number in range(PLUGINS):
        own = helpers[number * 3 : number * 3 + 3]
        points = {"vllm.general_plugins": {f"plugin_{number}": f"plugin_{number}:register"}}
        modules = _modules(f"plugin_{number}", noise)
        index.wheel(f"plugin-{number}", requires=["vllm", "torch", *own], entry_points=points, modules=modules)
    for helper in helpers:
        for version in ("1.0", "1.1"):
            index.wheel(helper, version, modules=_modules(helper.replace("-", "_"), noise))


def _modules(name: str, noise: random.Random) -> dict[str, str]:
    source = "def register():\n    pass\n" + "".join(
        f"\n\ndef function_{i}(one, two=None):\n    return [one + item for item in two or ()]\n" for i in range(40)
    )
    modules = {f"{name}/module_{i}.py": source for i in range(MODULES_PER_WHEEL)}
    data = "".join(chr(noise.randrange(33, 127)) for _ in range(DATA_PER_WHEEL))
    return {f"{name}/__init__.py": source, **modules, f"{name}/data.txt": data}


def _directory(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
