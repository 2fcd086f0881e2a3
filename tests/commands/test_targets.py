"""One lock for several environments: ``targets`` of plugins.yaml."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

from tests.kit import pep751

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHER = "3.13" if HERE == "3.12" else "3.12"
POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
MODULES = {"tiny.py": "def register():\n    pass\n"}
MANIFEST = """
plugins:
  - {name: tiny, source: pypi, package: tiny}
targets:
  - {name: dev, base: here}
  - {name: production, base: production.json}
"""


def snapshot(place: Place, name: str = "production.json", **versions: str) -> Path:
    """This environment's, as another Python on another processor would have written it."""
    data: dict[str, Any] = place.run("base").json
    data["python"] = f"{OTHER}.1"
    data["platform"] = "linux-aarch64"
    data["platforms"] = ["manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "linux_aarch64"]
    data["markers"] |= {
        "python_version": OTHER,
        "python_full_version": f"{OTHER}.1",
        "implementation_version": f"{OTHER}.1",
        "platform_machine": "aarch64",
    }
    for item in data["distributions"]:
        item["version"] = versions.get(item["name"], item["version"])
    path = place.config / name
    path.write_text(json.dumps(data))
    return path


def platform_wheels(index: Index, name: str, version: str = "1.0", **fields: Any) -> None:
    """A release with a wheel for this Python and machine, and one for the other."""
    here = f"cp{HERE.replace('.', '')}"
    there = f"cp{OTHER.replace('.', '')}"
    wheel = index.wheel(name, version, **fields)
    for tag in (f"{here}-{here}-manylinux_2_17_x86_64", f"{there}-{there}-manylinux_2_28_aarch64"):
        shutil.copyfile(wheel, wheel.with_name(f"{name}-{version}-{tag}.whl"))
    wheel.unlink()


def test_one_lock_serves_two_kinds_of_machine(place: Place, index: Index) -> None:
    snapshot(place)
    platform_wheels(index, "core")
    index.wheel("shared")
    index.wheel("only_here")
    index.wheel("only_there")
    requires = [
        "shared",
        "core",
        f"only-here; python_version == '{HERE}'",
        "only-there; platform_machine == 'aarch64'",
        "vllm>=0.30",
    ]
    index.wheel("tiny", requires=requires, entry_points=POINTS, modules=MODULES)
    place.write(MANIFEST)
    done = place.run("lock")
    assert "1 plugin for 2 targets (dev: 4 packages, production: 4 packages)" in done.stdout
    pep751.read(place.locked)
    print(place.lock.read_text())
    assert place.run("lock").stdout == "plugins.lock is up to date: nothing to do\n"
    place.run("lock", "--check")
    place.run("sync")
    place.run("status")
    place.run("verify")
    assert {path.name for path in place.site.glob("*.dist-info")} == {
        f"{name}-1.0.dist-info" for name in ("tiny", "core", "shared", "only_here")
    }
