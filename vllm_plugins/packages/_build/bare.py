"""Virtual environments that contain nothing yet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vllm_plugins.core import process

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["create"]


def create(root: Path) -> None:
    """Create a virtual environment of this interpreter, without pip.

    Raises:
        CommandFailed: the interpreter that does it failed.
    """
    if sys.getfilesystemencoding() == "utf-8":
        import venv  # few commands make one

        venv.EnvBuilder(symlinks=True, with_pip=False).create(root)
        return
    # venv writes paths in UTF-8, and can't write one that another locale has not decoded, such as é in "C".
    process.run([*process.PYTHON, "-X", "utf8", "-m", "venv", "--symlinks", "--without-pip", root])
