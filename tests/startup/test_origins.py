"""Where the modules of entry points come from: the overlay and the base, and no place in front of them."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING

import pytest

from tests.startup import overlays
from vllm_plugins.core.errors import LoadError
from vllm_plugins.startup import overlay
from vllm_plugins.startup._path import origins
from vllm_plugins.startup.overlay import EntryPoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = "def run():\n    pass\n"
FILES = {"origin_plugin/__init__.py": MODULE, "origin_plugin/deep.py": MODULE, "origin_name/space/inner.py": MODULE}


@pytest.fixture(autouse=True)
def _process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with overlays.process(tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        monkeypatch.delenv("PYTHONPATH", raising=False)
        yield
    for name in [name for name in sys.modules if name.startswith("origin_")]:
        del sys.modules[name]
    sys.path_importer_cache.clear()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An overlay at the end of the path."""
    marker = overlays.write(tmp_path / "store", b"lock", FILES)
    found = overlay.directory(tmp_path / "store", marker.key) / overlay.SITE
    sys.path.append(str(found))
    return found


def point(value: str = "origin_plugin:run", distribution: str = "origin-plugin") -> EntryPoint:
    return EntryPoint(
        group="vllm.general_plugins", name="tiny", value=value, plugin="tiny", distribution=distribution
    )


def put(directory: Path, name: str, text: str = MODULE) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    importlib.invalidate_caches()
    return path


def in_front(directory: Path) -> None:
    sys.path.insert(0, str(directory))


def refused(found: EntryPoint) -> LoadError:
    with pytest.raises(LoadError) as caught:
        origins.check([found])
    return caught.value


@pytest.mark.parametrize("value", ["origin_plugin:run", "origin_plugin.deep:run", "origin_name.space.inner:run"])
def test_a_module_of_the_overlay_may_be_imported(site: Path, value: str) -> None:
    origins.check([point(value)])
    importlib.import_module(value.partition(":")[0])
    origins.check([point(value)])
    origins.check_imported(point(value))


def test_a_module_that_nobody_has_has_an_error_of_its_own(site: Path) -> None:
    for value in ("origin_gone:run", "origin_plugin.gone:run", "origin_name.gone:run"):
        origins.check([point(value)])
        origins.check_imported(point(value))


@pytest.mark.parametrize("name", ["origin_plugin.py", "origin_plugin/__init__.py"])
@pytest.mark.parametrize("value", ["origin_plugin:run", "origin_plugin.deep:run"])
def test_a_module_in_front_of_the_overlay_is_not_imported(site: Path, tmp_path: Path, name: str, value: str) -> None:
    origin = put(tmp_path / "front", name)
    in_front(tmp_path / "front")
    error = refused(point(value))
    assert error.what == (
        f"plugin 'tiny' is not what would run: its module origin_plugin is imported from {origin}, and not from {site}"
    )
    assert error.where == f"entry point tiny = {value} in vllm.general_plugins, of origin-plugin"
    assert error.expected == f"a module in {site}"
    assert error.found == f"{origin}: {tmp_path}/front is on the path of this process, before the plugins"
    assert error.next_step == f"rename {origin}, or start vLLM from another directory with the command vllm"
    assert "origin_plugin" not in sys.modules


def test_the_first_of_several_entry_points_does_not_hide_the_others(site: Path, tmp_path: Path) -> None:
    put(tmp_path / "front", "origin_plugin.py")
    in_front(tmp_path / "front")
    with pytest.raises(LoadError):
        origins.check([point("origin_name.space.inner:run"), point(distribution=""), point()])


def test_a_part_of_a_namespace_package_in_front_is_not_imported(site: Path, tmp_path: Path) -> None:
    put(tmp_path / "front", "origin_name/space/inner.py")
    in_front(tmp_path / "front")
    assert "its module origin_name.space.inner is imported from" in refused(point("origin_name.space.inner:run")).what
    put(tmp_path / "other", "origin_name/space/other.py")
    sys.path[0] = str(tmp_path / "other")
    sys.path_importer_cache.clear()
    origins.check([point("origin_name.space.inner:run")])


def test_a_namespace_package_that_was_imported_is_searched_where_it_is(site: Path, tmp_path: Path) -> None:
    module = types.ModuleType("origin_name")
    module.__path__ = [str(tmp_path / "front/origin_name")]
    sys.modules["origin_name"] = module
    put(tmp_path / "front", "origin_name/space/inner.py")
    assert f"{tmp_path}/front" in refused(point("origin_name.space.inner:run")).what


def test_a_module_that_was_imported_from_elsewhere_is_refused(site: Path, tmp_path: Path) -> None:
    origin = put(tmp_path / "front", "origin_plugin.py")
    in_front(tmp_path / "front")
    importlib.import_module("origin_plugin")
    sys.path.pop(0)
    error = refused(point())
    assert error.found == f"{origin}: it was imported before the plugins were made active"
    with pytest.raises(LoadError):
        origins.check_imported(point())


def test_a_module_of_the_base_is_not_checked(site: Path, tmp_path: Path) -> None:
    """The base provides such an entry point, from wherever it has it."""
    put(tmp_path / "front", "origin_plugin.py")
    in_front(tmp_path / "front")
    origins.check([point(distribution="")])
    importlib.import_module("origin_plugin")
    origins.check_imported(point(distribution=""))


@pytest.mark.parametrize("name", ["site-packages", "dist-packages"])
def test_a_package_of_the_base_may_have_the_first_part(site: Path, tmp_path: Path, name: str) -> None:
    """It may extend its path to the overlay's part. A plugin that is in the overlay itself comes from there."""
    text = f"__path__.append({str(site / 'origin_plugin')!r})\n"
    put(tmp_path / name, "origin_plugin/__init__.py", text)
    in_front(tmp_path / name)
    origins.check([point("origin_plugin.deep:run")])
    importlib.import_module("origin_plugin.deep")
    origins.check_imported(point("origin_plugin.deep:run"))
    with pytest.raises(LoadError):
        origins.check_imported(point("origin_plugin:run"))


def test_a_module_that_only_the_base_has_may_come_from_the_base(site: Path, tmp_path: Path) -> None:
    put(tmp_path / "site-packages", "origin_base.py")
    put(tmp_path / "front", "origin_front.py")
    for directory in ("site-packages", "front"):
        in_front(tmp_path / directory)
    importlib.import_module("origin_base")
    origins.check_imported(point("origin_base:run"))
    origins.check_imported(point("json.decoder:JSONDecoder"))
    importlib.import_module("origin_front")
    with pytest.raises(LoadError):
        origins.check_imported(point("origin_front:run"))


def test_a_directory_whose_name_begins_like_the_overlay_is_another(site: Path, tmp_path: Path) -> None:
    put(site.parent / "site-of-another", "origin_plugin.py")
    in_front(site.parent / "site-of-another")
    refused(point())


def test_an_editable_plugin_comes_from_the_directory_that_its_path_file_names(site: Path, tmp_path: Path) -> None:
    put(tmp_path / "project", "origin_edited.py")
    sys.path.append(str(tmp_path / "project"))
    refused(point("origin_edited:run"))
    put(site, "edited.pth", f"{tmp_path / 'project'}\n")
    origins.check([point("origin_edited:run")])
    importlib.import_module("origin_edited")
    origins.check_imported(point("origin_edited:run"))


FINDER = """
import importlib.util, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, {path!r}) if name == {name!r} else None
sys.meta_path.{put}Finder)
"""


def finder(path: Path, name: str = "origin_hooked", *, put: str = "insert(0, ") -> str:
    """The source of a module that lets a module be found at this path."""
    return FINDER.format(path=str(path), name=name, put=put)


@pytest.mark.parametrize("name", ["origin_hooked", "origin_name.space.hooked"])
@pytest.mark.parametrize("is_ours", [True, False])
def test_a_finder_of_the_overlay_may_find_a_module_elsewhere(
    site: Path, tmp_path: Path, is_ours: bool, name: str
) -> None:
    """Editable plugins install such finders. One of another place may not."""
    path = put(tmp_path / "project", "origin_hooked.py")
    put(site if is_ours else tmp_path / "front", "origin_finder.py", finder(path, name))
    in_front(tmp_path / "front")
    importlib.import_module("origin_finder")
    if is_ours:
        origins.check([point(f"{name}:run")])
    else:
        refused(point(f"{name}:run"))
    importlib.import_module(name)
    if is_ours:
        origins.check([point(f"{name}:run")])
        origins.check_imported(point(f"{name}:run"))
    else:
        with pytest.raises(LoadError):
            origins.check_imported(point(f"{name}:run"))


def test_a_module_that_was_imported_before_a_finder_of_the_overlay_would_find_it_is_refused(
    site: Path, tmp_path: Path
) -> None:
    put(site, "origin_finder.py", finder(put(tmp_path / "project", "origin_hooked.py")))
    put(tmp_path / "front", "origin_hooked.py")
    in_front(tmp_path / "front")
    importlib.import_module("origin_hooked")
    importlib.import_module("origin_finder")
    refused(point("origin_hooked:run"))
    with pytest.raises(LoadError):
        origins.check_imported(point("origin_hooked:run"))


def test_a_finder_of_the_overlay_finds_a_part_of_a_package_whatever_has_that_name_elsewhere(
    site: Path, tmp_path: Path
) -> None:
    path = put(tmp_path / "project", "origin_hooked.py")
    put(site, "origin_finder.py", finder(path, "origin_name.space.hooked", put="append("))
    put(site, "origin_name/hooked.py")
    put(tmp_path / "front", "hooked.py")
    in_front(tmp_path / "front")
    importlib.import_module("origin_finder")
    importlib.import_module("origin_name.space.hooked")
    origins.check_imported(point("origin_name.space.hooked:run"))


def test_a_finder_of_a_module_without_a_file_is_not_of_the_overlay(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "front", "origin_finder.py", finder(put(tmp_path / "project", "origin_hooked.py")))
    in_front(tmp_path / "front")
    monkeypatch.delattr(importlib.import_module("origin_finder"), "__file__")
    refused(point("origin_hooked:run"))


def test_an_imported_module_that_nothing_finds_is_refused(site: Path, tmp_path: Path) -> None:
    module = types.ModuleType("origin_gone")
    module.__file__ = str(tmp_path / "front" / "origin_gone.py")
    sys.modules["origin_gone"] = module
    refused(point("origin_gone:run"))
    with pytest.raises(LoadError):
        origins.check_imported(point("origin_gone:run"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("origin_plugin.deep", True),
        ("origin_name.space.inner", True),
        ("origin_plugin.shallow", False),
        ("origin_plugin.deep.more", False),
        ("deep", False),
    ],
)
def test_the_overlay_has_a_module_only_under_its_whole_name(site: Path, name: str, expected: bool) -> None:
    assert origins._has(name, (str(site.parent / "missing"), str(site))) is expected


def test_a_finder_without_find_spec_hides_nothing(site: Path, tmp_path: Path) -> None:
    sys.meta_path.insert(0, object())  # type: ignore[arg-type]  # what Python ignores, too
    origins.check([point()])
    put(tmp_path / "front", "origin_plugin.py")
    in_front(tmp_path / "front")
    refused(point())


def test_an_empty_part_of_a_namespace_package_hides_no_other(site: Path, tmp_path: Path) -> None:
    put(tmp_path / "front", "origin_name/space/inner.py")
    in_front(tmp_path / "front")
    put(tmp_path / "empty", "origin_name/space/data.txt")
    in_front(tmp_path / "empty")
    assert f"{tmp_path}/front" in refused(point("origin_name.space.inner:run")).what


def test_without_an_overlay_nothing_is_checked(tmp_path: Path) -> None:
    put(tmp_path / "front", "origin_plugin.py")
    in_front(tmp_path / "front")
    origins.check([point()])
    importlib.import_module("origin_plugin")
    origins.check_imported(point())


def test_a_guarded_overlay_is_the_overlay(tmp_path: Path) -> None:
    marker = overlays.write(tmp_path / "store", b"lock", FILES)
    site = overlay.directory(tmp_path / "store", marker.key) / overlay.SITE
    sys.path.append(f"/dev/null{site}")
    put(tmp_path / "front", "origin_plugin.py")
    in_front(tmp_path / "front")
    assert f"not from {site}" in refused(point()).what


def test_the_working_directory_and_pythonpath_are_named(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = put(tmp_path / "work", "origin_plugin.py")
    sys.path.insert(0, "")
    error = refused(point())
    assert error.found == f"{origin}: the working directory is on the path of this process, before the plugins"
    elsewhere = f"rename {origin}, or start vLLM from another directory with the command vllm"
    assert error.next_step == elsewhere
    for variable in ("", "/other"):  # an empty variable names nothing, an empty part of it the working directory
        monkeypatch.setenv("PYTHONPATH", variable)
        assert refused(point()).next_step == elsewhere
    monkeypatch.setenv("PYTHONPATH", "/other:")
    assert refused(point()).next_step == f"take {tmp_path}/work out of PYTHONPATH, or rename {origin}"
    monkeypatch.setenv("PYTHONPATH", f"/other:{tmp_path}/work")
    sys.path[0] = str(tmp_path / "work")
    assert refused(point()).next_step == f"take {tmp_path}/work out of PYTHONPATH, or rename {origin}"
