"""Archives that begin well and can't be read: each way has an exception of its own in ``zipfile``."""

from __future__ import annotations

import struct
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WAYS", "damage"]

WAYS = ("encrypted", "compression", "damaged", "cut", "name", "version")


def damage(path: Path, member: str, how: str) -> None:
    """Damage an archive, at the member whose name ends so. The members are compressed first."""
    with zipfile.ZipFile(path) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in contents.items():
            new.writestr(name, content * 20)
        item = next(item for item in new.infolist() if item.filename.endswith(member))
    data = bytearray(path.read_bytes())
    # Where the headers of the member are, before its content and in the directory at the end.
    local, central = item.header_offset, data.rindex(item.filename.encode()) - 46
    start = local + 30 + len(item.filename)
    if how == "encrypted":
        data[local + 6] |= 1
        data[central + 8] |= 1
    elif how == "compression":
        data[local + 8 : local + 10] = data[central + 10 : central + 12] = struct.pack("<H", 99)
    elif how == "damaged":
        data[start : start + 4] = b"\xff\xff\xff\xff"
    elif how == "name":
        data[central + 9] |= 8  # UTF-8
        data[central + 46] = 0xFF
    elif how == "version":
        data[central + 6] = 99  # of the format
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)
