"""Addresses of git repositories: their forms, their variables and their credentials.

Secrets of an address travel in environment variables only. git hands the address to its helpers as an argument
(``git remote-https origin URL``), which every user of the machine can read, and writes it into ``.git/config``; so
the user part is taken off, and a credential helper that is configured through the environment gives it back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from vllm_plugins.core.errors import SourceError
from vllm_plugins.core.redact import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VARIABLES", "Remote", "read"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HTTP = re.compile(r"(?P<scheme>https?)://(?:(?P<user>[^/]*)@)?(?P<rest>[^@/]+(?:/.*)?)")
_SSH = re.compile(r"ssh://(?:(?P<user>[^/@]*)@)?(?P<host>[^-/@][^/@]*)/.+")
_SCP = re.compile(r"(?:[^-/@:][^/@:]*@)?(?:[^-/@:\[][^/@:]*|\[[^]/@]+\]):[^:].*")
_FILE = re.compile(r"file:///.+")
# What git could take for an option or for the name of a program (ext::sh -c …), or would break a protocol.
_ODD = re.compile(r"-.*|[A-Za-z0-9+.-]*::.*|.*[\x00-\x1f\x7f].*", re.DOTALL)
_FORMS = "https://host/path, http://host/path, ssh://user@host/path, user@host:path or file:///path"

_USERNAME = "VLLM_PLUGINS_GIT_USERNAME"
_PASSWORD = "VLLM_PLUGINS_GIT_PASSWORD"  # noqa: S105 - the name of a variable
# printf is a builtin of every sh: the secrets are in no argv here either.
_HELPER = (
    f'!f() {{ if test "$1" = get; then printf "username=%s\\npassword=%s\\n" "${_USERNAME}" "${_PASSWORD}"; fi; }}; f'
)
VARIABLES = (_USERNAME, _PASSWORD)


@dataclass(frozen=True, kw_only=True, slots=True)
class Remote:
    """An address, ready for git.

    ``url`` has its variables expanded and, for http and https, no user part. ``shown`` is for messages: as the
    manifest writes it, without its user part. ``config`` and ``variables`` go into git's environment only.
    """

    url: str
    shown: str
    scheme: str
    config: tuple[tuple[str, str], ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()


def read(url: str, *, environ: Mapping[str, str], plugin: str) -> Remote:
    """Read a URL as the manifest writes it; ``${NAME}`` is taken from ``environ``.

    A user part ``user:password`` is what git is asked to log in with. A lone user part that comes from a variable
    is a token (given as both, which is what the well-known hosts accept); a lone literal one is a user name, for
    which git's own credential helpers know the password. As everywhere in URLs, ``%40`` means ``@``. Variables
    elsewhere in a URL are no secrets to other users of the machine: git shows its argument to them.

    Raises:
        SourceError: a variable is not set, or the URL is of no known form.
    """
    shown = redact(url)
    values = {name: _value(name, environ, shown, plugin) for name in _VARIABLE.findall(url)}

    def expand(text: str) -> str:
        return _VARIABLE.sub(lambda match: values[match[1]], text)

    whole = expand(url)
    secrets = tuple(sorted(value for value in values.values() if value))
    # The parts are told apart before the variables are expanded: a password may hold "/" and "@".
    match = _HTTP.fullmatch(url) or _HTTP.fullmatch(whole)
    if _ODD.fullmatch(whole):
        raise _unsupported(shown, plugin)
    if match is not None:
        authority, slash, path = expand(match["rest"]).partition("/")
        inner, at, host = authority.rpartition("@")  # ${HOST} may hold a user part of its own
        user = inner if at else match["user"] or ""
        address = f"{match['scheme']}://{host}"
        built = Remote(url=address + slash + path, shown=shown, scheme=match["scheme"], secrets=secrets)
        is_token = user != expand(user) or bool(at) or match.string is not url
        return _with_login(built, address, expand(user), is_token=is_token) if user else built
    if _FILE.fullmatch(whole):
        return Remote(url=whole, shown=shown, scheme="file", secrets=secrets)
    ssh = _SSH.fullmatch(whole)
    if ssh is None and ("://" in whole or not _SCP.fullmatch(whole)):
        raise _unsupported(shown, plugin)
    if ssh is not None and ":" in (ssh["user"] or ""):
        raise SourceError(
            "an ssh URL can't hold a password",
            where=shown,
            required_by=f"plugin {plugin!r}",
            next_step="use an ssh key (ssh-agent, ~/.ssh/config), or an https URL with a token",
        )
    return Remote(url=whole, shown=shown, scheme="ssh", secrets=secrets)


def _with_login(remote: Remote, address: str, user: str, *, is_token: bool) -> Remote:
    name, colon, password = user.partition(":")
    login, password = unquote(name), unquote(password)
    if not colon and not is_token:
        return replace(remote, config=((f"credential.{address}.username", login),))
    if not colon:
        password = login
    # The login's own user name is shown by git when it fails; a token is not.
    secrets = {*remote.secrets, password, quote(password, safe="")} - {""}
    return replace(
        remote,
        # An empty value forgets the helpers before it: none of them answers first, or stores what is ours.
        config=((f"credential.{address}.helper", ""), (f"credential.{address}.helper", _HELPER)),
        variables=((_USERNAME, login), (_PASSWORD, password)),
        secrets=tuple(sorted(secrets)),
    )


def _value(name: str, environ: Mapping[str, str], shown: str, plugin: str) -> str:
    if name not in environ:
        raise SourceError(
            f"the environment variable {name} is not set",
            where=shown,
            required_by=f"plugin {plugin!r}",
            next_step=f"set {name}, or take ${{{name}}} out of the url of plugin {plugin!r}",
        )
    value = environ[name]
    if any(character in value for character in "\r\n\0"):
        raise SourceError(
            f"the environment variable {name} holds a line break",
            where=shown,
            required_by=f"plugin {plugin!r}",
            next_step=f"set {name} without the line break (a file's last line often ends with one)",
        )
    return value


def _unsupported(shown: str, plugin: str) -> SourceError:
    return SourceError(
        "the url is of no form that git plugins can have",
        where=shown,
        expected=_FORMS,
        required_by=f"plugin {plugin!r}",
        next_step=f"change `url` of plugin {plugin!r} in plugins.yaml",
    )
