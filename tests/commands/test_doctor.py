from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects, vllm
from tests.kit.long import long
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


def test_a_healthy_place_has_no_findings_and_a_list_of_checks(healthy: Place) -> None:
    done = healthy.run("doctor")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "checked:",
        "  ok  interpreter and hook",
        "  ok  environment variables",
        "  ok  plugins.yaml, plugins.lock, vLLM environment and overlay",
        "  ok  local sources",
        "  ok  names of entry points",
        "  ok  copies of distributions",
        "  ok  names of modules",
        "  ok  permissions of lock, manifest and store",
        "  ok  the last start of vLLM",
        "",
        "no problems found",
    ]


def test_a_finding_has_evidence_and_a_fix(healthy: Place) -> None:
    done = healthy.run("doctor", env={"VLLM_PLUGIN_DISABLE": "1"}, check=False)
    assert done.stdout.startswith(
        "1. the hook is disabled\n"
        "   evidence: VLLM_PLUGIN_DISABLE=1\n"
        "   next:     unset VLLM_PLUGIN_DISABLE\n"
        "\n"
        "checked:\n"
    )
    assert "  see above (1)  environment variables\n" in done.stdout


def allowlist(what: str, value: str) -> dict[str, str | None]:
    return {"what": what, "evidence": f"VLLM_PLUGINS={shlex.quote(value)}", "next_step": RIGHT, "error": None}


LEFT_OUT = "VLLM_PLUGINS leaves out locked plugins: "


def test_the_allowlist(healthy: Place) -> None:
    without = "VLLM_PLUGINS does not name vllm_plugins: vLLM never calls the hook"
    assert findings(healthy, VLLM_PLUGINS="tiny,route") == [allowlist(without, "tiny,route")]
    assert findings(healthy, VLLM_PLUGINS="vllm_plugins,tiny") == [
        allowlist(f"{LEFT_OUT}route (tiny, vllm.endpoint_plugins)", "vllm_plugins,tiny")
    ]
    assert findings(healthy, VLLM_PLUGINS="vllm_plugins,route") == [
        allowlist(
            f"{LEFT_OUT}tiny (tiny, vllm.general_plugins); naming the endpoint plugin route turns off all others",
            "vllm_plugins,route",
        )
    ]
    assert findings(healthy, VLLM_PLUGINS="vllm_plugins, tiny,route") == [
        allowlist(
            "VLLM_PLUGINS names entry points that don't exist: ' tiny' (vLLM splits at commas and keeps spaces)",
            "vllm_plugins, tiny,route",
        ),
        allowlist(
            f"{LEFT_OUT}tiny (tiny, vllm.general_plugins); naming the endpoint plugin route turns off all others",
            "vllm_plugins, tiny,route",
        ),
    ]
    del healthy.variables["VLLM_PLUGINS"]
    assert findings(healthy) == [
        {
            "what": "endpoint plugins are loaded only if VLLM_PLUGINS names them: route",
            "evidence": "VLLM_PLUGINS is not set",
            "next_step": RIGHT,
            "error": None,
        }
    ]


def test_the_right_value_keeps_what_the_base_loads_by_itself(healthy: Place, base: Path) -> None:
    wheel = projects.wheel(base, "resolver", entry_points={"vllm.general_plugins": {"lora": "resolver:run"}})
    vllm.unpack(wheel, base)
    found, *_ = findings(healthy, VLLM_PLUGINS="tiny,route,lora")
    assert found["next_step"] == "export VLLM_PLUGINS=vllm_plugins,lora,route,tiny"
    healthy.run("sync")  # the base has changed
    assert findings(healthy, VLLM_PLUGINS="vllm_plugins,lora,route,tiny") == []


def test_a_lock_that_is_missing_stale_or_not_installed(healthy: Place) -> None:
    lock = healthy.lock.read_bytes()
    healthy.lock.unlink()
    assert findings(healthy)[0]["what"] == "the lock is missing"
    healthy.lock.write_bytes(lock)
    manifest = healthy.manifest.read_bytes()
    healthy.manifest.write_text("plugins: []\n")
    found, later = findings(healthy)
    assert (found["error"], found["next_step"]) == ("lock-out-of-date", "vllm-plugins lock")
    assert (later["error"], later["next_step"]) == ("overlay-out-of-date", "vllm-plugins sync")
    healthy.manifest.write_bytes(manifest)
    healthy.lock.write_bytes(b"# another layout\n" + lock)
    (found,) = findings(healthy)
    assert (found["what"], found["next_step"]) == ("the lock is not installed", "vllm-plugins sync")


def test_another_base_and_another_copy(healthy: Place, base: Path) -> None:
    vllm.distribution(base, "tiny", "0.9", modules={"tiny.py": ""})
    whats = {item["what"]: item for item in findings(healthy)}
    assert "the lock does not fit this vLLM environment" in whats
    copy = whats["vLLM's environment has another copy of tiny, which is imported instead"]
    assert copy["evidence"] == f"{base}/tiny-0.9.dist-info"
    assert copy["next_step"] == "vllm-plugins lock"
    shadow = whats["vLLM's environment has a module tiny, which is imported instead of the plugin's"]
    assert shadow["evidence"] == f"{base}/tiny.py"


def test_a_stale_egg_info(healthy: Place, base: Path) -> None:
    (base / "tiny.egg-info").mkdir()
    whats = {item["what"]: item for item in findings(healthy)}
    copy = whats["vLLM's environment has another copy of tiny, which is imported instead"]
    assert copy["next_step"] == f"make the vLLM environment again, without {base}/tiny.egg-info"


def test_a_module_that_the_base_has(healthy: Place, base: Path) -> None:
    (base / "tiny.py").write_text("")
    (found,) = findings(healthy)
    assert found["what"] == "vLLM's environment has a module tiny, which is imported instead of the plugin's"


def test_a_plugin_that_plugs_into_nothing_or_into_a_taken_name(healthy: Place, base: Path, index: Index) -> None:
    index.wheel("nothing")
    healthy.pypi("tiny", "nothing")
    healthy.run("lock")
    healthy.run("sync")
    wheel = projects.wheel(base, "resolver", entry_points={"vllm.general_plugins": {"tiny": "resolver:run"}})
    vllm.unpack(wheel, base)
    (found,) = [item for item in findings(healthy) if "name that is taken" in item["what"]]
    assert (found["what"], found["error"]) == (
        "plugin 'tiny' has an entry point of a name that is taken, and vLLM calls one of each name",
        "base-mismatch",
    )
    assert "resolver in the vLLM environment has it" in found["evidence"]
    assert healthy.run("doctor", "--json", check=False).json["notes"] == [
        (
            "plugin 'nothing' has no vLLM entry point: vLLM loads it where you name it; "
            "to have that checked, add `loads: [module:attribute]` in plugins.yaml"
        )
    ]


def test_a_plugin_that_does_not_load(healthy: Place, index: Index) -> None:
    index.wheel("tiny", "2.0", entry_points=POINTS, modules={"tiny.py": "raise RuntimeError('no')\n"})
    healthy.run("lock", "--upgrade")
    healthy.run("sync", check=False)
    (found,) = findings(healthy)
    assert (found["what"], found["error"]) == ("3 entry points failed", "plugin-load-failed")
    assert found["evidence"].count("plugin 'tiny' can't be loaded: RuntimeError: no") == 3


def test_doctor_and_status_report_the_same_problems(healthy: Place, base: Path) -> None:
    (healthy.site / "tiny.py").unlink()
    vllm.distribution(base, "newcomer", "1.0")
    healthy.manifest.write_text("plugins: []\n")
    status = healthy.run("status", "--json", check=False).json
    ids = [problem["error"] for problem in status["problems"]]
    assert ids == ["lock-out-of-date", "overlay-out-of-date", "hash-mismatch"]
    assert [item["error"] for item in findings(healthy) if item["error"]] == ids


def test_a_missing_module_in_the_store_is_found_and_repaired_by_the_fix(healthy: Place) -> None:
    (healthy.site / "tiny.py").unlink()
    (found,) = findings(healthy)
    assert found["what"] == "the overlay has changed since it was installed: 1 file"
    assert "missing: tiny.py" in found["evidence"]
    assert healthy.run("status", check=False).returncode == 4
    command, *words = shlex.split(found["next_step"])
    assert command == "vllm-plugins"
    healthy.run(*words)
    assert findings(healthy) == []


def test_the_last_start_that_failed_is_shown_until_one_succeeds(healthy: Place, index: Index) -> None:
    flag = healthy.root / "flag"
    module = (
        f"import os\n\n\ndef run():\n    if os.path.exists({str(flag)!r}):\n        raise RuntimeError('no device')\n"
    )
    index.wheel("tiny", "2.0", entry_points=POINTS, modules={"tiny.py": module})
    healthy.run("lock", "--upgrade")
    healthy.run("sync")
    flag.touch()
    start = ("-m", "tests.kit.loader", "general")
    assert healthy.python(*start, check=False, traceback=True).returncode == 1
    (found,) = findings(healthy)
    assert found["what"] == "the last start of vLLM failed: plugin 'tiny' raised an error: RuntimeError: no device"
    assert found["error"] == "plugin-load-failed"
    assert f"{found['what']}; to see why: vllm-plugins doctor" in healthy.run("status").stdout
    flag.unlink()
    healthy.python(*start)
    assert findings(healthy) == []


def test_a_failed_start_says_what_was_changed_since(healthy: Place) -> None:
    """The error's own next step was done: it would lead in a circle."""
    start = ("-m", "tests.kit.loader", "general")
    healthy.write("plugins:\n  - {name: tiny, source: pypi, package: tiny, version: '>=1'}\n")
    assert healthy.python(*start, check=False, traceback=True).returncode == 1
    assert "the last start" not in healthy.run("status", check=False).stdout  # the problem of now says as much
    healthy.run("lock")
    healthy.run("sync")
    (found,) = findings(healthy)
    assert found["what"].startswith("the last start of vLLM failed: the lock is out of date")
    assert found["evidence"].endswith("; changed since: plugins.lock, the installed overlay")
    assert found["next_step"] == "start vLLM again, which removes this note if it succeeds"
    assert "changed since: plugins.lock, the installed overlay" in healthy.run("status").stdout
    healthy.python(*start)
    assert findings(healthy) == []


def test_an_edited_local_source_is_found(healthy: Place) -> None:
    project = projects.project(healthy.config / "mine", name="mine")
    healthy.write("plugins:\n  - {name: mine, source: local, path: mine}\n")
    healthy.run("lock")
    healthy.run("sync")
    healthy.variables["VLLM_PLUGINS"] = "vllm_plugins"
    assert findings(healthy) == []
    (project / "src/mine/__init__.py").write_text("edited = True\n")
    (found,) = findings(healthy)
    assert found["what"] == "the source of plugin 'mine' has changed since it was locked"
    healthy.run("lock")
    healthy.run("sync")
    assert findings(healthy) == []


@pytest.mark.parametrize("editable", [True, *long(False)])
def test_an_editable_plugin_whose_directory_is_gone_is_found(healthy: Place, *, editable: bool) -> None:
    project = projects.project(healthy.config / "mine", name="mine")
    healthy.write(f"plugins:\n  - {{name: mine, source: local, path: mine, editable: {str(editable).lower()}}}\n")
    healthy.run("lock")
    healthy.run("sync")
    healthy.variables["VLLM_PLUGINS"] = "vllm_plugins"
    assert findings(healthy) == []
    project.rename(healthy.config / "moved")
    assert [found["what"] for found in findings(healthy)] == (
        ["the local directory does not exist"] if editable else []  # an image has only the wheel
    )
    done = healthy.run("lock", check=False)
    assert "the local directory does not exist" in done.stderr
    assert "next: change `path` of plugin 'mine' in plugins.yaml" in done.stderr


def test_an_interpreter_without_vllm(bare_place: Place) -> None:
    bare_place.write("plugins: []\n")
    bare_place.run("lock")
    bare_place.run("sync")
    (found,) = findings(bare_place)
    assert found["what"] == "the Python interpreter of this command has no vLLM"


@pytest.mark.parametrize("is_there", [True, False])
def test_the_manager_is_installed_from_a_file_that_is_still_there(
    bare_place: Place, tmp_path: Path, *, is_there: bool
) -> None:
    wheel = tmp_path / "the manager.whl"
    if is_there:
        wheel.touch()
    info = tmp_path / "path" / "vllm_plugin_manager-7.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-plugin-manager\nVersion: 7.0\n")
    (info / "direct_url.json").write_text(json.dumps({"url": wheel.as_uri(), "archive_info": {}}))
    code = (
        "import sys\nfrom vllm_plugins.documents import state\n"
        "from vllm_plugins.review import doctor\nfrom vllm_plugins.startup import settings\n"
        "found = state.read(settings.Settings.from_environment())\nsys.path.insert(0, sys.argv[1])\n"
        "print(doctor.examine(found, {}).findings[0].fix)"
    )
    step = bare_place.python("-c", code, info.parent).stdout.rstrip("\n")
    assert step.endswith(f"-m pip install '{wheel}'" if is_there else "-m pip install vllm-plugin-manager==7.0")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_the_store_of_somebody_else(healthy: Place) -> None:
    os.chown(healthy.store, 12345, 12345)
    (found,) = findings(healthy)
    assert found["what"] == f"another user owns {healthy.store}, so nothing is run from there"
    assert found["next_step"].startswith(f"chown 0 {healthy.store}, or mount it read-only")
    assert healthy.run("status", "--json", check=False).json["problem"]["error"] == "not-trusted"


@pytest.mark.parametrize("name", ["lock", "store", "site"])
def test_what_every_user_can_write(healthy: Place, name: str) -> None:
    path = {"lock": healthy.lock, "store": healthy.store, "site": healthy.site}[name]
    path.chmod(path.stat().st_mode | 0o002)
    (found,) = findings(healthy)
    assert (found["error"], found["what"].startswith(f"all users can write to {path}")) == ("not-trusted", True)
    status = healthy.run("status", check=False)
    assert (status.returncode, found["what"] in status.stdout) == (1, True)
    assert found["what"] in healthy.run("verify").stdout
    assert found["what"] in healthy.run("sync").stderr
    healthy.variables["VLLM_PLUGIN_TRUST"] = "any"
    assert findings(healthy) == []


def test_json_is_data(healthy: Place) -> None:
    report = json.loads(healthy.run("doctor", "--json").stdout)
    assert (report["findings"], report["notes"]) == ([], [])
    assert {check["finding_count"] for check in report["checks"]} == {0}
