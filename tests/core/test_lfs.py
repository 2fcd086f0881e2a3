"""Git LFS pointers: which file is one."""

from __future__ import annotations

import pytest

from vllm_plugins.core import lfs

OID = b"oid sha256:" + b"ab" * 32 + b"\n"


@pytest.mark.parametrize(
    "data",
    [
        b"version https://git-lfs.github.com/spec/v1\n" + OID + b"size 12\n",
        b"version https://git-lfs.github.com/spec/v1\r\noid sha256:x\r\nsize 12\r\n",
        b"version https://hawser.github.com/spec/v1\n" + OID + b"size 12\n",
        b"version https://git-lfs.github.com/spec/v1\next-0-x sha256:y\n" + OID + b"size 12\n",
    ],
)
def test_a_pointer_has_a_version_an_oid_and_a_size(data: bytes) -> None:
    assert lfs.is_pointer(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x01",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"version https://git-lfs.github.com/spec/v1 is what a pointer begins with\n" + OID + b"size 12\n",
        b"# version https://git-lfs.github.com/spec/v1\n" + OID + b"size 12\n",
        b"version https://git-lfs.github.com/spec/v1\n" + OID + b"size 12\n" + b"x" * 1024,
    ],
)
def test_any_other_file_is_not_a_pointer(data: bytes) -> None:
    assert not lfs.is_pointer(data)
