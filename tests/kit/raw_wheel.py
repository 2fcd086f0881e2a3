"""Wheels that no backend would make, written entry by entry."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RawWheel"]

_WHEEL = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(kw_only=True)
class RawWheel:
    """A wheel to be. ``entries`` are ``(path, content, mode)`` as they stand in the archive, twice if they do.

    ``name``, ``version`` and ``build`` are those of its file; ``says`` and ``says_version`` are others for its METADATA.
    """

    name: str = "bad"
    version: str = "1.0"
    says: str | None = None
    says_version: str | None = None
    build: str = ""
    has_record: bool = True
    entries: list[tuple[str, bytes, int]] = field(default_factory=list)

    @property
    def info(self) -> str:
        """Its ``.dist-info``."""
        return f"{self.name}-{self.version}.dist-info"

    def add(self, path: str, content: str | bytes = "x = 1\n", mode: int = 0o100644) -> RawWheel:
        """One more entry; the mode is that of Unix, with the kind of file."""
        data = content.encode() if isinstance(content, str) else content
        self.entries.append((path, data, mode))
        return self

    def write(self, into: Path) -> Path:
        """Write it into a directory, with a RECORD of all that stands in it."""
        core = (
            f"Metadata-Version: 2.1\nName: {self.says or self.name}\nVersion: {self.says_version or self.version}\n"
        )
        entries = [*self.entries, (f"{self.info}/METADATA", core.encode(), 0o100644)]
        entries.append((f"{self.info}/WHEEL", _WHEEL.encode(), 0o100644))
        if self.has_record:
            rows = [(path, f"sha256={_digest(data)}", str(len(data))) for path, data, _ in entries]
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([*rows, (f"{self.info}/RECORD", "", "")])
            entries.append((f"{self.info}/RECORD", text.getvalue().encode(), 0o100644))
        into.mkdir(parents=True, exist_ok=True)
        tag = f"-{self.build}" if self.build else ""
        path = into / f"{self.name}-{self.version}{tag}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data, mode in entries:
                item = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                item.create_system = 3
                item.external_attr = mode << 16
                item.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(item, data)
        return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
