"""Logins for registries of images, where Docker and podman keep them: files, and credential helpers."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_plugins.core import foreign_json, process, regular_file, tokens
from vllm_plugins.core.errors import CommandFailed, RegistryError
from vllm_plugins.startup.settings import home_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Login", "find"]

_HELPER = "docker-credential-"
_PATIENCE = 60  # seconds
_LONGEST = 300  # characters of what a helper says
# docker login writes the largest registry down under this name.
_ALIASES = {"registry-1.docker.io": ("https://index.docker.io/v1/", "docker.io", "index.docker.io")}
# The user name with which a helper returns a token in place of a password.
_TOKEN = "<token>"  # noqa: S105 - it is a user name


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """A user and a password, or an identity token (then ``user`` is empty)."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login(user={self.user!r})"


def find(host: str, environ: Mapping[str, str]) -> Login | None:
    """Return the login for a registry (``host`` or ``host:port``); ``None`` if there is none.

    The files are those of podman (``REGISTRY_AUTH_FILE``, ``$XDG_RUNTIME_DIR/containers/auth.json``) and of Docker
    (``$DOCKER_CONFIG/config.json``, ``~/.docker/config.json``). The first that has the registry counts.

    Raises:
        RegistryError: a file is not valid JSON, or a credential helper failed.
    """
    for path in _files(environ):
        config = _read(path)
        for name in (host, f"https://{host}", *_ALIASES.get(host, ())):
            login = _from_helper(config, name, path) or _from_file(config, name)
            if login is not None:
                return login
    return None


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("REGISTRY_AUTH_FILE"):
        yield Path(environ["REGISTRY_AUTH_FILE"])
    if environ.get("XDG_RUNTIME_DIR"):
        yield Path(environ["XDG_RUNTIME_DIR"], "containers", "auth.json")
    home = home_of(environ)
    yield Path(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data: Any = foreign_json.read(regular_file.read_bytes(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except (OSError, ValueError) as error:
        raise RegistryError(
            "the logins for registries can't be read",
            where=str(path),
            found=str(error),
            next_step="correct the file, or set DOCKER_CONFIG to another directory",
        ) from error
    return data if isinstance(data, dict) else {}


def _from_helper(config: Mapping[str, Any], name: str, path: Path) -> Login | None:
    helpers = config.get("credHelpers")
    helper = helpers.get(name) if isinstance(helpers, dict) else None
    is_own = helper is not None
    helper = helper or config.get("credsStore")
    if not isinstance(helper, str) or not helper or "/" in helper:
        return None
    program = process.find_on_path(_HELPER + helper)
    if program is None and not is_own:
        return None  # the store of a desktop, in a file that was copied to a server
    # The name goes to the standard input. It is not secret, so it may be an argument of the shell.
    argv = ["/bin/sh", "-c", 'printf %s "$1" | "$2" get', "sh", name, str(program or _HELPER + helper)]
    try:
        done = process.run(argv, check=False, timeout=_PATIENCE)
        found: Any = foreign_json.read(done.stdout) if done.returncode == 0 else None
    except (CommandFailed, ValueError) as error:
        raise _helper_failed(helper, path, str(error)) from error
    if found is None:
        if is_own and "not found in native keychain" not in done.stdout:
            raise _helper_failed(helper, path, f"{process.status(done.returncode)}: {_last_line(done)}")
        return None
    return _login(found.get("Username"), found.get("Secret")) if isinstance(found, dict) else None


def _last_line(done: process.Completed) -> str:
    """What a helper says of its failure, on either stream, without the secret that it may have printed before."""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    words = (lines[-1] if lines else "no output")[:_LONGEST].split()
    return " ".join("****" if tokens.is_token(word.strip("\"'`,;:()")) else word for word in words)


def _helper_failed(helper: str, path: Path, found: str) -> RegistryError:
    return RegistryError(
        f"the credential helper {_HELPER}{helper} failed",
        where=str(path),
        found=found,
        next_step=f"run {_HELPER}{helper} get by hand, with the name of the registry as its input",
    )


def _from_file(config: Mapping[str, Any], name: str) -> Login | None:
    auths = config.get("auths")
    entry = auths.get(name) if isinstance(auths, dict) else None
    if not isinstance(entry, dict):
        return None
    if isinstance(entry.get("identitytoken"), str) and entry["identitytoken"]:
        return Login(user="", password=entry["identitytoken"])
    if isinstance(entry.get("auth"), str) and entry["auth"]:
        try:
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return _login(user, password.rstrip("\0"))
    return _login(entry.get("username"), entry.get("password"))


def _login(user: object, password: object) -> Login | None:
    if not isinstance(user, str) or not isinstance(password, str) or not password:
        return None
    return Login(user="" if user == _TOKEN else user, password=password)
