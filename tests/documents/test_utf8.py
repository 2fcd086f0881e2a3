"""Each file of a user that an editor has saved in another encoding: one rule, whichever file it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import values
from vllm_plugins.core.errors import LockInvalid, ManifestError, PluginsError, UsageError
from vllm_plugins.documents import base as bases
from vllm_plugins.documents import lock_reader, lock_writer
from vllm_plugins.documents import manifest as manifests

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANIFEST = "# a comment: é\nplugins: []\n"
LOCK = lock_writer.render(values.lock()).decode() + "# é\n"
BASE = values.base().to_json()
FILES: dict[str, tuple[str, Callable[[Path], object], type[PluginsError]]] = {
    "plugins.yaml": (MANIFEST, manifests.read, ManifestError),
    "plugins.lock": (LOCK, lock_reader.read, LockInvalid),
    "base.json": (f'{BASE.rstrip()[:-1]}, "é": 1}}', bases.read_snapshot, UsageError),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_a_file_in_another_encoding_is_an_error_that_says_how_to_save_it(
    tmp_path: Path, name: str, encoding: str
) -> None:
    text, read, kind = FILES[name]
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    with pytest.raises(kind) as caught:
        read(path)
    assert "save the file as UTF-8" in str(caught.value)
    assert "line" in str(caught.value)
    assert caught.value.where is None or str(path) in caught.value.where


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_in_utf_8_is_read_with_a_byte_order_mark_and_without(tmp_path: Path, name: str, encoding: str) -> None:
    text, read, _ = FILES[name]
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    assert read(path)
