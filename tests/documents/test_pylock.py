"""What of PEP 751 a lock may have: each value that is not one is refused with its place."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_plugins.core.fields import FieldError
from vllm_plugins.documents._lock import pylock

WHEEL: dict[str, Any] = {
    "name": "tiny-1.0-py3-none-any.whl",
    "url": "https://example.org/tiny-1.0-py3-none-any.whl",
    "size": 10,
    "hashes": {"sha256": "a" * 64},
}
PACKAGE: dict[str, Any] = {"name": "tiny", "version": "1.0", "wheels": [WHEEL]}
DIRECTORY: dict[str, Any] = {"name": "tiny", "version": "1.0", "directory": {"path": "../tiny", "editable": True}}
DOCUMENT: dict[str, Any] = {"lock-version": "1.0", "created-by": "a test", "packages": [PACKAGE]}


def changed(table: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A table with other values; names have `_` for `-`, and `None` removes a key."""
    whole = {**table, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return {name: value for name, value in whole.items() if value is not None}


def refused(document: Any) -> str:
    with pytest.raises(FieldError) as caught:
        pylock.packages(document)
    return str(caught.value)


def package(table: dict[str, Any]) -> pylock.Package:
    (found,) = pylock.packages({"packages": [table]})
    return found


def test_a_package_with_a_wheel_is_read() -> None:
    more = {
        "marker": "python_version >= '3.9'",
        "requires_python": ">=3.9",
        "dependencies": [{"name": "Other.Name"}],
        "index": "https://example.org/simple/",
        "tool": {"x": 1},
    }
    found = package(changed(PACKAGE, **more))
    assert (found.name, str(found.version), found.directory) == ("tiny", "1.0", None)
    assert (str(found.marker), str(found.requires_python)) == ('python_version >= "3.9"', ">=3.9")
    assert (found.dependencies, found.index, found.tool) == (("other-name",), "https://example.org/simple/", {"x": 1})
    (wheel,) = found.wheels
    assert (wheel.filename, wheel.url, wheel.path) == (WHEEL["name"], WHEEL["url"], None)
    assert (wheel.size, wheel.hashes) == (10, {"sha256": "a" * 64})


def test_a_package_has_little_that_is_required() -> None:
    found = package(changed(PACKAGE))
    assert (found.marker, found.requires_python, found.index) == (None, None, None)
    assert (found.dependencies, found.tool) == ((), {})
    found = package(DIRECTORY)
    assert (found.directory, found.wheels) == ("../tiny", ())


def test_a_wheel_may_be_at_a_path_and_empty() -> None:
    (wheel,) = package(changed(PACKAGE, wheels=[changed(WHEEL, url=None, path="x.whl", size=0)])).wheels
    assert (wheel.url, wheel.path, wheel.size) == (None, "x.whl", 0)


@pytest.mark.parametrize("version", ["1.0", "1", "1.0.0", "1.0+post", "1!1"])
def test_versions_may_be_written_in_another_form(version: str) -> None:
    name = f"tiny-{version}-py3-none-any.whl"
    assert str(package(changed(PACKAGE, version=version, wheels=[changed(WHEEL, name=name)])).version) == version


EITHER = "packages[0]: expected either wheels or a directory"
ONLY = "packages[0]: only wheels and editable directories are installed"
EDITABLE = "packages[0].directory: expected editable = true; only editable directories may be without a hash"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (5, "packages[0]: expected a table, found 5"),
        (changed(PACKAGE, name=None), "packages[0].name: missing"),
        (changed(PACKAGE, name=5), "packages[0].name: expected str, found 5"),
        (changed(PACKAGE, name="Tiny"), "packages[0].name: expected tiny, found 'Tiny'"),
        (changed(PACKAGE, name="ti_ny"), "packages[0].name: expected ti-ny, found 'ti_ny'"),
        (changed(PACKAGE, version=None), "packages[0].version: missing; only exact versions are installed"),
        (changed(PACKAGE, version=1), "packages[0].version: expected str, found 1"),
        (changed(PACKAGE, version="one"), "packages[0].version: expected a version, found 'one'"),
        (changed(PACKAGE, version=">=1"), "packages[0].version: expected a version, found '>=1'"),
        *((changed(PACKAGE, **{key: {}}), ONLY) for key in ("vcs", "archive", "sdist")),
        *((changed(DIRECTORY, **{key: {}}), ONLY) for key in ("vcs", "archive", "sdist")),
        (changed(PACKAGE, wheels=None), EITHER),
        (changed(PACKAGE, wheels=[]), EITHER),
        (changed(PACKAGE, directory=DIRECTORY["directory"]), EITHER),
        (changed(PACKAGE, wheels={}), "packages[0].wheels: expected list, found {}"),
        (changed(DIRECTORY, directory={"path": "x"}), EDITABLE),
        (changed(DIRECTORY, directory={"path": "x", "editable": False}), EDITABLE),
        (changed(DIRECTORY, directory={"path": "x", "editable": "true"}), "packages[0].directory.editable: expected bool, found 'true'"),
        (changed(DIRECTORY, directory={"path": "x", "editable": 1}), "packages[0].directory.editable: expected bool, found 1"),
        (changed(DIRECTORY, directory={"editable": True}), "packages[0].directory.path: missing"),
        (changed(DIRECTORY, directory={"path": 5, "editable": True}), "packages[0].directory.path: expected str, found 5"),
        (changed(DIRECTORY, directory="x"), "packages[0].directory: expected a table, found 'x'"),
        (changed(PACKAGE, marker=5), "packages[0].marker: expected str, found 5"),
        (changed(PACKAGE, marker="x"), "packages[0].marker: expected an environment marker, found 'x'"),
        (changed(PACKAGE, marker="extra == 'x'"), "packages[0].marker: extra == 'x' never holds: nobody chooses extras or groups"),
        (changed(PACKAGE, marker="'x' in extras"), "packages[0].marker: 'x' in extras never holds: nobody chooses extras or groups"),
        (changed(PACKAGE, marker="'x' in dependency_groups"), "packages[0].marker: 'x' in dependency_groups never holds: nobody chooses extras or groups"),
        (changed(PACKAGE, requires_python=3), "packages[0].requires-python: expected str, found 3"),
        (changed(PACKAGE, requires_python="three"), "packages[0].requires-python: expected a version specifier, found 'three'"),
        (changed(PACKAGE, dependencies={}), "packages[0].dependencies: expected list, found {}"),
        (changed(PACKAGE, dependencies=[{}]), "packages[0].dependencies[0].name: missing"),
        (changed(PACKAGE, dependencies=["x"]), "packages[0].dependencies[0]: expected a table, found 'x'"),
        (changed(PACKAGE, index=5), "packages[0].index: expected str, found 5"),
        (changed(PACKAGE, tool=[]), "packages[0].tool: expected dict, found []"),
    ],
)  # fmt: skip
def test_another_package_is_refused(table: Any, message: str) -> None:
    assert refused({"packages": [table]}) == message


PUBLISHER = "packages[0].attestation-identities"


def test_publishers_are_read_with_their_kind_first() -> None:
    one = {"workflow": "release.yml", "repository": "ada/tiny", "kind": "GitHub"}
    two = {"kind": "Google", "email": "a@example.org"}
    assert package(changed(PACKAGE, attestation_identities=[one, two])).identities == (
        (("kind", "GitHub"), ("repository", "ada/tiny"), ("workflow", "release.yml")),
        (("kind", "Google"), ("email", "a@example.org")),
    )
    assert package(changed(PACKAGE)).identities == ()
    assert package(changed(PACKAGE, attestation_identities=[])).identities == ()


@pytest.mark.parametrize(
    ("identities", "message"),
    [
        ({}, f"{PUBLISHER}: expected list, found {{}}"),
        (["x"], f"{PUBLISHER}[0]: expected a table, found 'x'"),
        ([{}], f"{PUBLISHER}[0].kind: missing"),
        ([{"kind": 5}], f"{PUBLISHER}[0].kind: expected str, found 5"),
        ([{"kind": "GitHub"}, {"kind": "GitHub", "repository": ["x"]}], f"{PUBLISHER}[1].repository: expected str, found ['x']"),
    ],
)  # fmt: skip
def test_another_publisher_is_refused(identities: Any, message: str) -> None:
    assert refused({"packages": [changed(PACKAGE, attestation_identities=identities)]}) == message


def test_a_wheel_for_millions_of_kinds_of_machines_is_refused_at_once() -> None:
    """Each of its tags would be made: one name could take the memory of whoever reviews a lock."""
    kinds = "-".join(".".join(f"{part}{number}" for number in range(300)) for part in ("cp", "abi", "linux_"))
    assert "expected the name of a wheel, found 'tiny-1.0-cp0.cp1." in refused(
        {"packages": [changed(PACKAGE, wheels=[changed(WHEEL, name=f"tiny-1.0-{kinds}.whl")])]}
    )


HERE = "packages[0].wheels[0]"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (5, f"{HERE}: expected a table, found 5"),
        (changed(WHEEL, name=None), f"{HERE}.name: missing"),
        (changed(WHEEL, name=5), f"{HERE}.name: expected str, found 5"),
        (changed(WHEEL, name="tiny.whl"), f"{HERE}.name: expected the name of a wheel, found 'tiny.whl'"),
        (changed(WHEEL, name="tiny-1.0.tar.gz"), f"{HERE}.name: expected the name of a wheel, found 'tiny-1.0.tar.gz'"),
        (changed(WHEEL, name="other-1.0-py3-none-any.whl"), f"{HERE}.name: expected a wheel of tiny 1.0, found 'other-1.0-py3-none-any.whl'"),
        (changed(WHEEL, name="tiny-2.0-py3-none-any.whl"), f"{HERE}.name: expected a wheel of tiny 1.0, found 'tiny-2.0-py3-none-any.whl'"),
        (changed(WHEEL, hashes=None), f"{HERE}.hashes: missing"),
        (changed(WHEEL, hashes="x"), f"{HERE}.hashes: expected dict, found 'x'"),
        (changed(WHEEL, url=None), f"{HERE}: expected a url or a path"),
        (changed(WHEEL, url=""), f"{HERE}: expected a url or a path"),
        (changed(WHEEL, url=None, path=""), f"{HERE}: expected a url or a path"),
        (changed(WHEEL, url=5), f"{HERE}.url: expected str, found 5"),
        (changed(WHEEL, path=5), f"{HERE}.path: expected str, found 5"),
        *((changed(WHEEL, size=size), f"{HERE}.size: expected a number of bytes from 0, found {size!r}") for size in (None, -1, 1.0, True, "1")),
    ],
)  # fmt: skip
def test_another_wheel_is_refused(table: Any, message: str) -> None:
    assert refused({"packages": [changed(PACKAGE, wheels=[table])]}) == message


def test_each_package_and_wheel_is_read() -> None:
    second = changed(WHEEL, name="tiny-1.0-2-py3-none-any.whl")
    bad = changed(WHEEL, size=-1)
    one, two = changed(PACKAGE, wheels=[WHEEL, second]), changed(PACKAGE, name="two", wheels=None)
    assert [len(found.wheels) for found in pylock.packages({"packages": [one, DIRECTORY]})] == [2, 0]
    assert refused({"packages": [one, two]}).startswith("packages[1]: ")
    assert refused({"packages": [changed(PACKAGE, wheels=[WHEEL, bad])]}).startswith("packages[0].wheels[1].size: ")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "packages: missing"),
        ({"packages": {}}, "packages: expected list, found {}"),
    ],
)
def test_a_document_without_packages_is_refused(document: Any, message: str) -> None:
    assert refused(document) == message


def test_a_lock_for_all_environments_has_none() -> None:
    assert pylock.environments(DOCUMENT) == ()


def test_environments_are_written_in_one_form() -> None:
    document = changed(DOCUMENT, environments=["python_version>='3.11'", "os_name == 'posix'"])
    assert pylock.environments(document) == ('python_version >= "3.11"', 'os_name == "posix"')


@pytest.mark.parametrize("version", ["1.0", "1.1", "1"])
def test_a_lock_of_the_same_major_version_is_read(version: str) -> None:
    assert pylock.environments(changed(DOCUMENT, lock_version=version)) == ()


@pytest.mark.parametrize("version", ["2.0", "0.9", "10"])
def test_a_lock_of_another_major_version_is_refused(version: str) -> None:
    with pytest.raises(pylock.NewerVersionError, match=version):
        pylock.environments(changed(DOCUMENT, lock_version=version))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (changed(DOCUMENT, lock_version=None), "lock-version: missing"),
        (changed(DOCUMENT, lock_version=1), "lock-version: expected str, found 1"),
        (changed(DOCUMENT, lock_version="one"), "lock-version: expected a version such as 1.0, found 'one'"),
        (changed(DOCUMENT, created_by=None), "created-by: missing"),
        (changed(DOCUMENT, created_by=5), "created-by: expected str, found 5"),
        (changed(DOCUMENT, environments=[]), "environments: expected at least one marker"),
        (changed(DOCUMENT, environments="x"), "environments: expected list, found 'x'"),
        (changed(DOCUMENT, environments=[5]), "environments[0]: expected str, found 5"),
        (changed(DOCUMENT, environments=["os_name == 'x'", "y"]), "environments[1]: expected an environment marker, found 'y'"),
    ],
)  # fmt: skip
def test_another_head_of_a_lock_is_refused(document: Any, message: str) -> None:
    with pytest.raises(FieldError) as caught:
        pylock.environments(document)
    assert str(caught.value) == message
