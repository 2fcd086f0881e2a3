r"""JSON that others wrote: whatever it is, only :class:`ValueError` comes of reading it.

A string of JSON may be half of a surrogate pair (``"\ud800"``), which no file and no terminal takes. The standard
library reads it, and some later write would fail. So it is replaced where it is read.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["read"]

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read(data: bytes | str) -> Any:
    """The value of a JSON document, with a question mark in place of each half of a surrogate pair.

    Raises:
        ValueError: it is not valid UTF-8 or JSON, is nested too deeply, or has a number of thousands of digits.
    """
    text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    try:
        value: Any = json.loads(text)
        # Bytes that are UTF-8 have none but in escapes; a text may have one itself.
        if _SURROGATE.search(text) or (text is data and not text.isascii()):
            written = json.dumps(value, ensure_ascii=False)
            if (clean := written.encode(errors="replace").decode()) != written:
                return json.loads(clean)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value
