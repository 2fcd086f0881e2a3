"""What stands in for ``python -P -m pip``: hands its streams, directory and environment to ``warm``, and ends as its fork does.

It stands in for ``python -P -m vllm_plugins``, too, where a start installs (see ``forks``).

It runs without ``site`` and imports next to nothing, so that it costs a tenth of what it saves.
"""

from __future__ import annotations

import _socket
import marshal
import os
import sys

TYPE_CHECKING = False  # typing is not imported
if TYPE_CHECKING:
    from collections.abc import Mapping

# What a new interpreter reads of its environment, and a fork does not.
_INTERPRETER = (b"PYTHON", b"LD_")
_HARMLESS = (b"PYTHONPATH", b"PYTHONDONTWRITEBYTECODE", b"PYTHONNOUSERSITE", b"PYTHONUTF8")


# The descriptor for a result of ours (``startup.settings.RESULT``).
_RESULT = b"_VLLM_PLUGINS_RESULT"


def _is_utf8(environ: Mapping[bytes, bytes]) -> bool:
    """Whether an interpreter would read and write UTF-8 there, as the forks do."""
    if b"PYTHONUTF8" in environ:
        return environ[b"PYTHONUTF8"] == b"1"
    locale = environ.get(b"LC_ALL") or environ.get(b"LC_CTYPE") or environ.get(b"LANG") or b"C"
    return locale in {b"C", b"POSIX"} or b"utf" in locale.lower()  # PEP 540: C and POSIX mean UTF-8, too


def main() -> None:
    """``warm_client.py ADDRESS MODULE WORD…``."""
    address, module, *words = sys.argv[1:]
    if module == "-m":
        module, *words = words
    others = any(name.startswith(_INTERPRETER) and name not in _HARMLESS for name in os.environb)
    if others or not _is_utf8(os.environb):
        os.execv(sys.executable, [sys.executable, "-P", "-m", module, *words])
    umask = os.umask(0)
    os.umask(umask)
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    server.connect(b"\0" + address.encode())
    request = marshal.dumps((module, words, os.getcwdb(), dict(os.environb), umask))
    descriptors = (0, 1, 2, *map(int, filter(None, [os.environb.get(_RESULT)])))
    streams = b"".join(number.to_bytes(4, sys.byteorder) for number in descriptors)
    server.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, len(request) + 4096)
    server.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
    status = int(server.recv(32))
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main()
