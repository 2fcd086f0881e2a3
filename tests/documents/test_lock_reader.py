"""What a lock may say: each field has one type, and every error names the place of its field."""

from __future__ import annotations

import datetime as dt
import json
import tomllib
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.kit import values
from vllm_plugins.core.errors import HashMismatch, LockInvalid, LockMissing, StoreError
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import lock_reader, lock_writer
from vllm_plugins.documents.lock import CommitSha, Override

GOLDEN = Path(__file__).parents[1] / "golden/plugins.lock"
PATH = Path("some/plugins.lock")
RESTORE = "restore it from version control, or resolve everything again: vllm-plugins lock --upgrade"
RELOCK = "run vllm-plugins lock and review the change, or restore the lock from version control"
MIB = 1 << 20
TOOL = "tool.vllm-plugins"


def document(*keys: str | int, value: Any = None) -> dict[str, Any]:
    """The golden lock with another value at one place; ``None`` removes it."""
    whole: dict[str, Any] = tomllib.loads(GOLDEN.read_text(encoding="utf-8"))
    table: Any = whole
    for key in keys[:-1]:
        table = table[key]
    if value is None and keys:
        del table[keys[-1]]
    elif keys:
        table[keys[-1]] = value
    return whole


def written(whole: dict[str, Any]) -> bytes:
    """A lock of this content with a hash to match."""
    tool = whole.get("tool")
    if isinstance(tool, dict) and isinstance(tool.get("vllm-plugins"), dict):
        tool["vllm-plugins"]["content-sha256"] = lock_reader.content_sha256(whole)
    return "".join(f"{key} = {toml(value)}\n" for key, value in whole.items()).encode()


def toml(value: Any) -> str:
    """A value in TOML, tables and arrays inline. A library would take most of the time of these tests."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {toml(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return value.isoformat() if isinstance(value, dt.date) else json.dumps(value, ensure_ascii=False)


def refused(data: bytes) -> LockInvalid:
    with pytest.raises(LockInvalid) as caught:
        lock_reader.parse(data, PATH)
    return caught.value


def message(what: str, *lines: str, id: str = "lock-invalid") -> str:  # noqa: A002 - the name that errors use
    return "\n  ".join((f"{what} [{id}]", f"where: {PATH}", *lines))


# Places of the golden lock, what is put there, and the error; `None` removes the key.
PLUGIN: tuple[str | int, ...] = ("tool", "vllm-plugins", "plugins", 0)
TARGET: tuple[str | int, ...] = ("tool", "vllm-plugins", "targets", 0)
USE: tuple[str | int, ...] = (*TARGET, "base", 0)
WHEEL: tuple[str | int, ...] = ("packages", 2, "wheels", 0)

STRINGS: list[tuple[tuple[str | int, ...], str, bool]] = [
    (("tool", "vllm-plugins", "manifest-sha256"), f"{TOOL}.manifest-sha256", True),
    (("tool", "vllm-plugins", "manifest"), f"{TOOL}.manifest", False),
    *(
        ((*PLUGIN, key), f"{TOOL}.plugins[0].{key}", True)
        for key in ("name", "source", "package", "version", "requested")
    ),
    *(
        ((*PLUGIN, key), f"{TOOL}.plugins[0].{key}", False)
        for key in ("url", "subdirectory", "commit-id", "tree-sha256", "project-sha256", "passed-over")
    ),
    *(
        ((*PLUGIN, "entry-points", 0, key), f"{TOOL}.plugins[0].entry-points[0].{key}", True)
        for key in ("group", "name", "value")
    ),
    *(((*TARGET, key), f"{TOOL}.targets[0].{key}", True) for key in ("python", "platform")),
    ((*TARGET, "vllm"), f"{TOOL}.targets[0].vllm", False),
    *(((*USE, key), f"{TOOL}.targets[0].base[0].{key}", True) for key in ("name", "version")),
    *(
        ((*USE, "required-by", 0, key), f"{TOOL}.targets[0].base[0].required-by[0].{key}", True)
        for key in ("name", "specifier")
    ),
    (("packages", 0, "dependencies", 0, "name"), "packages[0].dependencies[0].name", True),
    *(
        (("packages", 3, "tool", "vllm-plugins", key), f"packages[3].{TOOL}.{key}", False)
        for key in ("sdist-url", "sdist-sha256")
    ),
]
LISTS: list[tuple[tuple[str | int, ...], str]] = [
    (("tool", "vllm-plugins", "plugins"), f"{TOOL}.plugins"),
    (("tool", "vllm-plugins", "targets"), f"{TOOL}.targets"),
    (("tool", "vllm-plugins", "accepted-manifests"), f"{TOOL}.accepted-manifests"),
    ((*PLUGIN, "entry-points"), f"{TOOL}.plugins[0].entry-points"),
    ((*PLUGIN, "loads"), f"{TOOL}.plugins[0].loads"),
    ((*TARGET, "base"), f"{TOOL}.targets[0].base"),
    ((*USE, "required-by"), f"{TOOL}.targets[0].base[0].required-by"),
    (("packages", 0, "tool", "vllm-plugins", "built-with"), f"packages[0].{TOOL}.built-with"),
]
TABLES: list[tuple[tuple[str | int, ...], str]] = [
    (PLUGIN, f"{TOOL}.plugins[0]"),
    ((*PLUGIN, "entry-points", 0), f"{TOOL}.plugins[0].entry-points[0]"),
    (TARGET, f"{TOOL}.targets[0]"),
    (USE, f"{TOOL}.targets[0].base[0]"),
    ((*USE, "required-by", 0), f"{TOOL}.targets[0].base[0].required-by[0]"),
]


@pytest.mark.parametrize(("keys", "place"), [item[:2] for item in STRINGS], ids=str)
def test_a_field_that_is_not_a_string_is_refused(keys: tuple[str | int, ...], place: str) -> None:
    for value in (5, True, ["x"], {"x": "y"}):
        assert refused(written(document(*keys, value=value))).found == f"{place}: expected str, found {value!r}"


@pytest.mark.parametrize(("keys", "place", "required"), STRINGS, ids=str)
def test_only_some_fields_may_be_missing(keys: tuple[str | int, ...], place: str, required: bool) -> None:
    whole = document(*keys, value="some")
    table: Any = whole
    for key in keys[:-1]:
        table = table[key]
    del table[keys[-1]]
    if required:
        assert refused(written(whole)).found == f"{place}: missing"
    else:
        lock_reader.parse(written(whole), PATH)


@pytest.mark.parametrize(("keys", "place"), LISTS, ids=str)
def test_a_field_that_is_not_an_array_is_refused(keys: tuple[str | int, ...], place: str) -> None:
    for value in (5, "text", {"x": "y"}):
        assert refused(written(document(*keys, value=value))).found == f"{place}: expected list, found {value!r}"


@pytest.mark.parametrize(("keys", "place"), TABLES, ids=str)
def test_an_item_that_is_not_a_table_is_refused(keys: tuple[str | int, ...], place: str) -> None:
    assert refused(written(document(*keys, value="text"))).found == f"{place}: expected a table, found 'text'"


@pytest.mark.parametrize(
    ("keys", "value", "found"),
    [
        (("tool",), 5, f"{TOOL}: missing; vllm-plugins did not write this file"),
        (("tool",), None, f"{TOOL}: missing; vllm-plugins did not write this file"),
        (("tool", "vllm-plugins"), "text", f"{TOOL}: missing; vllm-plugins did not write this file"),
        *(
            (("tool", "vllm-plugins", "format"), value, f"{TOOL}.format: expected an integer, found {value!r}")
            for value in (0, -1, 1.0, True, 1000, 10**30)
        ),
        (("packages", 0, "tool", "vllm-plugins"), 5, f"packages[0].{TOOL}: expected a table"),
        ((*PLUGIN, "editable"), "true", f"{TOOL}.plugins[0].editable: expected bool, found 'true'"),
        ((*PLUGIN, "editable"), 1, f"{TOOL}.plugins[0].editable: expected bool, found 1"),
        ((*PLUGIN, "loads"), ["a:b", 5], f"{TOOL}.plugins[0].loads: expected strings, found ['a:b', 5]"),
        *(
            (
                ("tool", "vllm-plugins", "manifest-sha256"),
                value,
                f"{TOOL}.manifest-sha256: expected 64 hexadecimal digits, found {value!r}",
            )
            for value in ("", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n", "a" * 63 + "٣")
        ),
        *(
            (
                (*PLUGIN, "commit-id"),
                value,
                f"{TOOL}.plugins[0].commit-id: expected the 40 hexadecimal digits of a commit, found {value!r}",
            )
            for value in ("", "main", "1" * 39, "1" * 41, "A" * 40, "--upload-pack=id", "1" * 40 + "\n")
        ),
        *(
            ((*keys, key), value, f"{where}.{key}: expected 64 hexadecimal digits, found {value!r}")
            for keys, where, key in (
                (PLUGIN, f"{TOOL}.plugins[0]", "tree-sha256"),
                (PLUGIN, f"{TOOL}.plugins[0]", "project-sha256"),
                (("packages", 3, "tool", "vllm-plugins"), f"packages[3].{TOOL}", "sdist-sha256"),
            )
            for value in ("", "a" * 63)
        ),
        *(
            (
                (*TARGET, "python"),
                value,
                f"{TOOL}.targets[0].python: expected a version such as 3.11, found {value!r}",
            )
            for value in ("3", "3.11.2", "2.7", "3.1111", "3.x", "3.11\n", "3.٣")
        ),
        *(
            (
                (*USE, "required-by", 0, "specifier"),
                value,
                f"{TOOL}.targets[0].base[0].required-by[0].specifier: expected a version specifier, found {value!r}",
            )
            for value in ("2", ">=x", ">=1;")
        ),
        *(
            (("tool", "vllm-plugins", "manifest"), value, f"{TOOL}.manifest: expected the name of a file")
            for value in ("", ".", "..", "a/b.yaml", "/a.yaml", "a\u200b.yaml", "a\u202e.yaml")
        ),
        ((*WHEEL, "hashes", "sha256"), "c" * 63, f"packages[2].wheels[0].hashes.sha256: expected 64 hexadecimal digits, found {'c' * 63!r}"),
        *(
            ((*WHEEL, "url"), value, f"packages[2].wheels[0].url: expected an https URL, found {value!r}")
            for value in (f"{scheme}/helper-1.5-cp311-cp311-manylinux_2_28_x86_64.whl" for scheme in ("ssh://x", "git+https://x", "//x", "data:", "HTTPX://x", " https://x"))
        ),
        *(
            ((*WHEEL, "name"), value, f"packages[2].wheels[0].name: expected the name of a file, found {value!r}")
            for value in ("helper-1.5-py3-none-a ny.whl", "helper-1.5-py3-none-any%2f.whl", "helper-1.5-py3-none-$x.whl")
        ),
        (("packages", 0, "wheels", 0, "path"), "other/decoder-2.0.0-0_bbbb-py3-none-any.whl", "packages[0].wheels[0].path: expected plugins.wheels/decoder-2.0.0-0_bbbb-py3-none-any.whl, found 'other/decoder-2.0.0-0_bbbb-py3-none-any.whl'"),
        (("packages", 0, "wheels", 0, "path"), "plugins.wheels/other-2.0.0-py3-none-any.whl", "packages[0].wheels[0].path: expected plugins.wheels/decoder-2.0.0-0_bbbb-py3-none-any.whl, found 'plugins.wheels/other-2.0.0-py3-none-any.whl'"),
    ],
    ids=lambda item: None if isinstance(item, tuple) else str(item)[:50],
)  # fmt: skip
def test_a_value_that_has_no_meaning_is_refused(keys: tuple[str | int, ...], value: Any, found: str) -> None:
    assert str(refused(written(document(*keys, value=value)))) == message(
        "the lock is not valid", f"found: {found}", f"next: {RESTORE}"
    )


@pytest.mark.parametrize("scheme", ["https", "http", "file"])
@pytest.mark.parametrize("size", [0, 1, 10**12])
def test_a_wheel_may_be_at_an_address_with_a_host_or_a_path(scheme: str, size: int) -> None:
    url = f"{scheme}://x/helper-1.5-cp311-cp311-manylinux_2_28_x86_64.whl"
    whole = document(*WHEEL, "url", value=url)
    whole["packages"][2]["wheels"][0]["size"] = size
    wheel = lock_reader.parse(written(whole), PATH).packages[2].wheels[0]
    assert (wheel.url, wheel.size) == (url, size)


def test_a_wheel_is_in_one_place() -> None:
    whole = document()
    wheel = whole["packages"][0]["wheels"][0]
    wheel["url"] = f"https://example.org/{wheel['name']}"
    assert "packages[0].wheels[0]: expected a path or a URL, found both" in str(refused(written(whole)))


def test_every_field_of_a_package_is_read() -> None:
    whole = document()
    whole["packages"][2]["marker"] = 'python_full_version >= "3.11.3"'
    whole["packages"][0]["tool"]["vllm-plugins"]["find-links"] = True
    lock = lock_reader.parse(written(whole), PATH)
    decoder, helper = lock.packages[0], lock.packages[2]
    assert (decoder.dependencies, decoder.built_with) == (("helper",), ("hatchling==1.27.0",))
    assert (decoder.find_links, helper.find_links) == (True, False)
    assert (helper.marker, helper.requires_python) == ('python_full_version >= "3.11.3"', ">=3.9")
    assert (decoder.marker, decoder.requires_python, decoder.index) == (None, None, None)
    assert helper.index == "https://packages.example.org/simple/"
    for value in ("true", 1):
        whole["packages"][0]["tool"]["vllm-plugins"]["find-links"] = value
        assert refused(written(whole)).found == f"packages[0].{TOOL}.find-links: expected bool, found {value!r}"


def test_the_publishers_of_a_package_and_its_directory_of_wheels_are_written_and_read() -> None:
    publisher = (("kind", "GitHub"), ("repository", "ada/other"))
    found = values.package(wheels=(values.wheel(url=None),), find_links=True)
    lock = values.lock(values.package("other", identities=(publisher,)), found)
    assert lock_reader.parse(lock_writer.render(lock), PATH) == lock


def test_every_field_of_a_lock_is_read() -> None:
    lock = values.lock()
    plugin = lock.plugins[0].replace(passed_over="2.0", loads=("tiny:Bend",))
    built = plugin.replace(
        name="built", source="git", url="https://example.org/x.git", commit=CommitSha("1" * 40), tree_sha256=Sha256("c" * 64),
        subdirectory="a", build_requires=("setuptools<80",), with_base=(values.NAME("torch"),),
    )  # fmt: skip
    file = plugin.replace(name="file", source="file", filename="tiny.py", file_sha256=Sha256("c" * 64), provided=True)
    own = plugin.replace(name="own", index="mine", index_url="https://mine.example/simple/")
    lock = lock.replace(plugins=(built, file, own, plugin))
    data = lock_writer.render(lock)
    assert lock_reader.parse(data, PATH) == lock
    whole = tomllib.loads(data.decode())
    whole["tool"]["vllm-plugins"]["accepted-manifests"] = ["b" * 64]
    whole["tool"]["vllm-plugins"]["manifest"] = "dev.yaml"
    expected = lock.replace(accepted_manifests=("b" * 64,), manifest_name="dev.yaml")
    assert lock_reader.parse(written(whole), PATH) == expected


def test_only_a_plugin_that_the_base_provides_is_in_no_package() -> None:
    lock = values.lock()
    (plugin,) = lock.plugins
    there = plugin.replace(name="there", package=values.NAME("there"))
    provided = lock.replace(plugins=(there.replace(provided=True, dependencies=(values.NAME("tiny"),)), plugin))
    data = lock_writer.render(provided)
    assert lock_reader.parse(data, PATH) == provided
    wrong = {"provided": "bool", "dependencies": "list", "with-base": "list"}
    for key, kind in wrong.items():
        whole = tomllib.loads(data.decode())
        whole["tool"]["vllm-plugins"]["plugins"][0][key] = 5
        assert refused(written(whole)).found == f"{TOOL}.plugins[0].{key}: expected {kind}, found 5"
    with pytest.raises(LockInvalid, match="there is not among the packages"):
        lock_writer.render(lock.replace(plugins=(there, plugin)))


def test_the_name_of_a_wheel_has_the_parts_of_one() -> None:
    assert "expected the name of a wheel" in str(refused(written(document(*WHEEL, "name", value="helper-1.5.whl"))))


def test_a_target_without_vllm_has_none() -> None:
    (target,) = lock_reader.parse(written(document(*TARGET, "vllm")), PATH).targets
    assert target.vllm is None


def test_the_field_of_another_program_is_part_of_the_content() -> None:
    """It may be of any type. An edit of it is an edit."""
    whole = document("tool", "other", value={"future": dt.date(2026, 1, 2)})
    data = written(whole)
    assert lock_reader.parse(data, PATH) == lock_reader.parse(GOLDEN.read_bytes(), PATH)
    with pytest.raises(HashMismatch):
        lock_reader.parse(data.replace(b"2026-01-02", b"2026-01-03"), PATH)


def test_the_order_of_keys_is_not_part_of_the_content() -> None:
    """The hash is of the JSON form, in ASCII and without spaces: a lock that was written once stays valid."""
    whole = document()
    turned = dict(reversed(whole.items()))
    assert lock_reader.content_sha256(turned) == lock_reader.content_sha256(whole)
    assert whole["tool"]["vllm-plugins"]["content-sha256"] == lock_reader.content_sha256(whole)
    for key in ("content-sha256", "accepted-manifests"):
        other = document("tool", "vllm-plugins", key, value=["x"])
        assert lock_reader.content_sha256(other) == lock_reader.content_sha256(whole)


def test_a_lock_that_was_edited_by_hand_is_reported_with_both_hashes() -> None:
    data = GOLDEN.read_bytes().replace(b"c" * 64, b"9" * 64)
    with pytest.raises(HashMismatch) as caught:
        lock_reader.parse(data, PATH)
    assert str(caught.value) == message(
        "the lock was edited by hand; nothing is installed from it",
        "expected: content-sha256 09e41782e44832e1bf697bd3872f05b935f802bedbd537500477fd6589e61cc0",
        f"found: content-sha256 {lock_reader.content_sha256(tomllib.loads(data.decode()))}",
        f"next: {RELOCK}",
        id="hash-mismatch",
    )


@pytest.mark.parametrize(
    ("keys", "value", "expected", "found"),
    [
        (("lock-version",), "2.0", "lock-version 1.0", "lock-version '2.0'"),
        *(
            (("tool", "vllm-plugins", "format"), number, "format 1", f"format {number}")
            for number in (lock_reader.FORMAT + 1, 999)
        ),
    ],
)
def test_a_lock_of_a_newer_version_requires_a_newer_version(
    keys: tuple[str, ...], value: Any, expected: str, found: str
) -> None:
    assert str(refused(written(document(*keys, value=value)))) == message(
        "the lock was written by a newer version",
        f"expected: {expected}",
        f"found: {found}",
        "next: pip install --upgrade vllm-plugin-manager, in the environment that runs vLLM",
    )


def test_a_lock_that_is_not_toml_is_refused() -> None:
    assert str(refused(b"x = \n")) == message(
        "the lock is not valid TOML", "found: Invalid value (at line 1, column 5)", f"next: {RESTORE}"
    )
    assert "0xff is not UTF-8: save the file as UTF-8" in str(refused(b"\xff").found)
    assert refused(b"x = " + b"[" * 10_000).what == "the lock is not valid TOML"


def test_a_byte_order_mark_is_no_part_of_a_lock() -> None:
    data = GOLDEN.read_bytes()
    marked = b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")  # as some editors save it
    assert lock_reader.parse(marked, PATH) == lock_reader.parse(data, PATH)


def test_a_line_with_very_many_dots_is_refused() -> None:
    """A dotted key costs the square of its length."""
    data = GOLDEN.read_bytes()
    lock_reader.parse(data + b"#" + b"." * 2000, PATH)
    assert refused(data + b"#" + b"." * 2001).found == "a line with more than 2000 dots"
    lock_reader.parse(data + b"#" + b"x" * 3000, PATH)


@pytest.mark.parametrize("other", [b"", b"\xff"])
def test_a_lock_with_merge_conflicts_is_named_as_such(other: bytes) -> None:
    data = b"<<<<<<< ours\nx = 1\n=======\nx = 2\n>>>>>>> theirs\n" + other
    assert str(refused(data)) == message(
        "the lock has merge conflicts",
        "next: run `vllm-plugins lock`: it keeps the pins that both sides agree on and resolves the rest",
    )


def test_a_lock_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "plugins.lock"
    data = lock_writer.render(values.lock())
    path.write_bytes(data)
    assert lock_reader.read_bytes(path) == data
    assert lock_reader.read(path) == values.lock()
    path.write_bytes(data.replace(b"a" * 64, b"b" * 64))
    with pytest.raises(HashMismatch) as caught:
        lock_reader.read(path)
    assert caught.value.where == str(path)
    assert lock_reader.read(path, edited=True) != values.lock()


def test_a_lock_that_is_missing_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "plugins.lock"
    with pytest.raises(LockMissing) as caught:
        lock_reader.read(path)
    assert (caught.value.what, caught.value.where) == ("the lock is missing", str(path))
    assert caught.value.next_step == "vllm-plugins lock"


def test_a_lock_that_is_not_a_file_is_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError) as caught:
        lock_reader.read(tmp_path)
    error = caught.value
    assert (error.what, error.where, error.found) == ("the lock can't be read", str(tmp_path), "Is a directory")
    assert error.next_step == "make it a file that you can read"

    def fails(*_: object) -> None:
        raise OSError("no reason")

    monkeypatch.setattr("vllm_plugins.core.regular_file.read_bytes", fails)
    with pytest.raises(StoreError) as caught:
        lock_reader.read_bytes(tmp_path)
    assert caught.value.found == "no reason"


def test_a_lock_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_reader, "MAX_BYTES", MIB)
    path = tmp_path / "plugins.lock"
    path.write_bytes(b"#" * MIB)
    assert lock_reader.read_bytes(path) == b"#" * MIB
    for size in (MIB + 1, 16 * MIB):
        with open(path, "wb") as file:
            file.truncate(size)
        tracemalloc.start()
        try:
            with pytest.raises(LockInvalid) as caught:
                lock_reader.read_bytes(path)
            assert tracemalloc.get_traced_memory()[1] < 4 * MIB
        finally:
            tracemalloc.stop()
        assert str(caught.value) == (
            "the lock is too large [lock-invalid]\n"
            f"  where: {path}\n"
            "  expected: at most 1 MiB\n"
            f"  next: {RESTORE}"
        )  # fmt: skip


def test_a_plugin_can_not_hide_behind_another_of_its_name() -> None:
    """The first entry would run; a comparison by name with plugins.yaml sees the last."""
    lock = values.lock(values.package("hidden"), values.package())
    (tiny,) = lock.plugins
    for name in ("tiny", "Tiny"):
        hidden = tiny.replace(name=name, package=values.NAME("hidden"))
        twice = lock.replace(plugins=(hidden, tiny))
        whole = tomllib.loads(lock_writer.render(lock).decode())
        entries = whole["tool"]["vllm-plugins"]["plugins"]
        entries.insert(0, {**entries[0], "name": name, "package": "hidden"})
        assert refused(written(whole)).found == f"{TOOL}.plugins: tiny appears more than once"
        with pytest.raises(LockInvalid):  # nor is such a lock written
            lock_reader.parse(lock_writer.render(twice), PATH)


def test_an_override_stands_in_a_lock_once() -> None:
    override = Override(package=values.NAME("tiny"), version="1.0", replaces="0.9", requested="tiny>=1", reason="new")
    whole = tomllib.loads(lock_writer.render(values.lock(overrides=(override,))).decode())
    overrides = whole["tool"]["vllm-plugins"]["overrides"]
    overrides.append({**overrides[0], "reason": "another"})
    assert refused(written(whole)).found == f"{TOOL}.overrides: tiny appears more than once"


@pytest.mark.parametrize(
    ("key", "value"),
    [("filename", "../evil.py"), ("filename", "sitecustomize.py"), ("name", "../evil"), ("url", "ftp://x/tiny.py")],
)
def test_a_single_file_has_a_name_and_an_address_that_a_path_and_a_request_may_be_made_of(
    key: str, value: str
) -> None:
    (plugin,) = values.lock().plugins
    file = plugin.replace(source="file", filename="tiny.py", file_sha256=Sha256("c" * 64), url="https://x/tiny.py")
    data = lock_writer.render(values.lock(plugins=(file,)))
    assert lock_reader.parse(data, PATH).plugins == (file,)
    whole = tomllib.loads(data.decode())
    whole["tool"]["vllm-plugins"]["plugins"][0][key] = value
    assert str(refused(written(whole)).found).startswith(f"{TOOL}.plugins[0]: ")


def test_each_field_of_an_override_is_read_and_named() -> None:
    override = Override(
        package=values.NAME("tiny"), version="1.0", replaces="0.9", requested="tiny>=1", reason="new",
        against=(("vllm", "<1"),),
    )  # fmt: skip
    lock = values.lock(overrides=(override,))
    data = lock_writer.render(lock)
    assert lock_reader.parse(data, PATH) == lock
    here = f"{TOOL}.overrides[0]"
    for key in ("package", "version", "replaces", "requested", "reason"):
        whole = tomllib.loads(data.decode())
        whole["tool"]["vllm-plugins"]["overrides"][0][key] = 5
        assert refused(written(whole)).found == f"{here}.{key}: expected str, found 5"
    for key, value, place in (
        ("requested", "tiny >", "requested"),
        ("against", [{"name": "vllm", "specifier": "x"}], "against[0].specifier"),
    ):
        whole = tomllib.loads(data.decode())
        whole["tool"]["vllm-plugins"]["overrides"][0][key] = value
        assert str(refused(written(whole)).found).startswith(f"{here}.{place}: ")


BUILT = ("tool", "vllm-plugins", "build-requirements", 0)
BUILT_WHEEL = (*BUILT, "wheels", 0)


@pytest.mark.parametrize(
    ("keys", "value", "found"),
    [
        (BUILT[:-1], "x", "build-requirements: expected list, found 'x'"),
        ((*BUILT, "name"), "Hatchling", "build-requirements[0].name: expected hatchling, found 'Hatchling'"),
        ((*BUILT, "version"), "one", "build-requirements[0].version: expected a version, found 'one'"),
        ((*BUILT, "wheels"), [], "build-requirements[0].wheels: expected at least one"),
        ((*BUILT_WHEEL, "name"), "x-1-py3-none-any.whl", "build-requirements[0].wheels[0].name: expected a wheel of hatchling 1.27.0, found 'x-1-py3-none-any.whl'"),
        ((*BUILT_WHEEL, "name"), "x", "build-requirements[0].wheels[0].name: expected the name of a wheel, found 'x'"),
        ((*BUILT_WHEEL, "size"), -1, "build-requirements[0].wheels[0].size: expected a number of bytes from 0, found -1"),
        ((*BUILT_WHEEL, "size"), True, "build-requirements[0].wheels[0].size: expected int, found True"),
        ((*BUILT_WHEEL, "url"), "file:///x", "build-requirements[0].wheels[0].url: expected an https URL, found 'file:///x'"),
        ((*BUILT_WHEEL, "hashes"), {}, "build-requirements[0].wheels[0].hashes.sha256: missing"),
        ((*BUILT_WHEEL, "hashes", "sha256"), "0", "build-requirements[0].wheels[0].hashes.sha256: expected 64 hexadecimal digits, found '0'"),
        ((*BUILT_WHEEL, "path"), "x", "build-requirements[0].wheels[0].path: this key is unknown (a newer version's?), and may change what is installed"),
    ],
    ids=lambda item: None if isinstance(item, tuple) else str(item)[:60],
)  # fmt: skip
def test_a_build_requirement_that_has_no_meaning_is_refused(
    keys: tuple[str | int, ...], value: Any, found: str
) -> None:
    assert refused(written(document(*keys, value=value))).found == f"{TOOL}.{found}"


def test_a_wheel_of_a_build_requirement_may_have_no_address() -> None:
    whole = document()
    del whole["tool"]["vllm-plugins"]["build-requirements"][0]["wheels"][0]["url"]
    (item,) = lock_reader.parse(written(whole), PATH).build_requirements
    assert (item.pin, item.wheels[0].url) == ("hatchling==1.27.0", None)


def test_a_build_requirement_appears_once() -> None:
    whole = document()
    whole["tool"]["vllm-plugins"]["build-requirements"] *= 2
    assert refused(written(whole)).found == f"{TOOL}.build-requirements: hatchling==1.27.0 appears more than once"
