"""Installing this project next to vLLM changes no distribution that is there, and works with what is there.

pip is the exception: an older one is upgraded. ``pip freeze`` leaves it out, vLLM does not use it, and pip before 25.3
reads some wheels and indexes in another way.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import uv
from tests.kit.place import Place

if TYPE_CHECKING:
    from tests.kit.index import Index

pytestmark = pytest.mark.network

ROOT = Path(__file__).parents[1]
RELEASES = sorted((ROOT / "tests/golden/releases").glob("*.txt"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uv.build(ROOT, tmp_path_factory.mktemp("wheel"))


def write_environment(directory: Path, pins: list[str]) -> Path:
    """A virtual environment that has the metadata of these distributions, and nothing else of them."""
    python = uv.environment(sys.executable, directory)
    (site,) = directory.glob("lib/python3.*/site-packages")
    for pin in pins:
        name, _, version = pin.partition("==")
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text(f"{info.name}/METADATA,,\n")
    return python


def pins_of(release: Path) -> list[str]:
    lines = release.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_uv_would_change_nothing_of_a_release_of_vllm(release: Path, wheel: Path, tmp_path: Path) -> None:
    python = write_environment(tmp_path / "env", pins_of(release))
    changes = uv.dry_run(python, f"{wheel}[uv,audit,sbom,terminal]")
    assert any(change.startswith("+ vllm-plugin-manager ") for change in changes), changes
    assert not [change for change in changes if not change.startswith("+ ")]


def test_pip_would_change_nothing_of_the_oldest_release(wheel: Path, tmp_path: Path) -> None:
    pins = pins_of(RELEASES[0])
    python = write_environment(tmp_path / "env", pins)
    report = tmp_path / "report.json"
    argv = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--dry-run",
        "--quiet",
        "--report",
        report,
        wheel,
    ]
    subprocess.run([str(word) for word in argv], check=True)
    installed = {item["metadata"]["name"].lower() for item in json.loads(report.read_text())["install"]}
    assert "vllm-plugin-manager" in installed
    assert not installed & {pin.partition("==")[0] for pin in pins}


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_the_oldest_versions_that_may_be_there_lock_install_and_start(
    installer: str, wheel: Path, vllm: Path, index: Index, tmp_path: Path
) -> None:
    """``lowest-direct`` takes the lower bound of everything that ``pyproject.toml`` names."""
    python = uv.environment(sys.executable, tmp_path / "env")
    uv.install(python, "--resolution", "lowest-direct", f"{wheel}[uv]")
    place = Place(root=tmp_path / "place", index_url=index.url, paths=(vllm,), interpreter=str(python))
    place.variables["VLLM_PLUGIN_INSTALLER"] = installer
    index.wheel("helper", "1.0")
    points = {"vllm.general_plugins": {"tiny": "tiny:register"}}
    module = "def register():\n    print('the plugin ran')\n"
    index.wheel("tiny", "1.0", requires=["helper"], entry_points=points, modules={"tiny.py": module})
    place.pypi("tiny")
    place.run("lock")
    place.run("lock", "--check")
    start = "from vllm_plugins.startup.hook import general\ngeneral()\n"
    assert place.python("-c", start).stdout == "the plugin ran\n"
    assert place.run("status").stdout.splitlines()[-1] == "up to date"
    place.run("verify")
    place.run("export", "--format", "pylock", "-o", tmp_path / "pylock.toml")
    (tmp_path / "place/store").rename(tmp_path / "old store")
    place.run("sync")
    assert place.python("-c", start).stdout == "the plugin ran\n"
