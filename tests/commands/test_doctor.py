from __future__ import annotations

import json
import os
import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects, vllm
from tests.kit.place import Place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.templates import Templates

POINTS = {
    "vllm.general_plugins": {"tiny": "tiny:run"},
    "vllm.logits_processors": {"bend": "tiny:run"},
    "vllm.endpoint_plugins": {"route": "tiny:run"},
}
MODULES = {"tiny.py": "def run():\n    pass\n"}
RIGHT = "export VLLM_PLUGINS=vllm_plugins,route,tiny"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A vLLM environment of this test's own."""
    return vllm.environment(tmp_path / "base")


@pytest.fixture
def healthy(tmp_path: Path, index: Index, base: Path, templates: Templates) -> Place:
    """Locked and installed, and everything let through."""
    place = Place(root=tmp_path, index_url=index.url, paths=(base,), resolver="uv")
    place.variables["VLLM_PLUGINS"] = "vllm_plugins,tiny,route"

    def make() -> None:
        index.wheel("tiny", requires=["vllm"], entry_points=POINTS, modules=MODULES)
        place.pypi("tiny")
        place.run("lock")
        place.run("sync")

    return templates.fill(place, index, make)


def findings(place: Place, **env: str) -> list[dict[str, str]]:
    done = place.run("doctor", "--json", env=env, check=False)
    found: list[dict[str, str]] = done.json["findings"]
    assert done.returncode == (1 if found else 0)
    return found


def test_nothing_is_wrong(healthy: Place) -> None:
    done = healthy.run("doctor")
    assert (done.stdout, done.returncode) == ("nothing is wrong\n", 0)


def test_a_finding_reads_well(healthy: Place) -> None:
    done = healthy.run("doctor", env={"VLLM_PLUGIN_DISABLE": "1"}, check=False)
    assert done.stdout == (
        "1. the hook is told to do nothing\n"
        "   evidence: VLLM_PLUGIN_DISABLE=1\n"
        "   mend:     unset VLLM_PLUGIN_DISABLE\n"
    )


def allowlist(what: str, value: str) -> dict[str, str]:
    return {"what": what, "evidence": f"VLLM_PLUGINS={shlex.quote(value)}", "mend": RIGHT}


LEFT_OUT = "VLLM_PLUGINS leaves locked plugins out: "


def test_the_allowlist(healthy: Place) -> None:
    without = "VLLM_PLUGINS leaves vllm_plugins out: vLLM never calls the hook"
    assert findings(healthy, VLLM_PLUGINS="tiny,route") == [allowlist(without, "tiny,route")]
    assert findings(healthy, VLLM_PLUGINS="vllm_plugins,tiny") == [
        allowlist(f"{LEFT_OUT}route (tiny, vllm.endpoint_plugins)", "vllm_plugins,tiny")
    ]
    assert findings(healthy, VLLM_PLUGINS="vllm_plugins,route") == [
        allowlist(
            f'{LEFT_OUT}tiny (tiny, vllm.general_plugins); naming route, an endpoint plugin, turned "all" off',
            "vllm_plugins,route",
        )
    ]
    assert findings(healthy, VLLM_PLUGINS="vllm_plugins, tiny,route") == [
        allowlist(
            "VLLM_PLUGINS names what no plugin is called: ' tiny' (vLLM splits at commas and strips nothing)",
            "vllm_plugins, tiny,route",
        ),
        allowlist(
            f'{LEFT_OUT}tiny (tiny, vllm.general_plugins); naming route, an endpoint plugin, turned "all" off',
            "vllm_plugins, tiny,route",
        ),
    ]
    del healthy.variables["VLLM_PLUGINS"]
    assert findings(healthy) == [
        {
            "what": "endpoint plugins load only when VLLM_PLUGINS names them: route",
            "evidence": "VLLM_PLUGINS is not set",
            "mend": RIGHT,
        }
    ]


def test_the_right_value_keeps_what_the_base_loads_by_itself(healthy: Place, base: Path) -> None:
    wheel = projects.wheel(base, "resolver", entry_points={"vllm.general_plugins": {"lora": "resolver:run"}})
    vllm.unpack(wheel, base)
    (found,) = findings(healthy, VLLM_PLUGINS="tiny,route,lora")
    assert found["mend"] == "export VLLM_PLUGINS=vllm_plugins,lora,route,tiny"
    assert findings(healthy, VLLM_PLUGINS="vllm_plugins,lora,route,tiny") == []


def test_a_lock_that_is_missing_stale_or_not_installed(healthy: Place) -> None:
    lock = healthy.lock.read_bytes()
    healthy.lock.unlink()
    assert findings(healthy)[0]["what"] == "the lock is missing"
    healthy.lock.write_bytes(lock)
    manifest = healthy.manifest.read_bytes()
    healthy.manifest.write_text("plugins: []\n")
    (found,) = findings(healthy)
    assert found["what"] == "the lock is out of date: the manifest has changed since it was locked"
    assert found["mend"] == f"vllm-plugins lock --config {healthy.manifest}"
    healthy.manifest.write_bytes(manifest)
    healthy.lock.write_bytes(b"# another layout\n" + lock)
    (found,) = findings(healthy)
    assert (found["what"], found["mend"]) == ("the lock is not installed", "vllm-plugins sync")


def test_another_base_and_another_copy(healthy: Place, base: Path) -> None:
    vllm.distribution(base, "tiny", "0.9", modules={"tiny.py": ""})
    whats = {item["what"]: item for item in findings(healthy)}
    assert "the lock does not fit this vLLM environment" in whats
    copy = whats["another copy of tiny is in vLLM's environment, and is imported first"]
    assert copy["evidence"] == f"{base}/tiny-0.9.dist-info"
    assert copy["mend"] == f"{sys.executable} -m pip uninstall tiny"
    shadow = whats["vLLM's environment has a module tiny, which is imported instead of the overlay's"]
    assert shadow["evidence"] == f"{base}/tiny.py"


def test_a_stale_egg_info(healthy: Place, base: Path) -> None:
    (base / "tiny.egg-info").mkdir()
    whats = {item["what"]: item for item in findings(healthy)}
    copy = whats["another copy of tiny is in vLLM's environment, and is imported first"]
    assert copy["mend"] == f"rm -r {base}/tiny.egg-info"


def test_a_module_that_the_base_has(healthy: Place, base: Path) -> None:
    (base / "tiny.py").write_text("")
    (found,) = findings(healthy)
    assert found["what"] == "vLLM's environment has a module tiny, which is imported instead of the overlay's"


def test_a_plugin_that_plugs_into_nothing_or_into_a_taken_name(healthy: Place, base: Path, index: Index) -> None:
    index.wheel("nothing")
    wheel = projects.wheel(base, "resolver", entry_points={"vllm.general_plugins": {"tiny": "resolver:run"}})
    vllm.unpack(wheel, base)
    healthy.pypi("tiny", "nothing")
    healthy.run("lock")
    healthy.run("sync")
    assert [(item["what"], item["evidence"]) for item in findings(healthy)] == [
        (
            "plugin 'nothing' has no vLLM entry point: vLLM has nothing to call",
            f"nothing 1.0 in {healthy.lock}",
        ),
        (
            "plugin 'tiny' has an entry point whose name the base uses: tiny in vllm.general_plugins",
            "resolver has tiny in vllm.general_plugins too; vLLM keeps one plugin a name",
        ),
    ]


def test_a_plugin_that_does_not_load(healthy: Place, index: Index) -> None:
    index.wheel("tiny", "2.0", entry_points=POINTS, modules={"tiny.py": "raise RuntimeError('no')\n"})
    healthy.run("lock", "--upgrade")
    healthy.run("sync", check=False)
    found = findings(healthy)
    assert len(found) == 3
    assert found[0]["what"] == "plugin 'tiny' can't be loaded: RuntimeError: no"


def test_an_interpreter_without_vllm(bare_place: Place) -> None:
    bare_place.write("plugins: []\n")
    bare_place.run("lock")
    bare_place.run("sync")
    (found,) = findings(bare_place)
    assert found["what"] == "the interpreter that runs this command has no vLLM"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_the_store_of_somebody_else(healthy: Place) -> None:
    os.chown(healthy.store, 12345, 12345)
    healthy.store.chmod(0o777)
    assert [(item["what"], item["mend"]) for item in findings(healthy)] == [
        ("the store belongs to somebody else, who decides what vLLM runs", f"chown -R 0 {healthy.store}"),
        ("everybody may write to the store, and so decide what vLLM runs", f"chmod o-w {healthy.store}"),
    ]


def test_json_is_data(healthy: Place) -> None:
    assert json.loads(healthy.run("doctor", "--json").stdout) == {"findings": []}
