from __future__ import annotations

import py_compile
import re
import shutil
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import TYPE_CHECKING

import pytest

from tests.kit import pair
from vllm_plugins.startup import overlay
from vllm_plugins.startup.integrity import FILES

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Completed, Place
    from tests.kit.templates import Templates

MODULES = {
    "tiny/__init__.py": "def register():\n    pass\n",
    "tiny/data.txt": "data\n",
    "tiny/core.so": "not really\n",
    "json.py": "x = 1\n",
    "torch/__init__.py": "x = 1\n",
    "tiny.pth": "import sys\n",
}


@pytest.fixture
def synced(place: Place, index: Index, templates: Templates) -> Place:
    """A lock of one plugin from the index and one from a directory, installed."""
    points = {"vllm.general_plugins": {"tiny": "tiny:register"}}

    def make() -> None:
        pair.lock(place, index, helper="1.5", entry_points=points, modules=MODULES)
        place.run("sync", "--no-load-check")

    return templates.fill(place, index, make)


def forge(place: Place) -> None:
    """Make the store's own notes agree with what lies there now, as one would who can write to it."""
    directory = place.overlay
    files = sorted(path for path in place.site.rglob("*") if path.is_file())
    entries = [
        (path.relative_to(place.site).as_posix(), overlay.sha256(path.read_bytes()), path.stat().st_size)
        for path in files
    ]
    import json

    data = (json.dumps(entries, separators=(",", ":")) + "\n").encode()
    (directory / FILES).write_bytes(data)
    marker = overlay.read_marker(place.store, directory.name)
    assert marker is not None
    text = marker.replace(files_sha256=overlay.sha256(data)).to_json()
    (directory / overlay.MARKER).write_text(text, encoding="utf-8")


def problems(done: Completed) -> list[tuple[str, str]]:
    """The differences of files."""
    return [(item["kind"], item["path"]) for item in done.json["problems"]]


def test_an_unchanged_overlay_has_no_problems_and_some_notes(synced: Place) -> None:
    count = len([path for path in synced.site.rglob("*") if path.is_file()])
    size = sum(path.stat().st_size for path in synced.site.rglob("*") if path.is_file())
    assert synced.run("verify").stdout == (
        f"overlay {synced.overlay.name[:12]}: {count} files, {size / 1e3:.1f} kB, unchanged\n"
        "checked against RECORD and lock: 3 distributions\n"
        "checked against the wheel, too: 1; no wheel in plugins.wheels/: helper, tiny\n"
        "bytecode compiled again and compared: 1; with --recompile, all\n"
        "notes:\n"
        "  tiny.pth runs code when the overlay is activated\n"
        "  native libraries: tiny/core.so\n"
        "  module json is never imported: the standard library has a module of that name\n"
        "  module torch is never imported: the base has a module of that name\n"
    )


def test_a_change_of_any_file_is_found(synced: Place) -> None:
    whole = {path: path.read_bytes() for path in sorted(synced.site.rglob("*")) if path.is_file()}
    assert len(whole) > 15
    for path, data in whole.items():
        name = path.relative_to(synced.site).as_posix()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if data else b"x")
        assert ("changed", name) in problems(synced.run("verify", "--json", check=False)), name
        path.unlink()
        assert ("missing", name) in problems(synced.run("verify", "--json", check=False)), name
        path.write_bytes(data)
    assert synced.run("verify", "--json").json["problems"] == []


def test_the_error_names_each_problem(synced: Place) -> None:
    (synced.site / "tiny/__init__.py").write_text("changed\n")
    (synced.site / "tiny/data.txt").unlink()
    (synced.site / "tiny/new.py").write_text("")
    (synced.site / "tiny/elsewhere").symlink_to("/")
    done = synced.run("verify", "-q", check=False)
    assert done.returncode == 4
    assert done.stderr == (
        "vllm-plugins: error: the overlay has changed since it was installed: 4 problems [hash-mismatch]\n"
        f"  where: {synced.site}\n"
        "  changed: tiny/__init__.py\n"
        "  extra: tiny/elsewhere\n"
        "  extra: tiny/new.py\n"
        "  missing: tiny/data.txt\n"
        "  next: find out who changed it, then run vllm-plugins sync --reinstall\n"
    )
    synced.run("sync", "--reinstall", "--no-load-check")
    assert synced.run("verify").returncode == 0


def test_a_forged_list_of_files_does_not_hide_a_change(synced: Place) -> None:
    (synced.site / "tiny/data.txt").write_text("other\n")
    (synced.site / "tiny/new.py").write_text("")
    forge(synced)
    found = problems(synced.run("verify", "--json", check=False))
    assert found == [("differs-from-record", "tiny/data.txt"), ("in-no-record", "tiny/new.py")]


def test_a_forged_record_does_not_hide_a_change_from_the_wheel(synced: Place) -> None:
    record = synced.site / "mine_plugin-1.0.dist-info" / "RECORD"
    (module,) = synced.site.glob("mine_plugin/__init__.py")
    lines = [line for line in record.read_text().splitlines() if not line.startswith("mine_plugin/__init__.py")]
    module.write_text("evil = 1\n")
    compiled = Path(cache_from_source(str(module)))
    if compiled.exists():
        mode = PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(module), str(compiled), invalidation_mode=mode)
    import base64
    import hashlib

    digest = base64.urlsafe_b64encode(hashlib.sha256(module.read_bytes()).digest()).rstrip(b"=").decode()
    record.write_text("\n".join([f"mine_plugin/__init__.py,sha256={digest},9", *lines]) + "\n")
    forge(synced)
    done = synced.run("verify", "--json", check=False)
    assert (done.returncode, problems(done)) == (4, [("differs-from-its-wheel", "mine_plugin/__init__.py")])
    shutil.rmtree(synced.wheels)
    assert synced.run("verify", "--json").json["unanchored"] == ["helper", "mine-plugin", "tiny"]


def test_bytecode_of_another_source_is_found(synced: Place, tmp_path: Path) -> None:
    """Without a wheel, source, bytecode and list of files could be forged together: it is compared on request."""
    other = tmp_path / "other.py"
    other.write_text("def register():\n    print('evil')\n")

    def replace(package: str) -> tuple[str, str]:
        (compiled,) = synced.site.glob(f"{package}/__pycache__/__init__.*.pyc")
        py_compile.compile(str(other), str(compiled), invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
        forge(synced)
        return "not-compiled-from-its-source", compiled.relative_to(synced.site).as_posix()

    of_index = replace("tiny")
    assert problems(synced.run("verify", "--json", check=False)) == []
    assert problems(synced.run("verify", "--json", "--recompile", check=False)) == [of_index]
    built = replace("mine_plugin")
    assert problems(synced.run("verify", "--json", check=False)) == [built]
    assert problems(synced.run("verify", "--json", "--recompile", check=False)) == [built, of_index]


def test_a_changed_list_of_files_is_found(synced: Place) -> None:
    file = synced.overlay / FILES
    before = overlay.sha256(file.read_bytes())
    file.write_bytes(file.read_bytes() + b" ")
    done = synced.run("verify", "-q", check=False)
    assert done.returncode == 4
    assert done.stderr == (
        "vllm-plugins: error: the overlay's list of files is not the one that was published [hash-mismatch]\n"
        f"  where: {file}\n"
        f"  expected: sha256 {before}\n"
        f"  found: ValueError: its sha256 is {overlay.sha256(file.read_bytes())}\n"
        "  next: run vllm-plugins sync --reinstall\n"
    )


def test_a_lock_that_is_not_installed_can_not_be_verified(synced: Place) -> None:
    shutil.rmtree(synced.store)
    done = synced.run("verify", check=False)
    assert done.returncode == 1
    assert "the lock is not installed [not-installed]\n" in done.stderr


def test_startup_verifies_on_request(synced: Place) -> None:
    start = ("-m", "tests.kit.loader", "general")
    done = synced.python(*start, env={"VLLM_PLUGIN_VERIFY": "1"})
    assert re.search(r"Verified [0-9]+ files, [0-9]+\.[0-9] kB, in [0-9]+ ms\n", done.stderr)
    assert "Verified" not in synced.python(*start).stderr
    (synced.site / "tiny/__init__.py").write_text("changed\n")
    refused = synced.python(*start, env={"VLLM_PLUGIN_VERIFY": "1"}, check=False, traceback=True)
    assert refused.returncode == 1
    assert refused.stderr.endswith(
        "HashMismatch: the overlay is not as it was installed: 1 file differs [hash-mismatch]\n"
        f"  where: {synced.site}\n"
        "  changed: tiny/__init__.py\n"
        "  next: find out who changed it, then run vllm-plugins sync --reinstall\n"
    )
    passed = synced.python(*start, env={"VLLM_PLUGIN_VERIFY": "1", "VLLM_PLUGIN_ON_ERROR": "continue"})
    assert "going on without plugins" in passed.stderr
