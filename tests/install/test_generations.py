"""The overlays of a store, while other processes change it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.install import generations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest


def test_files_that_another_machine_removes_meanwhile_have_no_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gone.py", "here.py"):
        (tmp_path / name).write_bytes(b"N = 1\n")
    walk = os.walk

    def walking(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(str(top)):
            (tmp_path / "gone.py").unlink()
            yield found

    monkeypatch.setattr(os, "walk", walking)
    assert generations._size(tmp_path) == 6


def test_an_overlay_that_another_machine_has_removed_was_not_published(tmp_path: Path) -> None:
    assert generations._published(tmp_path) == tmp_path.stat().st_mtime
    assert generations._published(tmp_path / "gone") is None
