"""The user's netrc: where it is, and that it is a file. ``requests``, pip, uv and git would wait for a pipe."""

from __future__ import annotations

import os

from vllm_plugins.core import regular_file
from vllm_plugins.core.errors import UsageError

__all__ = ["check", "paths"]


def paths() -> tuple[str, ...]:
    """Where ``requests`` looks for a netrc, in its order."""
    named = os.environ.get("NETRC")
    return (named,) if named else tuple(map(os.path.expanduser, ("~/.netrc", "~/_netrc")))


def check() -> None:
    """Check that no pipe, device or directory is in place of a netrc.

    Raises:
        UsageError: one is.
    """
    for path in paths():
        try:
            regular_file.opened(path).close()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # then there is no login
        except OSError as error:
            raise UsageError(
                "the netrc with logins can't be read",
                where=path,
                found=error.strerror or str(error),
                next_step="make it a file that you can read",
            ) from error
