"""A stage as an installer leaves it: files and ``.dist-info`` directories with a RECORD, written by hand."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["digest", "install"]


def digest(data: bytes, algorithm: str = "sha256") -> str:
    """The hash of some bytes, as RECORD has it."""
    raw = hashlib.new(algorithm, data).digest()
    return f"{algorithm}={base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"


def install(
    site: Path,
    name: str = "tiny",
    version: str = "1.0",
    *,
    files: Mapping[str, bytes] | None = None,
    rows: Iterable[tuple[str, ...]] = (),
    without: Iterable[str] = (),
    entry_points: str = "",
) -> Path:
    """Write one distribution, and return its ``.dist-info``.

    ``rows`` are further rows of RECORD, ``without`` paths that RECORD leaves out.
    """
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    content = {f"{name.replace('-', '_')}.py": b"x = 1\n", **(files or {})}
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    if entry_points:
        content[f"{info}/entry_points.txt"] = entry_points.encode()
    for path, data in content.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    lines = [(path, digest(data), str(len(data))) for path, data in content.items() if path not in set(without)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*lines, *rows, (f"{info}/RECORD", "", "")])
    (site / info / "RECORD").write_text(text.getvalue(), encoding="utf-8")
    return site / info
