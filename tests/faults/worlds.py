"""A tiny world that is ready to be broken, again and again: two manifests, their locks and wheels, and their overlays."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from tests.kit import projects
from tests.kit.place import Place
from vllm_plugins.documents import lock_reader, selection
from vllm_plugins.startup import integrity, overlay

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NOWHERE", "World", "make"]

NOWHERE = "http://127.0.0.1:9/"  # an index that nobody answers for
POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
MODULE = "VERSION = {version!r}\n\n\ndef register():\n    pass\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """``place`` is what is broken; ``old`` and ``new`` are configurations, ``stored`` a store with the old overlay."""

    place: Place
    old: Path
    new: Path
    stored: Path
    scratch: Path = field(repr=False)

    def reset(self, config: Path, *, lock: Path | None, stored: bool) -> None:
        """Begin again: this configuration, with the lock of that or none, on an empty store or on the old one's."""
        cache = self.place.root / "cache" / "vllm-plugins"
        kept = (cache / "metadata", cache / "stubs")  # what one run of `lock` keeps, the next would not write
        for directory in (self.place.config, self.place.store, self.scratch, *kept):
            shutil.rmtree(directory, ignore_errors=True)
        self.scratch.mkdir()
        wheels = self.place.wheels.name
        shutil.copytree(
            config, self.place.config, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.lock", wheels)
        )
        if lock is not None:
            shutil.copyfile(lock / self.place.lock.name, self.place.lock)
            shutil.copytree(lock / wheels, self.place.wheels)
        if stored:
            shutil.copytree(self.stored, self.place.store)
            history = self.place.store / overlay.HISTORY  # it says which lock an overlay is of, by its path
            text = history.read_text(encoding="utf-8")
            history.write_text(text.replace(f'"{self.stored.parent}/', f'"{self.place.root}/'), encoding="utf-8")

    def problems(self) -> list[str]:
        """What is wrong with what there is: overlays that are not whole, and a lock whose wheels are not there."""
        found = []
        for directory in self.place.overlays:
            marker = overlay.read_marker(self.place.store, directory.name)
            if marker is None:
                found.append(f"no marker: {directory}")
            else:
                found += integrity.compare(self.place.store, marker).problems
        if self.place.lock.exists():
            for wheel in lock_reader.read(self.place.lock).local_wheels:
                if selection.find_wheel(self.place.wheels / wheel.filename, wheel.sha256) is None:
                    found.append(f"no wheel: {wheel.filename}")
        return found

    def litter(self) -> list[str]:
        """What nobody will ever use: the store's stage, temporary files and directories of ours."""
        root = self.place.root
        found = [
            *self.scratch.glob("vllm-plugins-*"),
            *(self.place.store / "staging").glob("*"),
            *root.rglob("*.tmp"),
        ]
        return sorted(str(path.relative_to(root.parent)) for path in found)

    def key(self, config: Path) -> str:
        """The overlay's key of a configuration."""
        return overlay.key_of((config / "plugins.lock").read_bytes())


def make(root: Path, vllm: Path, *, files: int = 1) -> World:
    """A world below ``root``. ``files`` is how many modules the plugin has."""
    old, new, stored = _templates(vllm, files)
    scratch = root / "tmp"
    scratch.mkdir()
    place = Place(root=root / "place", index_url=NOWHERE, paths=(vllm,), variables={"TMPDIR": str(scratch)})
    place.config.mkdir(parents=True, exist_ok=True)
    return World(place=place, old=old, new=new, stored=stored, scratch=scratch)


@cache
def _templates(vllm: Path, files: int) -> tuple[Path, Path, Path]:
    """Write and lock both configurations, and install the old one: once a session, next to ``vllm``."""
    root = vllm.with_name(f"world-{files}")
    template = Place(root=root / "template", index_url=NOWHERE, paths=(vllm,))
    configs = []
    for version in ("1.0", "2.0"):
        modules = {f"more_{number}.py": f"N = {number}\n" for number in range(1, files)}
        modules["tiny.py"] = MODULE.format(version=version)
        shutil.rmtree(template.config)
        project = template.config / "tiny"
        projects.project(project, name="tiny", version=version, entry_points=POINTS, modules=modules)
        template.write(f"# {version}\nplugins:\n  - {{name: tiny, source: local, path: tiny}}\n")
        template.run("lock", "--resolver", "uv")
        if version == "1.0":
            template.run("sync")
        configs.append(shutil.copytree(template.config, root / f"config-{version}"))
    return configs[0], configs[1], template.store
