"""Errors of archives that other people made."""

from __future__ import annotations

__all__ = ["archive_errors"]


def archive_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Every exception that zipfile and its decompressors raise for bytes that aren't an archive, and ``others``."""
    # Few environments have archives on the path, and the commands that only look import none of these otherwise.
    import lzma
    import struct
    import zipfile
    import zlib

    return (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        OSError,
        EOFError,
        ValueError,
        LookupError,  # a member without a name
        RuntimeError,  # an encrypted member, or an unknown compression
        *others,
    )
