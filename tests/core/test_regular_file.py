"""Files that could be something else: a pipe, a device, a socket or a directory is refused, and nothing waits for it."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import vllm_plugins
from vllm_plugins.core import hashes, regular_file

HOME = Path(vllm_plugins.__file__).parent.parent


def test_a_file_is_read_whole_or_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\r\ntwo\xff")
    assert regular_file.read_bytes(path) == b"one\r\ntwo\xff"
    assert regular_file.read_bytes(path, 3) == b"one"
    assert regular_file.read_bytes(path, 100) == b"one\r\ntwo\xff"
    assert regular_file.read_bytes(path, 0) == b""
    assert regular_file.read_text(path, errors="replace") == "one\ntwo\ufffd"
    with pytest.raises(UnicodeDecodeError):
        regular_file.read_text(path)


def test_a_file_that_tells_no_size_is_read_whole() -> None:
    assert len(regular_file.read_bytes("/proc/self/smaps")) > 1 << 12
    reading, writing = os.pipe()
    data = b"x" * 200_000

    def fill() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)

    with ThreadPoolExecutor() as pool:
        pool.submit(fill)
        assert regular_file.read_bytes(f"/dev/fd/{reading}") == data
    os.close(reading)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert regular_file.read_text(tmp_path / "link") == "x"


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "link to a device", "directory", "socket"])
def test_anything_but_a_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "there"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link to a pipe":
            os.mkfifo(tmp_path / "pipe")
            path.symlink_to("pipe")
        case "link to a device":
            path.symlink_to("/dev/zero")
        case "directory":
            path.mkdir()
        case _:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.path.relpath(path))
    with pytest.raises(OSError, match=r"Is a directory|Not a regular file|No such device") as caught:
        regular_file.read_bytes(path)
    assert caught.value.errno in (errno.EISDIR, errno.EINVAL, errno.ENXIO)
    with pytest.raises(OSError, match=r"Is a directory|Not a regular file|No such device"):
        hashes.of_file(path)
    with pytest.raises(OSError, match=r"Is a directory|Not a regular file"):
        regular_file.check(path)
    assert not [link for link in os.listdir("/proc/self/fd") if _target(link) == str(path)]


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def test_a_pipe_of_a_shell_is_read() -> None:
    """``--policy <(git show main:plugins.yaml)`` names ``/dev/fd/63``."""
    reading, writing = os.pipe()
    os.write(writing, b"plugins: []\n")
    os.close(writing)
    try:
        assert regular_file.read_bytes(f"/dev/fd/{reading}") == b"plugins: []\n"
    finally:
        os.close(reading)


def test_a_file_that_is_masked_is_empty(tmp_path: Path) -> None:
    (tmp_path / "masked").symlink_to(os.devnull)
    for path in (Path(os.devnull), tmp_path / "masked"):
        assert regular_file.read_bytes(path) == b""
        regular_file.check(path)


@pytest.mark.parametrize("name", ["plain", "a b", "é", "%41", "日本#?", "100%"])
@pytest.mark.parametrize("utf8", ["0", "1"])
def test_the_path_of_a_url_is_the_one_that_the_url_was_made_of(tmp_path: Path, name: str, utf8: str) -> None:
    path = tmp_path / name
    path.touch()
    code = (
        "import os, pathlib; from vllm_plugins.core import regular_file; (name,) = os.listdir('.'); "
        "path = os.path.join(os.getcwd(), name); print(regular_file.of_url(pathlib.Path(path).as_uri()) == path)"
    )
    env = {"LC_ALL": "C", "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(HOME)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.stdout == b"True\n", done.stderr
