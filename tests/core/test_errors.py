from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core import errors
from vllm_plugins.core.errors import CommandFailed, DiskError, LockStale, PluginsError, remedy

if TYPE_CHECKING:
    from collections.abc import Iterator


def kinds(root: type[PluginsError] = PluginsError) -> Iterator[type[PluginsError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def test_each_kind_of_error_has_an_id_of_its_own() -> None:
    ids = [kind.id for kind in kinds()]
    assert len(ids) == len(set(ids))
    assert all(name == name.lower() and " " not in name and "_" not in name for name in ids)
    assert {kind.__name__ for kind in kinds()} <= {*errors.__all__}


def test_a_message_has_its_parts_in_one_order_and_the_id_on_the_first_line() -> None:
    error = LockStale(
        "it differs", where="here", expected="1", found="2", required_by="me", details=["more"], next_step="lock"
    )
    assert str(error) == (
        "it differs [lock-out-of-date]\n"
        "  where: here\n"
        "  expected: 1\n"
        "  found: 2\n"
        "  required by: me\n"
        "  more\n"
        "  next: lock"
    )


def test_empty_parts_are_left_out() -> None:
    assert str(LockStale("it differs")) == "it differs [lock-out-of-date]"
    assert LockStale("it differs").to_dict() == {"error": "lock-out-of-date", "exit_code": 3, "what": "it differs"}


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind is not CommandFailed])
def test_an_error_survives_the_way_through_another_process(kind: type[PluginsError]) -> None:
    error = kind("what", where="w", expected="e", found="f", required_by="r", details=["d"], next_step="n")
    read = PluginsError.from_dict(error.to_dict())
    assert type(read) is kind
    assert str(read) == str(error)
    assert read.to_dict() == error.to_dict()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("plugin 'tiny'", ["tiny"]),
        ("plugin 'a.b-c', through dep 1.0 → other 2.0, plugin 'tiny', plugin 'tiny'", ["a.b-c", "tiny"]),
        ("helper 1.0", []),
    ],
)
def test_the_plugins_that_require_something_are_data(text: str, names: list[str]) -> None:
    data = LockStale("what", required_by=text).to_dict()
    assert (data["required_by"], data["required_by_text"]) == (names, text)


def test_the_error_of_a_program_survives_it_too() -> None:
    error = CommandFailed("pip ended with exit status 2", returncode=2, details=["command: pip"])
    read = PluginsError.from_dict(error.to_dict())
    assert isinstance(read, CommandFailed)
    assert str(read) == str(error)


def test_an_error_of_a_newer_version_is_a_plain_one() -> None:
    assert type(PluginsError.from_dict({"error": "not-known-here", "what": "what"})) is PluginsError


@pytest.mark.parametrize("data", [{}, {"what": "no id"}, {"error": "lock-missing"}])
def test_data_that_is_no_error_is_refused(data: dict[str, str]) -> None:
    with pytest.raises(KeyError):
        PluginsError.from_dict(data)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_is_recognized_by_its_error_number_and_in_the_output_of_a_program(number: int) -> None:
    told = DiskError.from_os_error(OSError(number, os.strerror(number), "/some/file"))
    assert told is not None
    assert (told.where, told.found) == ("/some/file", os.strerror(number))
    read = DiskError.from_output(f"error: [Errno {number}] {os.strerror(number)}: '/some/file'", details=["more"])
    assert read is not None
    assert (read.what, read.next_step, read.details) == (told.what, told.next_step, ("more",))


def test_other_errors_are_not_the_disks() -> None:
    assert DiskError.from_os_error(PermissionError(errno.EACCES, "Permission denied")) is None
    assert DiskError.from_output("Permission denied") is None


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EIO, "read the kernel's log (dmesg)"),
        (errno.EROFS, "make it writable"),
        (errno.ESTALE, "run the command again, because another machine has changed it in the meantime"),
        (errno.EACCES, "give this user read access to it"),
        (None, "give this user read access to it"),
    ],
)
def test_the_next_step_after_an_error_of_a_file_system(number: int | None, expected: str) -> None:
    error = OSError("unknown") if number is None else OSError(number, "said so")
    assert remedy(error, "read") == expected


def _refused() -> BaseException:
    try:
        raise ConnectionRefusedError(111, "Connection refused")
    except OSError as refused:
        layers = ConnectionError("Max retries exceeded", Exception("Failed to establish a new connection"))
        layers.__context__ = refused
        return Exception(layers)


class _ProxyError(Exception):
    pass


_ProxyError.__name__ = "ProxyError"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (_refused(), "Connection refused"),
        (Exception(_ProxyError("no", OSError(113, "No route to host"))), "the proxy: No route to host"),
        (Exception(TimeoutError("Pool(host='a'): Read timed out.")), "no answer in time: Read timed out."),
        (OSError("a file is missing; PIP_CERT names it", OSError(2, "No such file")), None),
        (FileNotFoundError(2, "No such file or directory", "a"), "No such file or directory"),
        (ValueError("odd"), "ValueError: odd"),
        (OSError("a text alone"), "OSError: a text alone"),
    ],
    ids=str,
)
def test_the_cause_of_an_error_is_what_people_understand(error: BaseException, text: str | None) -> None:
    assert errors.cause(error) == (text or f"{type(error).__name__}: {error}")


def test_a_circle_of_causes_ends() -> None:
    error = ValueError("odd")
    error.args = (error, "odd")
    assert errors.cause(error).startswith("ValueError: ")
