from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from packaging.markers import default_environment
from packaging.tags import sys_tags

from tests.kit import values
from vllm_plugins.core import hashes
from vllm_plugins.core.errors import BaseMismatch, HashMismatch, InstallError
from vllm_plugins.core.hashes import Sha256, sha256
from vllm_plugins.documents import lock_writer, selection
from vllm_plugins.documents.lock import Override

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_plugins.documents.lock import Package
    from vllm_plugins.documents.selection import Selected
    from vllm_plugins.startup.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return values.settings(tmp_path)


def select(settings: Settings, *packages: Package) -> Selected:
    return selection.select(lock_writer.normal_form(values.lock(*packages)), settings)


def test_a_wheel_of_an_index_is_a_requirement_with_its_hash(settings: Settings) -> None:
    (found,) = select(settings, values.package()).wheels
    assert (found.name, found.version, found.path) == ("tiny", "1.0", None)
    assert found.line == f"tiny===1.0 --hash=sha256:{'a' * 64}"


def test_an_index_has_a_wheel_under_the_version_in_its_name(settings: Settings) -> None:
    """The arbitrary equality of pip compares texts, so the version must be written as in the name of the file."""
    wheel = values.wheel(version="1.0.0")
    (found,) = select(settings, values.package(wheels=(wheel,))).wheels
    assert (found.version, found.file_version) == ("1.0", "1.0.0")
    assert found.line == f"tiny===1.0.0 --hash=sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("builds", "first"),
    [
        (("", "-0_abc"), "-0_abc"),
        (("-1", "", "-2"), "-2"),
        (("-10", "-9"), "-10"),
        (("-1a", "-1"), "-1a"),
        (("",), ""),
    ],
)
def test_of_wheels_with_the_same_tags_the_highest_build_is_taken(
    settings: Settings, builds: tuple[str, ...], first: str
) -> None:
    for order in (builds, builds[::-1]):
        wheels = [values.wheel(version=f"1.0{build}", sha256=f"{builds.index(build)}" * 64) for build in order]
        (found,) = selection.select(values.lock(values.package(wheels=tuple(wheels))), settings).wheels
        assert found.sha256 == f"{builds.index(first)}" * 64


def test_a_wheel_next_to_the_lock_is_taken_from_there(settings: Settings) -> None:
    data = b"the wheel"
    for url in (None, "https://example.org/tiny-1.0-py3-none-any.whl"):
        wheel = values.wheel(url=url, sha256=sha256(data), size=len(data))
        settings.wheels.mkdir(exist_ok=True)
        path = settings.wheels / wheel.filename
        path.write_bytes(data)
        (found,) = select(settings, values.package(wheels=(wheel,))).wheels
        assert found.path == path
        assert found.line == f"tiny @ {path.as_uri()} --hash=sha256:{sha256(data)}"


@pytest.mark.parametrize("url", [None, "https://example.org/tiny-1.0-py3-none-any.whl"])
def test_another_file_next_to_the_lock_is_refused(settings: Settings, url: str | None) -> None:
    wheel = values.wheel(url=url)
    settings.wheels.mkdir()
    (settings.wheels / wheel.filename).write_bytes(b"another file")
    with pytest.raises(HashMismatch) as caught:
        select(settings, values.package(wheels=(wheel,)))
    assert str(caught.value) == (
        "the wheel tiny-1.0-py3-none-any.whl is not the locked one [hash-mismatch]\n"
        f"  where: {settings.wheels}/tiny-1.0-py3-none-any.whl\n"
        f"  expected: sha256 {'a' * 64}\n"
        f"  found: sha256 {sha256(b'another file')}\n"
        "  next: remove tiny-1.0-py3-none-any.whl, then run vllm-plugins sync"
    )


def test_a_missing_wheel_is_an_error_if_no_index_has_it_or_none_may_be_used(settings: Settings) -> None:
    built = values.package(wheels=(values.wheel(url=None),))
    remote = values.package("other", wheels=(values.wheel("other"),))
    with pytest.raises(InstallError) as caught:
        select(settings, built, remote)
    assert str(caught.value) == (
        "1 locked wheel missing in plugins.wheels/ [install-failed]\n"
        f"  where: {settings.wheels}\n"
        "  tiny-1.0-py3-none-any.whl\n"
        "  next: take them from version control, or run this where the index can be reached: "
        "VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle"
    )
    with pytest.raises(InstallError) as caught:
        select(settings.replace(offline=True), built, remote)
    assert caught.value.details == ("other-1.0-py3-none-any.whl", "tiny-1.0-py3-none-any.whl")


def test_a_wheel_for_another_machine_is_never_selected(settings: Settings) -> None:
    far = values.wheel(tag="cp399-cp399-other_machine")
    (found,) = select(settings, values.package(wheels=(far, values.wheel(sha256="b" * 64)))).wheels
    assert found.sha256 == "b" * 64
    with pytest.raises(BaseMismatch) as caught:
        select(settings, values.package(wheels=(far,)))
    error = caught.value
    assert (error.what, error.where) == ("the lock has no wheels for this machine", str(settings.lock))
    assert "tiny" in str(error.found)
    assert error.next_step == "vllm-plugins lock, in this environment"


def test_an_editable_source_has_no_hash_and_is_selected_apart(settings: Settings) -> None:
    found = select(settings, values.package(wheels=(), directory="../mine"))
    assert found.wheels == ()
    assert found.editable == (("tiny", "../mine"),)


def test_packages_after_an_editable_one_are_selected_too(settings: Settings) -> None:
    found = select(
        settings,
        values.package("tiny", wheels=(), directory="../mine"),
        values.package("zoo", wheels=(values.wheel("zoo"),)),
    )
    assert ([item.name for item in found.wheels], found.editable) == (["zoo"], (("tiny", "../mine"),))


def test_a_package_is_selected_only_where_its_marker_holds(settings: Settings) -> None:
    there = values.package("there", marker='python_full_version == "0"', wheels=(values.wheel("there"),))
    here = values.package("here", marker='python_full_version != "0"', wheels=(values.wheel("here"),))
    assert [item.name for item in select(settings, values.package(), there, here).wheels] == ["here", "tiny"]


def refusal(settings: Settings, found: str) -> str:
    return (
        "the lock has no wheels for this machine [base-mismatch]\n"
        f"  where: {settings.lock}\n"
        f"  found: {found}\n"
        "  next: vllm-plugins lock, in this environment"
    )


def test_a_wheel_for_another_machine_is_named_with_this_one(settings: Settings) -> None:
    far = tuple(values.wheel(tag=f"cp399-cp399-{name}_machine") for name in ("far", "other"))
    with pytest.raises(BaseMismatch) as caught:
        select(settings, values.package(wheels=far))
    names = "tiny-1.0-cp399-cp399-far_machine.whl, tiny-1.0-cp399-cp399-other_machine.whl"
    assert str(caught.value) == refusal(settings, f"tiny 1.0 has only {names}; this is {next(sys_tags())}")


def test_a_python_that_a_package_supports_is_accepted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python that was built from a repository has a plus sign after its version."""
    found = {**default_environment(), "python_full_version": "3.14.7+"}
    monkeypatch.setattr(selection, "default_environment", lambda: found)
    for requires in (None, ">=3", "==3.14.7", ">=3.14.7"):
        assert len(select(settings, values.package(requires_python=requires)).wheels) == 1


def test_a_python_that_a_package_does_not_support_is_refused(settings: Settings) -> None:
    with pytest.raises(BaseMismatch) as caught:
        select(settings, values.package(requires_python=">=99"))
    python = default_environment()["python_full_version"]
    assert str(caught.value) == refusal(settings, f"tiny 1.0 requires Python >=99; this is {python}")


def test_a_lock_of_other_environments_is_refused(settings: Settings) -> None:
    others = ('python_full_version == "0"', 'python_full_version == "1"')
    with pytest.raises(BaseMismatch) as caught:
        selection.select(values.lock(environments=others), settings)
    assert str(caught.value) == refusal(settings, f"the lock is for environments with {others[0]} or {others[1]}")


def test_a_lock_of_this_environment_among_others_is_accepted(settings: Settings) -> None:
    here = values.lock(environments=('python_full_version == "0"', 'python_full_version != "0"'))
    assert [item.name for item in selection.select(here, settings).wheels] == ["tiny"]


def test_what_the_lock_overrides_is_installed_in_front_and_nothing_else(settings: Settings) -> None:
    override = Override(
        package=values.NAME("base-package"), version="1.0", replaces="0.9", requested="base-package", reason="a test"
    )
    packages = (values.package(), values.package("base-package", wheels=(values.wheel("base_package"),)))
    found = selection.select(values.lock(*packages, overrides=(override,)), settings).wheels
    assert {item.name: item.in_front for item in found} == {"tiny": False, "base-package": True}


def test_a_plugin_that_the_environment_provides_needs_no_package(settings: Settings) -> None:
    lock = values.lock(values.package("other", wheels=(values.wheel("other"),)))
    provided = lock.replace(plugins=(lock.plugins[0].replace(provided=True),))
    assert [item.name for item in selection.select(provided, settings).wheels] == ["other"]


def test_a_plugin_whose_package_is_only_for_other_machines_is_an_error(settings: Settings) -> None:
    """It would be reported as installed."""
    elsewhere = values.package(marker='python_full_version == "0"')
    with pytest.raises(InstallError) as caught:
        select(settings, elsewhere, values.package("other", wheels=(values.wheel("other"),)))
    assert str(caught.value) == (
        "the lock installs a plugin's package only elsewhere, and not on this machine [install-failed]\n"
        f"  where: {settings.lock}\n"
        "  plugin 'tiny': tiny\n"
        "  next: vllm-plugins lock, in this environment"
    )


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_no_file_is_not_the_locked_wheel(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """Somebody else may have made the directory, as with ``lock --merge``."""
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    make(path)
    with pytest.raises(HashMismatch, match="is not the locked one"):
        selection.find_wheel(path, Sha256("a" * 64))


@pytest.mark.parametrize("reason", [errno.EISDIR, errno.EINVAL, errno.ENXIO, errno.ELOOP, errno.EACCES])
def test_a_path_that_can_not_be_read_as_a_wheel_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    error = OSError(reason, os.strerror(reason))
    monkeypatch.setattr(hashes, "of_file", _raises(error))
    with pytest.raises(HashMismatch) as caught:
        selection.find_wheel(tmp_path / "tiny-1.0-py3-none-any.whl", Sha256("a" * 64))
    assert caught.value.found == os.strerror(reason)


def test_a_broken_disk_is_not_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "of_file", _raises(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error"):
        selection.find_wheel(tmp_path / "tiny-1.0-py3-none-any.whl", Sha256("a" * 64))


def _raises(error: Exception) -> Callable[..., object]:
    def fail(*_: object) -> object:
        raise error

    return fail
