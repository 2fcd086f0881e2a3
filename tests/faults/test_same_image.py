"""One lock gives one image, whoever builds it: ``tox -e faults-long`` builds a hundred."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from .campaign import LONG

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

BUILDS = 100 if LONG else 2
ZONES = ("UTC", "Asia/Kathmandu", "America/Caracas")
MODES = (0o022, 0o077, 0o002)


def test_every_build_gives_one_digest(place: Place, index: Index, templates: Templates, tmp_path: Path) -> None:
    """Installers, directories, times, time zones, umasks and orders of sets differ."""

    def make() -> None:
        for name in ("helper", "other", "third"):
            index.wheel(name, modules={f"{name}/{part}.py": f"{part} = 1\n" for part in ("__init__", "a", "b")})
        index.wheel(
            "tiny",
            requires=["helper", "other", "third"],
            entry_points={"vllm.general_plugins": {"tiny": "tiny:register"}},
            modules={"tiny.py": "def register(): ...\n"},
        )
        place.pypi("tiny")
        place.run("lock")

    templates.fill(place, index, make)
    digests = set()
    for number in range(BUILDS):
        directory = tmp_path / f"build-{number}"
        store = ("--registry-dir", directory / "store")
        env = {"PYTHONHASHSEED": str(number), "TZ": ZONES[number % 3], "SOURCE_DATE_EPOCH": str(number * 10**7)}
        installer = ("--installer", ("pip", "uv")[number % 2])
        place.run("sync", *store, *installer, env=env, umask=MODES[number % 3], fresh=True)
        done = place.run("push", f"oci:{directory / 'images'}:v1", "--json", *store, env=env, fresh=True)
        digests.add(done.json["digest"])
        shutil.rmtree(directory)
    assert len(digests) == 1
