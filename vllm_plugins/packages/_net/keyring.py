"""Logins from a keyring, by pip's rules.

A keyring is asked only where the configuration names a provider, ``import`` or ``subprocess``.
"""

from __future__ import annotations

import netrc
import os
import signal
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from vllm_plugins.core import foreign_json, process, tokens
from vllm_plugins.core.errors import CommandFailed, UsageError
from vllm_plugins.packages._net import netrc_file

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["with_login"]

_PATIENCE = 60  # seconds; a keyring may ask a server
# The library in a process of its own: its backends are code of others. Answers as `keyring --output=json`.
_IMPORT = """\
import json, os, sys
import keyring
service, user = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
if hasattr(keyring, "get_credential"):
    found = keyring.get_credential(service, user)
    pair = (found.username, found.password) if found else None
else:
    password = keyring.get_password(service, user) if user else None
    pair = (user, password) if password else None
if pair:
    os.write(int(os.environ["RESULT"]), json.dumps({"username": pair[0], "password": pair[1]}).encode())
"""


def with_login(url: str, provider: str | None) -> str:
    """Return the URL of an index with the login that the keyring has for it; unchanged where it has none.

    Raises:
        UsageError: the keyring does not answer.
    """
    parts = urlsplit(url)
    if provider not in ("import", "subprocess") or parts.scheme not in ("http", "https") or parts.password:
        return url
    user = unquote(parts.username) if parts.username else None
    host = parts.netloc.rpartition("@")[2]
    if user is None and _is_in_netrc(parts.hostname):
        return url
    if host.startswith("-"):  # no host is named so, and a program would take it for an option
        return url
    index = urlunsplit(parts._replace(netloc=host))
    # pip asks for the URL of the index with a slash at its end, then for the host; uv for the URL as it is written.
    services = dict.fromkeys((f"{index.rstrip('/')}/", index, host))
    # Each user of this machine can read the words of a command line.
    for service in (host,) if tokens.in_path(index) or tokens.in_query(index) else services:
        pair = _ask(provider, service, user)
        if pair is not None:
            login = ":".join(quote(word, safe="") for word in pair)
            return urlunsplit(parts._replace(netloc=f"{login}@{host}"))
    return url


def _ask(provider: str, service: str, user: str | None) -> tuple[str, str] | None:
    words = [service] if user is None else [service, user]
    if provider == "import":
        return _pair(_output([*process.PYTHON, "-c", _IMPORT, *words], result="RESULT"))
    program = process.find_on_path("keyring")
    if program is None:
        return None
    pair = _pair(_output([str(program), "--mode=creds", "--output=json", "get", *words]))
    if pair is None and user is not None:  # keyring before 25.2 prints the password alone
        password = _output([str(program), "get", *words])
        return (user, password) if password else None
    return pair


def _output(command: Sequence[str], *, result: str | None = None) -> str:
    """Return the last line that a program prints, or its result; nothing where it fails.

    The lines before the last are of others, such as a vendor's ``sitecustomize``. pip goes on without a login, too.
    """
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    try:
        done = process.run(command, env=env, timeout=_PATIENCE, result_variable=result)
    except CommandFailed as error:
        if error.returncode != -signal.SIGTERM:  # which ends what takes too long
            return ""
        # It waits for somebody, and would do so for each index, three times.
        raise UsageError(
            f"the keyring did not answer within {_PATIENCE} seconds",
            found="it may wait for a password or for a desktop, which are not here",
            next_step="unlock the keyring, or unset PIP_KEYRING_PROVIDER and UV_KEYRING_PROVIDER",
        ) from None
    return done.result if result else (done.stdout.strip().splitlines() or [""])[-1]


def _pair(text: str) -> tuple[str, str] | None:
    try:
        data = foreign_json.read(text)
        user, password = data["username"], data["password"]
    except (ValueError, KeyError, TypeError):
        return None
    return (user, password) if isinstance(user, str) and isinstance(password, str) else None


def _is_in_netrc(host: str | None) -> bool:
    """Whether the user's netrc has a login for a host, as ``requests`` finds it.

    That library is being imported by another thread meanwhile, and its modules import one another.
    """
    for path in netrc_file.paths():
        try:
            return host is not None and netrc.netrc(path).authenticators(host) is not None
        except FileNotFoundError:
            continue
        except (OSError, ValueError, netrc.NetrcParseError):
            return False
    return False
