"""What may be published: only what RECORD and the lock say."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import zipfile
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from tests.kit import stages
from vllm_plugins.core import bytecode, hashes
from vllm_plugins.core.errors import HashMismatch, InstallError
from vllm_plugins.install import _stage
from vllm_plugins.install._checks import owners
from vllm_plugins.startup import integrity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "overlay" / "site"
    directory.mkdir(parents=True)
    return directory


def check(site: Path, expected: Mapping[str, str | None]) -> _stage.Contents:
    names = {canonicalize_name(name): version for name, version in expected.items()}
    return _stage.check(site, _stage.clean(site), names)


def refused(site: Path, expected: Mapping[str, str | None] | None = None) -> InstallError:
    with pytest.raises(InstallError) as caught:
        check(site, {"tiny": "1.0"} if expected is None else expected)
    assert caught.value.next_step
    return caught.value


def test_a_good_stage_has_its_distributions_and_the_owner_of_each_file(site: Path) -> None:
    points = "[vllm.general_plugins]\ntiny = tiny:run\n[console_scripts]\ntiny = tiny:main\n"
    stages.install(site, entry_points=points)
    stages.install(site, "Other.Name", "2.0", files={"Other.Name.py": b""})
    contents = check(site, {"tiny": "1.0", "other-name": "2.0"})
    assert [(item.name, item.version) for item in contents.distributions] == [("other-name", "2.0"), ("tiny", "1.0")]
    assert contents.distributions[1].entry_points == (("vllm.general_plugins", "tiny", "tiny:run"),)
    assert contents.owners["tiny.py"] == ("tiny-1.0.dist-info", stages.digest(b"x = 1\n"))
    assert contents.owners["tiny-1.0.dist-info/RECORD"] == ("tiny-1.0.dist-info", "")


def test_a_record_that_has_a_hash_of_itself_is_written_without(site: Path) -> None:
    info = stages.install(site)
    record = info / "RECORD"
    good = record.read_text()
    record.write_text(good.replace("RECORD,,", f"RECORD,{stages.digest(b'old')},3"))
    contents = check(site, {"tiny": "1.0"})
    assert contents.owners["tiny-1.0.dist-info/RECORD"] == ("tiny-1.0.dist-info", "")
    assert sorted(record.read_text().splitlines()) == sorted(good.splitlines())


def test_a_source_whose_bytecode_would_have_too_long_a_name_stays_without(site: Path) -> None:
    name = f"{'x' * 245}.py"
    stages.install(site, files={name: b"x = 1\n"})
    _stage.seal(site, check(site, {"tiny": "1.0"}).owners)
    listed = [row[0] for row in json.loads((site.parent / integrity.FILES).read_text())]
    assert name in listed
    assert bytecode.place(name) not in listed


def test_hashes_of_record_may_be_written_in_hex(site: Path) -> None:
    record = stages.install(site) / "RECORD"
    good = record.read_text()
    record.write_text(
        good.replace(stages.digest(b"x = 1\n"), f"sha256={hashlib.sha256(b'x = 1' + bytes([10])).hexdigest()}")
    )
    contents = check(site, {"tiny": "1.0"})
    assert record.read_text() == "".join(sorted(good.splitlines(keepends=True)))
    assert contents.owners["tiny.py"] == ("tiny-1.0.dist-info", stages.digest(b"x = 1\n"))


def test_check_changes_nothing(site: Path) -> None:
    stages.install(site, files={"bin/tiny": b"#!python\n"})
    records = _stage.clean(site)
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    _stage.check(site, records, {canonicalize_name("tiny"): "1.0"})
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before


OTHER_INSTALLER = "try the other installer: vllm-plugins sync --installer pip, or --installer uv"
BAD_WHEEL = "report it to the plugin's author, and set `enabled: false` for the plugin in plugins.yaml"


@pytest.mark.parametrize(
    ("expected", "details"),
    [
        ({"tiny": "1.0", "gone": "3.0"}, ("missing: gone",)),
        ({}, ("not in the lock: tiny 1.0",)),
        ({"tiny": "2.0"}, ("tiny: expected 2.0, found 1.0",)),
        ({"gone": None}, ("missing: gone", "not in the lock: tiny 1.0")),
    ],
)
def test_other_distributions_than_those_of_the_lock_are_refused(
    site: Path, expected: Mapping[str, str | None], details: tuple[str, ...]
) -> None:
    stages.install(site)
    error = refused(site, expected)
    assert (error.what, error.details) == ("the installed distributions are not those of the lock", details)
    assert error.next_step == OTHER_INSTALLER


@pytest.mark.parametrize(("installed", "locked"), [("1.0.0", "1.0"), ("1.0.0-RC.1", "1.0rc1"), ("1.0", "1.0.0")])
def test_an_equal_version_counts_as_the_one_of_the_lock(site: Path, installed: str, locked: str) -> None:
    stages.install(site, version=installed)
    assert check(site, {"tiny": locked}).distributions[0].version == locked


def test_an_editable_distribution_may_have_any_version(site: Path) -> None:
    stages.install(site, version="9.9")
    assert check(site, {"tiny": None}).distributions[0].version == "9.9"


def test_a_file_in_no_record_is_refused(site: Path) -> None:
    stages.install(site, without=["tiny.py"])
    error = refused(site)
    assert (error.what, error.details) == ("the installer left files that belong to no distribution", ("tiny.py",))
    assert error.next_step == OTHER_INSTALLER
    for number in range(20):
        (site / f"stray{number:02}.py").touch()
    assert refused(site).details == (*(f"stray{number:02}.py" for number in range(10)), "and 11 more")


def test_a_file_that_is_missing_is_refused(site: Path) -> None:
    stages.install(site)
    (site / "tiny.py").unlink()
    assert refused(site).where == "tiny.py"


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_a_file_that_is_not_a_plain_file_is_refused(site: Path, tmp_path: Path, kind: str) -> None:
    stages.install(site)
    (site / "tiny.py").unlink()
    if kind == "link":
        (tmp_path / "elsewhere.py").write_bytes(b"x = 1\n")
        (site / "tiny.py").symlink_to(tmp_path / "elsewhere.py")
    elif kind == "directory":
        (site / "tiny.py").mkdir()
    else:
        os.mkfifo(site / "tiny.py")
    error = refused(site)
    assert (error.what, error.where) == ("a file of tiny 1.0 is not installed as a plain file", "tiny.py")
    assert error.next_step == OTHER_INSTALLER


@pytest.mark.parametrize(
    "path",
    ["../outside.py", "a/../../outside.py", "/etc/outside.py", "../../../outside.py", "..", "a\0b.py"],
)
def test_a_file_outside_of_the_overlay_is_refused_and_left_alone(site: Path, path: str) -> None:
    outside = site.parent / "outside.py"
    outside.write_text("mine")
    stages.install(site, rows=[(path, "", "")])
    error = refused(site)
    assert (error.what, error.found) == ("tiny 1.0 installs a file outside of the overlay", path)
    assert error.next_step == BAD_WHEEL
    assert outside.read_text() == "mine"


def test_a_path_with_backslashes_that_leads_out_of_the_overlay_is_refused(site: Path) -> None:
    outside = site.parent / "outside.py"
    outside.write_text("mine")
    stages.install(site, files={"tiny/x.py": b""}, rows=[("tiny\\..\\..\\outside.py", "", "")])
    error = refused(site)
    assert (error.what, error.found) == ("tiny 1.0 installs a file outside of the overlay", "tiny/../../outside.py")
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("path", ["in-front/torch/__init__.py", "tiny/../in-front/torch.py", "in-front"])
def test_a_plugin_has_no_file_in_front_of_the_base(site: Path, path: str) -> None:
    stages.install(site, rows=[(path, "", "")])
    error = refused(site)
    assert error.what == "tiny 1.0 installs a file into the directory for overrides"
    assert error.next_step == BAD_WHEEL


@pytest.mark.parametrize("where", ["", "in-front/"])
@pytest.mark.parametrize(
    "path", ["sitecustomize.py", "usercustomize/__init__.py", "sitecustomize.abi3.so", "a/../usercustomize.pyc"]
)
def test_a_module_that_python_runs_when_it_starts_is_refused(site: Path, where: str, path: str) -> None:
    stages.install(site / where, rows=[(path, "", "")])
    error = refused(site)
    assert error.what == "tiny 1.0 installs a module that Python runs in every process when it starts"
    assert error.next_step == BAD_WHEEL


@pytest.mark.parametrize("line", ["/home/author/project", "..", "tiny/../../x", "x\n/tmp\n", "\ufeff/tmp"])
def test_a_path_file_that_leads_out_of_the_overlay_is_refused(site: Path, line: str) -> None:
    """Another user could make the directory of the author's machine that a wheel names."""
    stages.install(site, files={"tiny.pth": line.encode()})
    error = refused(site)
    assert error.what == "tiny 1.0 puts a directory on the import path that is not its own"
    assert (error.where, error.next_step) == ("tiny.pth", BAD_WHEEL)
    assert "tiny.pth" in check(site, {"tiny": None}).owners  # an editable project


HIDDEN = b"[vllm.general_plugins]\nevil = tiny:evil\n"


def archive(name: str, data: bytes) -> bytes:
    """A zip archive of one file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as opened:
        opened.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize(
    "files",
    [
        {"evil.egg-info/entry_points.txt": HIDDEN, "evil.egg-info/PKG-INFO": b"Name: evil\nVersion: 1\n"},
        {"evil-1.DIST-INFO/entry_points.txt": HIDDEN, "evil-1.DIST-INFO/METADATA": b"Name: evil\nVersion: 1\n"},
        {"evil.egg-info/entry_points.txt": b"[vllm.x]\nno value\n"},
        {"evil.pth": b"lib\n", "lib/evil-1.dist-info/entry_points.txt": HIDDEN},
        {"evil.pth": b"lib/x.egg\n", "lib/x.egg/EGG-INFO/entry_points.txt": HIDDEN},
        {"evil.pth": b"lib.zip\n", "lib.zip": archive("evil-1.dist-info/entry_points.txt", HIDDEN)},
    ],
)
def test_entry_points_that_no_lock_shows_are_refused(site: Path, files: dict[str, bytes]) -> None:
    """Python lists them, and vLLM would call them."""
    stages.install(site, files={"tiny.py": b"", **files})
    error = refused(site)
    assert error.what == "a distribution declares entry points of vLLM in a place that no lock shows"
    assert error.next_step == BAD_WHEEL


@pytest.mark.parametrize(
    "files",
    [
        {"old.egg-info/entry_points.txt": b"[console_scripts]\nold = tiny:main\n", "old.egg-info/PKG-INFO": b""},
        {"tiny/_vendor/x-1.dist-info/entry_points.txt": b"[console_scripts]\nx = x:x\n"},
        {"old.egg-info": b"Name: old\n", "old.pth": b"tiny\n\n"},
    ],
)
def test_metadata_without_entry_points_of_vllm_may_be_anywhere(site: Path, files: dict[str, bytes]) -> None:
    stages.install(site, files={"tiny/__init__.py": b"", **files})
    check(site, {"tiny": "1.0"})


def test_the_project_of_an_editable_plugin_declares_its_own_entry_points(site: Path, tmp_path: Path) -> None:
    """setuptools writes ``.egg-info`` next to the modules."""
    project = tmp_path / "project"
    (project / "tiny.egg-info").mkdir(parents=True)
    (project / "tiny.egg-info" / "entry_points.txt").write_bytes(HIDDEN)
    stages.install(site, files={"__editable__tiny.pth": f"{project}\n".encode()})
    check(site, {"tiny": None})


def test_a_path_file_may_add_directories_of_the_overlay(site: Path) -> None:
    text = b"# /tmp\n\nimport sys; '/tmp'\nimport\tsys\ntiny\n./tiny/more\n"
    stages.install(site, files={"tiny.pth": text, "tiny/data/other.pth": b"/tmp\n"})
    assert "tiny.pth" in check(site, {"tiny": "1.0"}).owners


@pytest.mark.parametrize("path", ["tiny/sitecustomize.py", "sitecustomize_more.py", "my-sitecustomize.py"])
def test_other_modules_may_be_named_alike(site: Path, path: str) -> None:
    stages.install(site, files={path: b""})
    assert path in check(site, {"tiny": "1.0"}).owners


@pytest.mark.parametrize(
    "path", ["torch/__init__.py", "vllm.py", "vllm_plugins/x.py", "json/__init__.py", "triton.abi3.so"]
)
def test_an_override_has_no_module_that_nothing_may_override(site: Path, path: str) -> None:
    stages.install(site / "in-front", "transformers", "5.20", files={path: b""})
    error = refused(site, {"transformers": "5.20"})
    assert (error.what, error.found) == ("transformers 5.20 overrides a module that is not its own", path)


def test_an_override_is_owned_with_its_place_in_front(site: Path) -> None:
    stages.install(site / "in-front", "transformers", "5.20", files={"transformers/x.py": b""})
    stages.install(site)
    owners = check(site, {"tiny": "1.0", "transformers": "5.20"}).owners
    assert owners["in-front/transformers/x.py"] == ("transformers-5.20.dist-info", stages.digest(b""))
    assert owners["in-front/transformers-5.20.dist-info/RECORD"] == ("transformers-5.20.dist-info", "")


def test_path_files_of_an_override_are_refused(site: Path) -> None:
    stages.install(site / "in-front", "transformers", "5.20", files={"more.pth": b"import sys\n"})
    error = refused(site, {"transformers": "5.20"})
    assert (error.where, error.what.endswith("which would have no effect")) == ("more.pth", True)


NAMESPACE = (
    "import sys, types, os;has_mfs = sys.version_info > (3, 5);"
    "p = os.path.join(sys._getframe(1).f_locals['sitedir'], *('google',));importlib = has_mfs\n"
)


def test_a_path_file_of_an_override_may_declare_a_namespace_package(site: Path) -> None:
    files = {"google/protobuf/__init__.py": b"", "protobuf-3.19.6-nspkg.pth": NAMESPACE.encode()}
    stages.install(site / "in-front", "protobuf", "3.19.6", files=files)
    stages.install(site)
    assert "in-front/google/protobuf/__init__.py" in check(site, {"tiny": "1.0", "protobuf": "3.19.6"}).owners


@pytest.mark.parametrize(
    "files",
    [
        {"x-nspkg.pth": f"{NAMESPACE}import sys\n".encode()},
        {"x-nspkg.pth": NAMESPACE.encode(), "google/__init__.py": b""},
        {"x-nspkg.pth": NAMESPACE.replace("import sys,", "import sys;import").encode()},
    ],
    ids=["another line", "not a namespace", "another beginning"],
)  # fmt: skip
def test_any_other_path_file_of_an_override_is_refused(site: Path, files: dict[str, bytes]) -> None:
    stages.install(site / "in-front", "protobuf", "3.19.6", files=files)
    assert refused(site, {"protobuf": "3.19.6"}).where == "x-nspkg.pth"


@pytest.mark.parametrize("deep", [0, 1])
def test_directories_in_one_another_have_an_end(site: Path, deep: int) -> None:
    _stage.check_depth(site)
    (site / "/".join(["a"] * (99 + deep))).mkdir(parents=True)
    (site / "loop").symlink_to(site, target_is_directory=True)
    (site / "a" / "file").touch()
    if not deep:
        _stage.check_depth(site)
        return
    with pytest.raises(InstallError, match="more than 100 directories in one another") as caught:
        _stage.check_depth(site)
    assert caught.value.next_step == BAD_WHEEL


def test_paths_that_pip_writes_as_seen_from_its_own_directory_are_understood(site: Path) -> None:
    (site / "share").mkdir()
    (site / "share" / "data.txt").write_bytes(b"data")
    stages.install(site, rows=[("../../share/data.txt", stages.digest(b"data"), "4")])
    assert "share/data.txt" in check(site, {"tiny": "1.0"}).owners
    assert "../.." not in (site / "tiny-1.0.dist-info" / "RECORD").read_text()


@pytest.mark.parametrize("name", ["INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"])
def test_notes_of_installers_are_removed(site: Path, name: str) -> None:
    own = {f"tiny/{name}": b"the plugin's own", f"tiny-1.0.dist-info/licenses/{name}": b"the plugin's own"}
    stages.install(site, files={f"tiny-1.0.dist-info/{name}": b"pip", **own})
    contents = check(site, {"tiny": "1.0"})
    assert not (site / "tiny-1.0.dist-info" / name).exists()
    assert f"tiny-1.0.dist-info/{name}" not in contents.owners
    assert f"tiny-1.0.dist-info/{name}," not in (site / "tiny-1.0.dist-info" / "RECORD").read_text()
    for path, data in own.items():
        assert (site / path).read_bytes() == data
        assert contents.owners[path] == ("tiny-1.0.dist-info", stages.digest(data))


def test_a_note_that_record_names_may_be_missing(site: Path) -> None:
    stages.install(site, rows=[("tiny-1.0.dist-info/INSTALLER", stages.digest(b"pip"), "3")])
    assert "tiny-1.0.dist-info/INSTALLER" not in check(site, {"tiny": "1.0"}).owners


def test_record_is_written_again_in_utf_8_and_in_order(site: Path) -> None:
    info = stages.install(site, files={"größe.txt": b"", 'a,"b\r.txt': b"", "bin/tiny": b"#!python\n"})
    check(site, {"tiny": "1.0"})
    rows = [
        f"{path},{stages.digest((site / path).read_bytes())},{(site / path).stat().st_size}"
        for path in ("tiny-1.0.dist-info/METADATA",)
    ]
    empty = stages.digest(b"")
    assert (info / "RECORD").read_bytes().decode() == (
        f'"a,""b\r.txt",{empty},0\ngröße.txt,{empty},0\n{rows[0]}\ntiny-1.0.dist-info/RECORD,,\n'
        f"tiny.py,{stages.digest(b'x = 1' + bytes([10]))},6\n"
    )


def test_a_name_with_a_line_break_and_no_quotes_is_named(site: Path) -> None:
    """As macOS's ``Icon\\r``: to a reader of CSV, its line of RECORD is two."""
    info = stages.install(site, files={"tiny/Icon\r": b""})
    record = info / "RECORD"
    record.write_bytes(record.read_bytes().replace(b'"tiny/Icon\r"', b"tiny/Icon\r"))
    with pytest.raises(InstallError, match=r"RECORD of tiny 1\.0 has a line without the name of a file") as caught:
        check(site, {"tiny": "1.0"})
    assert caught.value.found == "a line with a hash alone, after 'tiny/Icon'"


@pytest.mark.parametrize("prefix", ["", "../../"])
def test_headers_are_in_the_same_place_with_every_installer(site: Path, prefix: str) -> None:
    data = b"int x;\n"
    path = "include/site/python3.11/tiny/tiny.h"
    (site / path).parent.mkdir(parents=True)
    (site / path).write_bytes(data)
    info = stages.install(site, rows=[(prefix + path, stages.digest(data), str(len(data)))])
    contents = check(site, {"tiny": "1.0"})
    assert contents.owners["include/tiny/tiny.h"] == (info.name, stages.digest(data))
    assert (site / "include/tiny/tiny.h").read_bytes() == data
    assert not (site / "include/site").exists()
    assert "include/tiny/tiny.h," in (info / "RECORD").read_text()
    assert path not in (info / "RECORD").read_text()


def test_a_header_that_is_missing_is_refused(site: Path) -> None:
    stages.install(site, rows=[("include/site/python3.11/tiny/tiny.h", stages.digest(b""), "0")])
    assert refused(site).where == "include/tiny/tiny.h"


def test_scripts_are_removed_and_a_package_called_bin_is_not(site: Path) -> None:
    stages.install(site, files={"bin/tiny": b"#!python\n"})
    check(site, {"tiny": "1.0"})
    assert not (site / "bin").exists()
    stages.install(site, files={"bin/tiny": b"#!python\n"})
    stages.install(site, "other", files={"bin/other": b"#!python\n", "bin/second": b"#!python\n"})
    check(site, {"tiny": "1.0", "other": "1.0"})
    assert not (site / "bin").exists()
    shutil.rmtree(site / "other-1.0.dist-info")
    (site / "other.py").unlink()
    stages.install(site, files={"bin/__init__.py": b"", "bin/tiny": b"data"})
    assert "bin/tiny" in check(site, {"tiny": "1.0"}).owners


def test_two_owners_of_one_file_must_agree_on_its_content(site: Path) -> None:
    stages.install(site, files={"nvidia/__init__.py": b""})
    stages.install(site, "other", files={"nvidia/__init__.py": b""})
    check(site, {"tiny": "1.0", "other": "1.0"})
    stages.install(site, "other", files={"nvidia/__init__.py": b"x = 2\n"})
    error = refused(site, {"tiny": "1.0", "other": "1.0"})
    assert (error.what, error.found) == (
        "two distributions own the file nvidia/__init__.py, with different contents",
        "other 1.0 and tiny 1.0",
    )
    assert error.next_step == (
        "set `enabled: false` in plugins.yaml for a plugin that needs one of them, and lock again"
    )


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "pyproject.toml", "CHANGES.RST"])
def test_a_document_that_several_distributions_have_is_left_out(site: Path, name: str) -> None:
    stages.install(site, files={name: b"of tiny\n", "same.txt": b""})
    stages.install(site, "other", files={name: b"of other\n", "same.txt": b"", "own.txt": b""})
    records = _stage.clean(site)
    assert owners.shared_documents(records) == [name]
    left = owners.leave_out(site, records, [name])
    contents = _stage.check(site, left, {canonicalize_name("tiny"): "1.0", canonicalize_name("other"): "1.0"})
    _stage.seal(site, contents.owners)
    assert sorted(path.name for path in site.glob("*.*") if path.suffix == ".txt") == ["own.txt", "same.txt"]
    assert not (site / name).exists()
    assert _stage.clean(site) == left


@pytest.mark.parametrize(
    "name", ["shared.py", "shared.abi3.so", "shared.pyc", "tests/LICENSE", "py.typed", "data.json"]
)
def test_anything_else_has_one_content(site: Path, name: str) -> None:
    stages.install(site, files={name: b"a"})
    stages.install(site, "other", files={name: b"b"})
    assert owners.shared_documents(_stage.clean(site)) == []
    assert refused(site, {"tiny": "1.0", "other": "1.0"}).found == "other 1.0 and tiny 1.0"


def test_a_document_with_two_hashes_in_one_record_is_refused(site: Path) -> None:
    stages.install(site, files={"LICENSE": b"of tiny\n"}, rows=[("LICENSE", stages.digest(b"another\n"), "8")])
    stages.install(site, "zzz", files={"LICENSE": b"of tiny\n"})
    assert owners.shared_documents(_stage.clean(site)) == []
    assert refused(site, {"tiny": "1.0", "zzz": "1.0"}).what == "RECORD of tiny 1.0 has two hashes for one file"


def test_a_plugin_that_requires_both_owners_of_a_file_is_named_once(site: Path) -> None:
    stages.install(site, files={"LICENSE": b"one\n"})
    stages.install(site, "other", files={"LICENSE": b"two\n"})
    names = {canonicalize_name("tiny"): "1.0", canonicalize_name("other"): "1.0"}
    with pytest.raises(InstallError) as caught:
        _stage.check(site, _stage.clean(site), names, lambda _: ["demo"])
    assert caught.value.required_by == "plugin 'demo'"


def test_two_hashes_of_one_file_are_refused(site: Path) -> None:
    stages.install(site, rows=[("tiny.py", stages.digest(b"evil"), "4")])
    error = refused(site)
    assert (error.what, error.where) == ("RECORD of tiny 1.0 has two hashes for one file", "tiny.py")
    assert error.next_step == BAD_WHEEL


@pytest.mark.parametrize("form", ["./{}", "{}", "tiny-1.0.dist-info/../{}"])
def test_a_file_that_record_names_in_two_ways_has_its_hash(site: Path, form: str) -> None:
    # pip keeps the lines of the wheel, and adds a line for each file whose path it does not find in them.
    stages.install(site, rows=[(form.format("tiny.py"), "", "")])
    assert check(site, {"tiny": "1.0"}).owners["tiny.py"] == ("tiny-1.0.dist-info", stages.digest(b"x = 1\n"))


@pytest.mark.parametrize("added", [True, False], ids=["pip", "another installer"])
def test_a_path_with_backslashes_is_the_file_that_is_there(site: Path, added: bool) -> None:
    files = {"tiny/x.py": b"", "tiny/deep/y.json": b"{}"}
    rows = [(path.replace("/", "\\"), stages.digest(data), str(len(data))) for path, data in files.items()]
    rows += [(path, "", "") for path in files] if added else []
    stages.install(site, files=files, rows=rows, without=files)
    owners = check(site, {"tiny": "1.0"}).owners
    assert {path: owners[path][1] for path in files} == {path: stages.digest(data) for path, data in files.items()}
    (site / "tiny" / "x.py").write_bytes(b"evil")
    with pytest.raises(HashMismatch):
        _stage.seal(site, owners)


def test_a_directory_in_a_record_is_left_out(site: Path, tmp_path: Path) -> None:
    stages.install(site, files={"tiny/x.py": b""}, rows=[("tiny/", "", ""), ("tiny-1.0.dist-info", "", "")])
    assert "tiny" not in check(site, {"tiny": "1.0"}).owners
    (site / "linked").symlink_to(tmp_path)
    stages.install(site, rows=[("linked", "", "")])
    assert refused(site).where == "linked"


def test_a_line_of_a_record_without_a_name_and_a_hash_is_left_out(site: Path) -> None:
    stages.install(site, rows=[("", "", "")])
    owners = check(site, {"tiny": "1.0"}).owners
    assert not {"", "."} & owners.keys()
    assert b"\n,," not in (site / "tiny-1.0.dist-info" / "RECORD").read_bytes()


def test_a_record_without_metadata_is_refused(site: Path) -> None:
    stages.install(site, without=["tiny-1.0.dist-info/METADATA"])
    assert str(refused(site)) == (
        "RECORD of tiny 1.0 is not complete [install-failed]\n"
        "  where: tiny-1.0.dist-info/RECORD\n"
        "  expected: each file of the distribution, including METADATA\n"
        "  found: 2 files\n"
        "  next: check that the disk is not full (not every installer reports it), then run vllm-plugins sync"
    )


@pytest.mark.parametrize(
    ("data", "found"),
    [(None, "No such file"), (b"\xff\xfe", "can't decode byte"), (b"x" * 200_000, "RECORD is not valid")],
    ids=["missing", "not UTF-8", "not CSV"],
)
def test_a_record_that_can_not_be_read_is_refused(site: Path, data: bytes | None, found: str) -> None:
    record = stages.install(site) / "RECORD"
    if data is None:
        record.unlink()
    else:
        record.write_bytes(data)
    error = refused(site)
    assert (error.what, error.where) == ("RECORD of tiny 1.0 is missing or can't be read", str(record))
    assert {None: "No such file", b"\xff\xfe": "can't decode byte"}.get(data, "RECORD is not valid") in str(
        error.found
    )
    assert error.next_step == BAD_WHEEL


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224"])
def test_a_weak_hash_is_refused(site: Path, algorithm: str) -> None:
    (site / "weak.py").write_bytes(b"x")
    stages.install(site, rows=[("weak.py", stages.digest(b"x", algorithm), "1")])
    assert str(refused(site)) == (
        "RECORD of tiny 1.0 has a hash that is too weak [install-failed]\n"
        "  where: weak.py\n"
        "  expected: sha256, sha384 or sha512 (PEP 427)\n"
        f"  found: {algorithm}\n"
        f"  next: {BAD_WHEEL}"
    )


def test_metadata_without_a_name_is_refused(site: Path) -> None:
    info = stages.install(site)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nVersion: 1.0\n")
    assert refused(site).where == "tiny-1.0.dist-info"


@pytest.mark.parametrize("end", ["==", "=x=", "x"])
def test_a_hash_with_something_after_it_is_another_hash(site: Path, end: str) -> None:
    """RECORD has base64 without padding (PEP 376); some tools add padding to the hash."""
    (site / "more.txt").write_bytes(b"good")
    stages.install(site, rows=[("more.txt", stages.digest(b"good") + end, "4")])
    with pytest.raises(HashMismatch):
        _stage.seal(site, check(site, {"tiny": "1.0"}).owners)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("edited", [False, True])
def test_each_strong_hash_is_checked(site: Path, algorithm: str, edited: bool) -> None:
    (site / "more.txt").write_bytes(b"evil" if edited else b"good")
    stages.install(site, rows=[("more.txt", stages.digest(b"good", algorithm), "4")])
    contents = check(site, {"tiny": "1.0"})
    if not edited:
        _stage.seal(site, contents.owners)
        return
    with pytest.raises(HashMismatch) as caught:
        _stage.seal(site, contents.owners)
    assert str(caught.value) == (
        "a file of tiny 1.0 is not the one in its wheel [hash-mismatch]\n"
        "  where: more.txt\n"
        f"  expected: {stages.digest(b'good', algorithm)}\n"
        f"  found: {stages.digest(b'evil', algorithm)}\n"
        "  next: vllm-plugins sync --installer pip, which keeps no unpacked files that can be edited; "
        "if it finds the same file, report it to the wheel's author"
    )


def sealed(site: Path) -> dict[str, tuple[str, int]]:
    sha256 = _stage.seal(site, check(site, {"tiny": "1.0"}).owners)
    data = (site.parent / integrity.FILES).read_bytes()
    assert hashes.sha256(data) == sha256
    listed = json.loads(data)
    assert data.decode() == json.dumps(sorted(listed), separators=(",", ":")) + "\n"
    assert len({path for path, _, _ in listed}) == len(listed)
    return {path: (digest, size) for path, digest, size in listed}


def test_the_list_of_files_is_complete_and_right(site: Path) -> None:
    stages.install(site, files={"deep/er/data.bin": b"\0\1"})
    listed = sealed(site)
    there = {path.relative_to(site).as_posix(): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    assert listed == {path: (hashes.sha256(data), len(data)) for path, data in there.items()}
    assert "__pycache__/" in " ".join(listed)


def test_a_file_without_an_owner_is_listed_as_it_is(site: Path) -> None:
    stages.install(site)
    _stage.seal(site, {})
    listed = {path: digest for path, digest, _ in json.loads((site.parent / integrity.FILES).read_bytes())}
    assert listed["tiny.py"] == hashes.sha256(b"x = 1\n")


def test_bytecode_without_an_owner_is_listed_where_its_source_can_not_be_compiled(site: Path) -> None:
    compiled = bytecode.place("bad.py")
    stages.install(site, files={"bad.py": b"not python(", compiled: b"bytecode"})
    _stage.seal(site, {})
    listed = {path: digest for path, digest, _ in json.loads((site.parent / integrity.FILES).read_bytes())}
    assert listed[compiled] == hashes.sha256(b"bytecode")


@pytest.mark.parametrize("name", ["tool", "tool.txt", "tool.pyi"])
def test_bytecode_of_a_file_that_is_not_a_source_is_checked_and_listed(site: Path, name: str) -> None:
    path = bytecode.place(name)
    stages.install(site, files={name: b"x = 1\n"})
    (site / path).parent.mkdir(exist_ok=True)
    (site / path).write_bytes(b"bytecode")
    owners = {path: ("tiny-1.0.dist-info", stages.digest(b"bytecode"))}
    _stage.seal(site, owners)
    listed = {path: digest for path, digest, _ in json.loads((site.parent / integrity.FILES).read_bytes())}
    assert listed[path] == hashes.sha256(b"bytecode")
    (site / path).write_bytes(b"edited")
    with pytest.raises(HashMismatch):
        _stage.seal(site, owners)


def test_a_source_that_can_not_be_compiled_has_no_bytecode(site: Path) -> None:
    stages.install(site, files={"bad.py": b"not python("})
    listed = sealed(site)
    assert bytecode.place("bad.py") not in listed
    assert listed["bad.py"] == (hashes.sha256(b"not python("), 11)


@pytest.mark.parametrize("place", ["__pycache__", f"{bytecode.place('tiny.py')}/data"])
def test_a_source_has_no_bytecode_where_the_wheel_has_something_else(site: Path, place: str) -> None:
    stages.install(site)
    (site / place).parent.mkdir(parents=True, exist_ok=True)
    (site / place).write_bytes(b"data")
    _stage.seal(site, {})
    listed = {path: digest for path, digest, _ in json.loads((site.parent / integrity.FILES).read_bytes())}
    assert listed[place] == hashes.sha256(b"data")
    assert bytecode.place("tiny.py") not in listed


def test_modes_are_those_of_any_umask(site: Path) -> None:
    stages.install(site, files={"run.sh": b"#!/bin/sh\n"})
    os.chmod(site / "run.sh", 0o4770)
    os.chmod(site / "tiny.py", 0o606)
    os.chmod(site, 0o700)
    before = os.umask(0o077)
    try:
        sealed(site)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (site, *site.iterdir())}
    assert (modes["run.sh"], modes["tiny.py"], modes["site"], modes["__pycache__"]) == (0o755, 0o644, 0o755, 0o755)
    (compiled,) = (site / "__pycache__").iterdir()
    assert stat.S_IMODE(compiled.stat().st_mode) == 0o644


@pytest.mark.parametrize("path", ["__pycache__/tiny.cpython-311.opt-1.pyc", "a/__pycache__/b.cpython-399.opt-2.pyc"])
def test_bytecode_that_only_an_optimizing_python_uses_is_refused(site: Path, path: str) -> None:
    """``python -O`` would run it in place of the source."""
    stages.install(site, files={path: b"evil"})
    assert refused(site).found == path


def test_the_bytecode_of_a_wheel_is_replaced(site: Path) -> None:
    compiled = bytecode.place("tiny.py")
    stages.install(site, files={compiled: b"evil bytecode"})
    listed = sealed(site)
    data = (site / compiled).read_bytes()
    assert bytecode.is_of(data, b"x = 1\n", "tiny.py")
    assert listed[compiled] == (hashes.sha256(data), len(data))


def test_the_bytecode_of_a_source_that_can_not_be_compiled_is_checked(site: Path) -> None:
    compiled = bytecode.place("bad.py")
    stages.install(site, files={"bad.py": b"not python(", compiled: b"bytecode"})
    owners = check(site, {"tiny": "1.0"}).owners
    _stage.seal(site, owners)
    assert (site / compiled).read_bytes() == b"bytecode"
    (site / compiled).write_bytes(b"edited")
    with pytest.raises(HashMismatch):
        _stage.seal(site, owners)
