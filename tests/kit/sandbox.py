"""A process that sees parts of the file system read-only, or no network: by namespaces, which only root can make."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["POWERLESS", "needs_root", "no_execution", "read_only"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")

_CODE = """\
import os, subprocess, sys
script = 'for path in $READ_ONLY; do mount --bind $path $path && mount -o remount,bind,ro $path || exit 99; done; exec "$@"'
argv = ["unshare", "--mount", "--net", "sh", "-c", script, "sh"]
argv += ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", sys.executable, *sys.argv[1:]]
hidden = ("HOME", "XDG_CACHE_HOME") if os.environ["HOMELESS"] == "1" else ()
sys.exit(subprocess.call(argv, env={k: v for k, v in os.environ.items() if k not in hidden}))
"""

# The words that go before an interpreter's own, so that root has no more rights than any owner of files.
_POWERLESS = """\
import os, sys
argv = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", sys.executable, *sys.argv[1:]]
os.execvp(argv[0], argv)
"""
POWERLESS = ("-c", _POWERLESS)


def read_only(*paths: Path, homeless: bool = False) -> tuple[tuple[str, str], dict[str, str]]:
    """The words that go before an interpreter's own, and the variables for them.

    What they start has no network and no capabilities, and can't write below ``paths``, which hold no spaces;
    ``homeless`` also takes HOME away.
    """
    return ("-c", _CODE), {"READ_ONLY": " ".join(map(str, paths)), "HOMELESS": "1" if homeless else "0"}


_TEMPORARY = """\
import os, sys
script = 'mount -t tmpfs -o noexec none $TMPDIR || exit 99; exec "$@"'
os.execvp("unshare", ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, *sys.argv[1:]])
"""


def no_execution(directory: Path) -> tuple[tuple[str, str], dict[str, str]]:
    """The same for a process whose temporary files are on a file system from which nothing can be executed."""
    directory.mkdir()
    return ("-c", _TEMPORARY), {"TMPDIR": str(directory)}
