"""The guard in one process: what it finds, and what it refuses."""

from __future__ import annotations

import builtins
import importlib
import importlib.metadata
import json
import logging
import os
import pickle
import pkgutil
import py_compile
import shutil
import sys
import sysconfig
import threading
import types
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.startup import overlays
from vllm_plugins.core import hashes, verified_import
from vllm_plugins.core.errors import HashMismatch, NotTrusted, PluginsError
from vllm_plugins.startup import activation, guard, integrity, overlay, permissions
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_plugins.startup.marker import Marker

FILES = {
    "guarded.py": "X = 1\n",
    "guarded_package/__init__.py": "",
    "guarded_package/inner.py": "X = 2\n",
    "guarded_package/data.txt": "data",
    "guarded-1.0.dist-info/METADATA": "Name: guarded\nVersion: 1.0\n",
    "guarded-1.0.dist-info/entry_points.txt": "[some.group]\nname = guarded:X\n",
    "guarded_a-3.0.dist-info/METADATA": "Name: guarded_a\nVersion: 3.0\n",
}


@pytest.fixture(autouse=True)
def _process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path_hooks", [*sys.path_hooks])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(guard, "_refused", {})
    monkeypatch.setattr(guard, "_linked", set())
    verified_import.compared.clear()
    with overlays.process(tmp_path, monkeypatch):
        monkeypatch.setenv("VLLM_PLUGIN_VERIFY", "1")
        yield
    verified_import.compared.clear()
    for name in [name for name in sys.modules if name.startswith("guarded")]:
        del sys.modules[name]
    sys.path_importer_cache.clear()


@pytest.fixture
def marker(tmp_path: Path) -> Marker:
    return overlays.write(tmp_path / "store", b"lock", FILES)


@pytest.fixture
def site(tmp_path: Path, marker: Marker) -> Path:
    return overlay.directory(tmp_path / "store", marker.key) / overlay.SITE


def names() -> list[str]:
    return [point.value for point in importlib.metadata.entry_points(group="some.group")]


def test_a_linked_overlay_is_found_once_it_is_compared(site: Path) -> None:
    guard.link(str(site))
    assert sys.path[-1] == f"/dev/null{site}"
    assert not os.path.exists(sys.path[-1])
    assert verified_import.compared == {}
    module = importlib.import_module("guarded")
    assert (module.X, module.__file__) == (1, str(site / "guarded.py"))
    assert set(verified_import.compared[str(site)]) == set(FILES)
    assert importlib.import_module("guarded_package.inner").X == 2
    assert names() == ["guarded:X"]
    assert importlib.metadata.version("guarded") == "1.0"
    assert importlib.metadata.version("guarded_a") == "3.0"
    assert list(activation._held) == [site.parent.name]
    assert pkgutil.get_data("guarded_package", "data.txt") == b"data"
    guard.link(str(site))
    assert sys.path.count(f"/dev/null{site}") == 1


def test_its_metadata_is_found_after_the_environments(site: Path, tmp_path: Path) -> None:
    guard.link(str(site))
    (tmp_path / "base" / "guarded-2.0.dist-info").mkdir(parents=True)
    (tmp_path / "base" / "guarded-2.0.dist-info" / "METADATA").write_text("Name: guarded\nVersion: 2.0\n")
    sys.path.insert(0, str(tmp_path / "base"))
    assert importlib.metadata.version("guarded") == "2.0"
    assert [found.version for found in importlib.metadata.distributions(name="guarded")] == ["2.0", "1.0"]
    assert list(importlib.metadata.distributions(name="guarded", path=[])) == []


@pytest.mark.parametrize("how", ["link", "parent", "slashes"])
def test_another_name_of_a_directory_is_guarded_too(site: Path, tmp_path: Path, how: str) -> None:
    """Packages extend their paths with what realpath() gives, or with names that contain ``..``."""
    (tmp_path / "alias").symlink_to(tmp_path / "store")
    package = site / "guarded_package"
    names = {
        "link": str(package).replace("/store/", "/alias/"),
        "parent": f"{package}/../guarded_package",
        "slashes": f"{site}//guarded_package",
    }
    guard.link(str(site))
    module = importlib.import_module("guarded_package")
    module.__path__ = [names[how]]
    assert importlib.import_module("guarded_package.inner").X == 2
    del sys.modules["guarded_package.inner"]
    (package / "inner.py").write_text("X = 3  # changed\n")
    with pytest.raises(HashMismatch, match="was changed after"):
        importlib.import_module("guarded_package.inner")


def test_without_the_guard_the_entry_is_of_nothing(site: Path) -> None:
    sys.path.append(f"/dev/null{site}")
    assert names() == []
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("guarded")
    guard.inherit(sys.path[-1])  # the entry was found to be empty before
    assert importlib.import_module("guarded").X == 1


def test_an_entry_that_is_pickled_is_an_entry(site: Path) -> None:
    entry = guard.Entry(f"/dev/null{site}")
    with pytest.MonkeyPatch.context() as patch:  # without the hooks, nothing else can be imported
        patch.setattr(sys, "path_hooks", [])
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            loaded = pickle.loads(pickle.dumps([entry], protocol))
            assert [(type(item), item) for item in loaded] == [(guard.Entry, entry)]
        assert len(sys.path_hooks) == 1


@pytest.mark.parametrize(
    "name", ["guarded.py", "guarded_package/data.txt", "guarded-1.0.dist-info/METADATA", "new.py"]
)
def test_an_overlay_that_differs_is_not_found(site: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / name).write_text("changed")
    guard.link(str(site))
    assert names() == []
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("guarded")
    # In vLLM, the hook raises the error. An import can't wait for that, nor can a start without the hook.
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    assert names() == []
    with pytest.raises(HashMismatch, match="the overlay is not as it was installed"):
        importlib.import_module("guarded")
    monkeypatch.setenv("VLLM_PLUGINS", "vllm_plugins,name")
    assert names() == []
    monkeypatch.setenv("VLLM_PLUGINS", "name")
    with pytest.raises(HashMismatch):
        names()
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "continue")
    assert names() == []
    assert activation._held == {}


def test_an_invalid_variable_is_an_error_in_vllm(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGIN_VERIFY", "yes")
    guard.link(str(site))
    assert names() == []
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    with pytest.raises(PluginsError, match="invalid value"):
        names()


def test_an_overlay_that_is_not_trusted_is_not_found(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard.link(str(site))
    (site / "guarded_package").chmod(0o777)
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    with pytest.raises(NotTrusted, match="all users can write to"):
        importlib.import_module("guarded")
    (site / "guarded_package").chmod(0o755)
    guard._refused.clear()
    assert importlib.import_module("guarded").X == 1


@pytest.mark.parametrize("what", ["", "overlays/KEY", "overlays/KEY/overlay.json", "overlays/KEY/files.json"])
def test_nobody_else_can_write_to_the_place_of_an_overlay(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    guard.link(str(site))
    path = tmp_path / "store" / what.replace("KEY", site.parent.name)
    path.chmod(0o777)
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    with pytest.raises(NotTrusted) as caught:
        importlib.import_module("guarded")
    assert caught.value.where == str(path)
    assert activation._held == {}


def test_an_overlay_of_a_parent_process_is_compared_again(site: Path, marker: Marker, tmp_path: Path) -> None:
    settings = variables.Settings.from_environment()
    sys.path.append(str(site))
    guard.follow(settings, marker.key)
    assert sys.path[-1] == f"/dev/null{site}"
    assert importlib.import_module("guarded").X == 1
    verified_import.compared.clear()
    (site / "guarded.py").write_text("X = 3\n")
    with pytest.raises(HashMismatch, match="not as it was installed"):
        guard.follow(settings, marker.key)


@pytest.mark.parametrize("name", ["store", "alias"])
def test_a_finder_of_a_plain_name_is_not_used_after_the_comparison(
    site: Path, marker: Marker, tmp_path: Path, name: str
) -> None:
    """Packages put such names on their paths. Python keeps the finder of each, which compares nothing."""
    (tmp_path / "alias").symlink_to(tmp_path / "store")
    guard.close()
    sys.path.append(str(site).replace("/store/", f"/{name}/"))
    assert importlib.util.find_spec("guarded") is not None
    guard.check(variables.Settings.from_environment(), marker)
    (site / "guarded.py").write_text("X = 3\n")
    with pytest.raises(HashMismatch):
        importlib.import_module("guarded")


def test_only_directories_of_guarded_overlays_have_a_finder(site: Path, tmp_path: Path) -> None:
    guard.close()
    for entry in ("/usr", "/dev/null/usr", str(site), f"/dev/null{site}/guarded.py", f"/dev/null{site}/gone"):
        with pytest.raises(ImportError, match="not a directory of a guarded overlay"):
            guard._finder(entry)
    assert guard._finder(f"/dev/null{site}").path == str(site)
    verified_import.compared[str(site)] = {}
    assert guard._finder(str(site)).path == str(site)


def test_other_entries_of_a_path_have_no_metadata_here(site: Path) -> None:
    guard.link(str(site))
    other: Any = object()
    context = importlib.metadata.DistributionFinder.Context(path=[other, "/dev/null/usr", "", str(site)])
    assert list(guard.Distributions.find_distributions(context)) == []
    assert list(guard.FrontDistributions.find_distributions(context)) == []
    assert verified_import.compared == {}


def test_the_comparison_finds_nothing_in_the_overlay_that_it_compares(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It imports what it needs later. A module of that name in the overlay would run before it is compared."""
    check, looked = permissions.check_files, []

    def check_files(settings: variables.Settings, directory: Path) -> None:
        looked.append(importlib.util.find_spec("guarded_package"))
        check(settings, directory)

    monkeypatch.setattr(permissions, "check_files", check_files)
    guard.link(str(site))
    assert importlib.import_module("guarded").X == 1
    assert looked == [None]


def test_a_forked_process_does_not_wait_for_threads_that_are_not_in_it(site: Path) -> None:
    guard.link(str(site))
    guard._busy.append(str(site))
    assert names() == []
    guard._unlock()
    assert names() == ["guarded:X"]


@pytest.fixture
def front(tmp_path: Path) -> str:
    files = {f"{overlay.FRONT}/{name}": text for name, text in FILES.items()}
    marker = overlays.write(tmp_path / "store", b"front", files)
    return overlay.front(tmp_path / "store", marker.key)


def test_an_override_is_found_in_front_of_the_base(front: str, tmp_path: Path) -> None:
    (tmp_path / "base" / "guarded-2.0.dist-info").mkdir(parents=True)
    (tmp_path / "base" / "guarded-2.0.dist-info" / "METADATA").write_text("Name: guarded\nVersion: 2.0\n")
    (tmp_path / "base" / "guarded.py").write_text("X = 2\n")
    sys.path.insert(0, str(tmp_path / "base"))
    guard.link_front(front)
    guard.link_front(front)
    assert [entry for entry in sys.path if front in entry] == [sys.path[0]] == [f"/dev/null{front}"]
    assert verified_import.compared == {}
    assert importlib.metadata.version("guarded") == "1.0"
    module = importlib.import_module("guarded")
    assert (module.X, module.__file__) == (1, f"{front}/guarded.py")


def test_a_changed_override_is_refused(front: str) -> None:
    guard.link_front(front)
    Path(front, "guarded.py").write_text("X = 3\n")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("guarded")
    assert names() == []


def test_overrides_with_a_disabled_hook_are_where_the_overlay_is(front: str) -> None:
    variables.disable()
    variables.pass_on(variables.FALLBACK, None)
    guard.link_front(front)
    assert sys.path[0] == front


def test_path_files_of_an_inherited_overlay_are_not_read_again(tmp_path: Path) -> None:
    marker = overlays.write(tmp_path / "store", b"other", {**FILES, "more.pth": "guarded_package\n"})
    site = overlay.directory(tmp_path / "store", marker.key) / overlay.SITE
    sys.path.append(guard.inherit(f"/dev/null{site}"))
    assert names() == ["guarded:X"]
    assert sys.path[-1] == f"/dev/null{site}"


def test_a_pipe_in_the_place_of_a_file_is_refused(site: Path) -> None:
    guard.link(str(site))
    importlib.import_module("guarded_package")
    (site / "guarded_package" / "data.txt").unlink()
    os.mkfifo(site / "guarded_package" / "data.txt")
    with pytest.raises(HashMismatch):
        pkgutil.get_data("guarded_package", "data.txt")


def test_two_overlays_are_compared_each_with_its_own_list(tmp_path: Path, site: Path) -> None:
    other = overlays.write(tmp_path / "store", b"second", {"guarded_second.py": "X = 7\n"})
    second = overlay.directory(tmp_path / "store", other.key) / overlay.SITE
    guard.link(str(site))
    guard.link(str(second))
    assert importlib.import_module("guarded").X == 1
    assert importlib.import_module("guarded_second").X == 7
    assert importlib.import_module("guarded_package").__name__ == "guarded_package"


@pytest.mark.parametrize("what", ["marker", "overlay"])
def test_an_overlay_that_is_gone_is_not_found(site: Path, what: str) -> None:
    guard.link(str(site))
    if what == "marker":
        (site.parent / overlay.MARKER).unlink()
    else:
        shutil.rmtree(site.parent)
    assert names() == []


def test_a_module_that_changes_after_the_comparison_is_refused(site: Path) -> None:
    guard.link(str(site))
    assert importlib.import_module("guarded_package").__file__ is not None
    (site / "guarded_package" / "inner.py").write_text("X = 3\n")
    (site / "guarded_package" / "more.py").write_text("X = 4\n")
    for name, expected in (("inner", "sha256 "), ("more", "no file of this name")):
        with pytest.raises(HashMismatch, match="changed after this process had verified it") as caught:
            importlib.import_module(f"guarded_package.{name}")
        assert str(caught.value.expected).startswith(expected)
        assert caught.value.where == str(site / "guarded_package" / f"{name}.py")
    with pytest.raises(HashMismatch):
        pkgutil.get_data("guarded_package", "more.py")
    with pytest.raises(FileNotFoundError):
        pkgutil.get_data("guarded_package", "gone.txt")


def test_a_link_in_the_place_of_a_module_is_refused(site: Path, tmp_path: Path) -> None:
    guard.link(str(site))
    assert names() == ["guarded:X"]
    (site / "guarded.py").rename(tmp_path / "elsewhere.py")
    (site / "guarded.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(HashMismatch):
        importlib.import_module("guarded")


def test_bytecode_that_is_not_in_the_list_is_not_read(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    guard.link(str(site))
    assert names() == ["guarded:X"]
    source = site.parent / "other.py"
    source.write_text("X = 5\n")
    cached = Path(importlib.util.cache_from_source(str(site / "guarded.py")))
    cached.parent.mkdir()
    py_compile.compile(str(source), str(cached), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert importlib.import_module("guarded").X == 1
    assert importlib.import_module("guarded_package.inner").X == 2
    assert not (site / "guarded_package" / "__pycache__").exists()


def _extension() -> Path:
    name = f"_heapq{sysconfig.get_config_var('EXT_SUFFIX')}"
    for directory in (sysconfig.get_path("platstdlib"), str(sysconfig.get_config_var("DESTSHARED"))):
        for path in (Path(directory, "lib-dynload", name), Path(directory, name)):
            if path.exists():
                return path
    pytest.skip("this interpreter has no extension module of its own")


def test_extension_modules_and_modules_without_source(tmp_path: Path, marker: Marker, site: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("X = 6\n")
    extension = _extension()
    shutil.copyfile(extension, site / "guarded_package" / extension.name)
    py_compile.compile(str(source), str(site / "guarded_bare.pyc"))
    files = {
        path.relative_to(site).as_posix(): overlay.sha256(path.read_bytes())
        for path in site.rglob("*")
        if path.is_file()
    }
    guard._admit(str(site), files)
    guard.link(str(site))
    module = importlib.import_module("guarded_package._heapq")
    assert module.__file__ == str(site / "guarded_package" / extension.name)
    assert importlib.import_module("guarded_bare").X == 6
    for name, path in (("guarded_package._heapq", module.__file__), ("guarded_bare", str(site / "guarded_bare.pyc"))):
        del sys.modules[name]
        with open(path, "ab") as file:
            file.write(b"\0")
        with pytest.raises(HashMismatch):
            importlib.import_module(name)


def test_closing_guards_overlays_and_what_is_in_them(site: Path) -> None:
    other: Any = Path("/elsewhere")  # not a text, which coverage can take, too
    inner = str(site / "guarded_package")
    sys.path[:] = ["/somewhere", other, str(site), inner, f"/dev/null{site}"]
    guard.close()
    path: list[Any] = sys.path
    assert path == ["/somewhere", other, f"/dev/null{site}", f"/dev/null{inner}"]
    assert [type(entry) is guard.Entry for entry in path] == [False, False, True, True]
    assert importlib.import_module("inner").__file__ == f"{inner}/inner.py"
    del sys.modules["inner"]
    activation.deactivate()
    assert sys.path == ["/somewhere", other, f"/dev/null{inner}"]


def test_path_files_of_a_linked_overlay_are_read_once_it_is_compared(tmp_path: Path) -> None:
    marker = overlays.write(tmp_path / "store", b"other", {**FILES, "more.pth": "guarded_package\n"})
    site = overlay.directory(tmp_path / "store", marker.key) / overlay.SITE
    guard.link(str(site))
    assert sys.path[-1] == f"/dev/null{site}"
    assert names() == ["guarded:X"]
    assert sys.path[-2:] == [f"/dev/null{site}", f"/dev/null{site}/guarded_package"]


@pytest.mark.parametrize(("fallback", "expected"), [(None, ""), ("", "/dev/null")])
def test_a_link_with_a_disabled_hook(site: Path, fallback: str | None, expected: str) -> None:
    """Plugins are vLLM's affair, unless a parent process goes on without any."""
    variables.disable()
    variables.pass_on(variables.FALLBACK, fallback)
    guard.link(str(site))
    guard.link(str(site))
    assert [entry for entry in sys.path if str(site) in entry] == [f"{expected}{site}"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", None),
        ("/store/site", None),
        ("/store/overlays/0/site", None),
        (f"/store/overlays/{'0' * 32}", None),
        (f"/store/overlays/{'0' * 32}/sites", None),
        (f"/store/overlays/{'0' * 32}/site", f"/store/overlays/{'0' * 32}/site"),
        (f"/store/overlays/{'0' * 32}/site/a/site", f"/store/overlays/{'0' * 32}/site"),
        (f"/store/overlays/{'0' * 32}/site/a/overlays/b", f"/store/overlays/{'0' * 32}/site"),
        (f"/store/overlays/{'0' * 32}/site/overlays/{'1' * 32}/site", f"/store/overlays/{'0' * 32}/site"),
        (f"/overlays/overlays/{'0' * 32}/site", f"/overlays/overlays/{'0' * 32}/site"),
        (f"/overlays/a/overlays/{'0' * 32}/site/overlays/b", f"/overlays/a/overlays/{'0' * 32}/site"),
        (f"/my/overlays/store/overlays/{'0' * 32}/site/a", f"/my/overlays/store/overlays/{'0' * 32}/site"),
    ],
)
def test_the_overlay_of_a_path(path: str, found: str | None) -> None:
    assert guard._site_of(path) == found


def test_a_file_that_is_opened_by_its_path_is_compared(site: Path) -> None:
    guard.link(str(site))
    importlib.import_module("guarded_package")
    path = site / "guarded_package" / "data.txt"
    verified_import.check_file(str(path))
    path.write_text("DATA")
    with pytest.raises(HashMismatch, match="changed after"):
        verified_import.check_file(str(path))


def test_a_module_that_the_overlay_does_not_have_opens_nothing(site: Path) -> None:
    guard.link(str(site))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("guarded_by_nobody")
    assert verified_import.compared == {}


@pytest.mark.parametrize("inside", ["", "/guarded_inner"])
def test_an_archive_that_changes_after_the_comparison_is_refused(site: Path, tmp_path: Path, inside: str) -> None:
    """Python's own finder reads it, when a process begins to import from it."""
    archive = site / "guarded_package" / "code.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("guarded_zipped.py"), "X = 4\n")
        file.writestr(zipfile.ZipInfo("guarded_inner/guarded_deep.py"), "X = 5\n")
    rows = [[name, hashes.of_file(site / name), (site / name).stat().st_size] for name in FILES]
    rows.append(["guarded_package/code.zip", hashes.of_file(archive), archive.stat().st_size])
    data = json.dumps(rows).encode()
    (site.parent / integrity.FILES).write_bytes(data)
    path = site.parent / overlay.MARKER
    found = overlay.read_marker(tmp_path / "store", site.parent.name)
    assert found is not None
    path.write_text(found.replace(files_sha256=overlay.sha256(data)).to_json())
    guard.link(str(site))
    importlib.import_module("guarded")
    sys.path.append(f"{archive}{inside}")
    name = "guarded_deep" if inside else "guarded_zipped"
    assert importlib.import_module(name).X in (4, 5)
    del sys.modules[name]
    sys.path_importer_cache.clear()
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(HashMismatch, match="changed after"):
        importlib.import_module(name)


def test_only_what_the_list_of_files_has_is_read_after_the_comparison(site: Path, tmp_path: Path) -> None:
    guard.link(str(site))
    importlib.import_module("guarded")
    verified_import.check_file(str(site / "guarded.py"))
    outside = tmp_path / "guarded_outside.py"
    outside.write_text(FILES["guarded.py"])
    with pytest.raises(HashMismatch) as caught:
        verified_import.check_file(str(outside))
    assert (caught.value.where, caught.value.expected) == (str(outside), "no file of this name")
    with pytest.raises(FileNotFoundError):  # Python then reads the source
        verified_import.check_file(f"{outside}c")


@pytest.mark.parametrize("what", ["pipe", "directory", "nothing"])
def test_what_is_no_file_in_the_place_of_a_module_is_not_read(site: Path, what: str) -> None:
    guard.link(str(site))
    importlib.import_module("guarded")
    path = site / "guarded.py"
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    with pytest.raises(FileNotFoundError if what == "nothing" else HashMismatch):
        verified_import.check_file(str(path))


def test_an_overlay_is_compared_once_in_a_process(
    site: Path, marker: Marker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="vllm.plugins.manager")
    times = iter((1.0, 1.25))  # a second comparison would find no third one
    guard.link(str(site))
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    importlib.import_module("guarded")
    assert names() == ["guarded:X"]
    guard.check(variables.Settings.from_environment(), marker)
    size = sum(len(text) for text in FILES.values()) / 1000
    assert caplog.messages == [f"Verified {len(FILES)} files, {size:.1f} kB, in 250 ms"]


def test_a_refused_overlay_stays_refused_in_its_process_and_is_named_once(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Modules of it could be imported as soon as somebody has put the file back, without those that were missed."""
    (site / "new.py").write_text("")
    guard.link(str(site))
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("guarded")
        (site / "new.py").unlink(missing_ok=True)
    assert names() == []
    (message,) = caplog.messages
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert message == str(guard._refused[str(site)])
    assert "new.py" in message


def test_a_refusal_is_said_where_nothing_is_set_up_for_logging(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The link is followed when an interpreter starts, long before vLLM configures logging."""
    log = logging.getLogger("vllm.plugins.manager")
    for name, value in (("propagate", False), ("handlers", []), ("level", logging.NOTSET)):
        monkeypatch.setattr(log, name, value)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    (site / "new.py").write_text("")
    guard.link(str(site))
    assert names() == []
    err = capsys.readouterr().err
    assert err.startswith("ERROR ")
    assert "[guard.py:" in err
    assert "new.py" in err


def test_a_path_file_may_import_a_module_of_its_overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read once the overlay is compared. Each line of it runs once, whoever waits for the comparison."""
    monkeypatch.setattr(builtins, "guarded_runs", [], raising=False)
    text = "import guarded_package.inner as inner, builtins; builtins.guarded_runs.append(inner.X)\n"
    marker = overlays.write(tmp_path / "store", b"other", {**FILES, "more.pth": text})
    site = overlay.directory(tmp_path / "store", marker.key) / overlay.SITE
    guard.link(str(site))
    found: list[list[str]] = []
    thread = threading.Thread(target=lambda: found.append(names()))
    with guard._lock:
        thread.start()
        thread.join(0.2)  # it waits for the lock, unless this machine is slow; then it looks later
        assert names() == ["guarded:X"]
    thread.join(30)
    assert found == [["guarded:X"]]
    assert builtins.guarded_runs == [2]  # type: ignore[attr-defined]


def test_path_files_are_not_read_again_where_the_overlay_is_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtins, "guarded_runs", [], raising=False)
    text = "import builtins; builtins.guarded_runs.append(1)\n"
    marker = overlays.write(tmp_path / "store", b"other", {**FILES, "more.pth": text})
    variables.disable()
    variables.pass_on(variables.FALLBACK, None)
    for _ in range(2):
        guard.link(str(overlay.directory(tmp_path / "store", marker.key) / overlay.SITE))
    assert builtins.guarded_runs == [1]  # type: ignore[attr-defined]
