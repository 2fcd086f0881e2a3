from __future__ import annotations

import importlib.util

import pytest

from vllm_plugins.core import bytecode, hashes


def test_the_paths_of_source_and_bytecode() -> None:
    path = bytecode.place("package/module.py")
    assert path == importlib.util.cache_from_source("package/module.py", optimization="")
    assert bytecode.source(path) == "package/module.py"
    assert bytecode.source("package/module.pyc") == "package/module.py"
    assert bytecode.source("package/data.txt") == "package/data.txt"


def test_bytecode_is_its_sources_and_no_others() -> None:
    data = bytecode.compiled(b"x = 1\n", "m.py")
    assert data is not None
    assert data[4:8] == b"\x01\x00\x00\x00"  # PEP 552: by hash, unchecked
    assert bytecode.is_of(data, b"x = 1\n", "m.py")
    assert not bytecode.is_of(data, b"x = 2\n", "m.py")
    assert not bytecode.is_of(data[:20], b"x = 1\n", "m.py")
    assert not bytecode.is_of(b"\0" + data[1:], b"x = 1\n", "m.py")


@pytest.mark.parametrize("source", [b"{{ template }} x", b"\0", b"print 1\n", b"\xff"])
def test_what_can_not_be_compiled_has_no_bytecode(source: bytes) -> None:
    assert bytecode.compiled(source, "m.py") is None
    assert not bytecode.is_of(b"anything", source, "m.py")


def test_a_hash_in_both_forms() -> None:
    assert hashes.sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (
        hashes.record_form(bytes.fromhex(hashes.sha256(b""))) == "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    )
