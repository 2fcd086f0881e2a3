"""The text of a file that people edit. It is UTF-8, and the error for another encoding says so."""

from __future__ import annotations

__all__ = ["NotUtf8Error", "decode"]


class NotUtf8Error(ValueError):
    """A file has another encoding. ``line`` and ``column`` are where that shows first, ``what`` is found there."""

    def __init__(self, what: str, before: bytes) -> None:
        self.what = f"{what}: save the file as UTF-8"
        self.line = before.count(b"\n") + 1
        self.column = len(before) - before.rfind(b"\n")
        super().__init__(f"{self.what} (at line {self.line}, column {self.column})")


def decode(data: bytes) -> str:
    """The text of a file. A byte order mark, which some editors add, is left out.

    Raises:
        NotUtf8Error: it is not UTF-8, or contains the zero bytes of UTF-16 and UTF-32.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"the byte 0x{data[error.start]:02x} is not UTF-8"
        raise NotUtf8Error(what, data[: error.start]) from error
    if (zero := data.find(b"\0")) >= 0:
        raise NotUtf8Error("a zero byte is not part of a text in UTF-8", data[:zero])
    return text
