"""What is measured on: indexes on loopback, a base of 150 distributions, and plugins of any number and weight."""

from __future__ import annotations

import base64
import hashlib
import random
import shutil
import zipfile
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, TypeVar

from tests.kit import vllm
from tests.kit.place import Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.index import Index, Server

__all__ = [
    "DISTANCE",
    "DISTRIBUTIONS",
    "START",
    "TINY",
    "Size",
    "Worlds",
    "fill",
    "heavy",
    "lock_and_install",
    "make",
    "place",
    "text",
]

# What vLLM has imported long before it calls plugins, as far as it is the standard library and matters here: all that
# the hook needs is among it (vLLM 0.32 has 295 modules of the standard library by then).
START = (
    "import __future__, argparse, contextlib, dataclasses, errno, fcntl, hashlib, importlib.metadata, json, logging, "
    "pathlib, site, subprocess, sys, tempfile, threading, time, typing"
)
DISTRIBUTIONS = 150
DISTANCE = 0.02  # seconds that an index takes to answer: one on loopback is nearer than anybody's
# The other kinds of machines that a compiled distribution has wheels for.
_TAGS = ("cp310-cp310", "cp312-cp312", "cp313-cp313")
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64", "macosx_11_0_arm64", "win_amd64")


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """``plugins``, each with its own ``helpers`` (other distributions that it needs) and with vLLM.

    Each wheel has ``modules`` and ``data`` bytes that can't be compressed. Every other helper is ``compiled``: its
    releases have a dozen wheels more, for other machines. ``group`` is that of the plugins' entry points.
    """

    plugins: int = 4
    helpers: int = 3
    modules: int = 60
    data: int = 500_000
    compiled: bool = False
    group: str = "vllm.general_plugins"


# Logits processors: vLLM itself asks for them by name, so that what is measured is the manager and no plugin.
TINY = Size(plugins=1, helpers=0, modules=1, data=10, group="vllm.logits_processors")
Either = TypeVar("Either")


@dataclass(frozen=True, kw_only=True, slots=True)
class Worlds:
    """What a run measures on, made when the first case asks for it. The ``short`` form has the same, smaller."""

    server: Server
    root: Path
    short: bool = False
    made: dict[str, Place] = field(default_factory=dict)

    def size(self, whole: Either, *, short: Either) -> Either:
        """Which of two sizes this run has."""
        return short if self.short else whole

    def once(self, name: str, make: Callable[[Path], Place]) -> Place:
        """The place of that name, which ``make`` makes in a new directory."""
        if name not in self.made:
            self.made[name] = make(self.root / name)
        return self.made[name]

    def installed(self, size: Size) -> Place:
        """A place with plugins of that size, locked and installed; all cases that ask for this size share it."""
        name = "-".join(map(str, astuple(size)))

        def install(root: Path) -> Place:
            made = make(self.server, root, name, size)
            lock_and_install(made)
            return made

        return self.once(name, install)


def lock_and_install(place: Place) -> None:
    """Lock a place and install its plugins, with uv and without a load check."""
    place.run("lock", "--resolver", "uv")
    place.run("sync", "--installer", "uv", "--no-load-check")


def place(root: Path, index: Index, *, distributions: int = DISTRIBUTIONS) -> Place:
    """A user's world with that index and a base of so many distributions."""
    base = vllm.environment(root / "base")
    for number in range(distributions - len(vllm.DISTRIBUTIONS)):
        vllm.distribution(base, f"base-{number}", "1.0")
    return Place(root=root, index_url=index.url, paths=(base,))


def make(server: Server, root: Path, name: str, size: Size, *, releases: bool = False, distance: float = 0) -> Place:
    """An index with the plugins of that size, and a place whose manifest asks for all of them."""
    index = server.index(name, releases=releases, distance=distance)
    fill(index, size)
    root.mkdir()
    made = place(root, index)
    made.pypi(*(f"plugin-{number}" for number in range(size.plugins)))
    return made


def fill(index: Index, size: Size) -> None:
    """Lay the wheels of that many plugins into an index; helpers have an older release, too."""
    noise = random.Random(0)
    for number in range(size.plugins):
        helpers = [f"helper-{number * size.helpers + i}" for i in range(size.helpers)]
        points = {size.group: {f"plugin_{number}": f"plugin_{number}:register"}}
        modules = _modules(f"plugin_{number}", noise, size)
        index.wheel(f"plugin-{number}", requires=["vllm", "torch", *helpers], entry_points=points, modules=modules)
        for i, helper in enumerate(helpers):
            for version in ("1.0", "1.1"):
                wheel = index.wheel(helper, version, modules=_modules(helper.replace("-", "_"), noise, size))
                if size.compiled and i % 2:
                    _copy_for_others(wheel)


def _copy_for_others(wheel: Path) -> None:
    stem = wheel.name.removesuffix("-py3-none-any.whl")
    for tag in _TAGS:
        for platform in _PLATFORMS:
            shutil.copyfile(wheel, wheel.with_name(f"{stem}-{tag}-{platform}.whl"))


def _modules(name: str, noise: random.Random, size: Size) -> dict[str, str]:
    source = "def register():\n    pass\n" + "".join(
        f"\n\ndef function_{i}(one, two=None):\n    return [one + item for item in two or ()]\n" for i in range(40)
    )
    modules = {f"{name}/module_{i}.py": source for i in range(size.modules)}
    return {f"{name}/__init__.py": source, **modules, f"{name}/data.txt": text(noise, size.data)}


def text(noise: random.Random, characters: int) -> str:
    """So many characters that can hardly be compressed; choosing one after the other would take a minute in all."""
    return base64.b64encode(noise.randbytes(characters * 3 // 4)).decode()


def heavy(directory: Path, name: str, megabytes: int) -> Path:
    """Write a wheel with one file of that size into a directory, without holding it in memory."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-1.0-py3-none-any.whl"
    noise, digest, rows = random.Random(0), hashlib.sha256(), []
    info = f"{name}-1.0.dist-info"
    small = {
        f"{name}/__init__.py": b"def register():\n    pass\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[vllm.general_plugins]\n{name} = {name}:register\n".encode(),
    }
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open(f"{name}/weights.bin", "w") as file:
            for _ in range(megabytes):
                chunk = noise.randbytes(1_000_000)
                digest.update(chunk)
                file.write(chunk)
        rows.append(_row(f"{name}/weights.bin", digest.digest(), megabytes * 1_000_000))
        for file_name, data in small.items():
            archive.writestr(file_name, data)
            rows.append(_row(file_name, hashlib.sha256(data).digest(), len(data)))
        archive.writestr(f"{info}/RECORD", "".join(rows) + f"{info}/RECORD,,\n")
    return path


def _row(name: str, digest: bytes, size: int) -> str:
    return f"{name},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{size}\n"
