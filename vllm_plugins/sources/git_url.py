"""URLs of git repositories: their forms, variables and credentials.

Secrets are passed in environment variables only. git passes a URL to its helpers as an argument (``git remote-https
origin URL``), which every user of the machine can read, and writes it into ``.git/config``. So the user part is
removed, and a credential helper that is configured through the environment supplies it.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote

from vllm_plugins.core.errors import SourceError
from vllm_plugins.core.redact import public_url, redact
from vllm_plugins.documents import git_url_forms as forms
from vllm_plugins.documents.manifest import GitSource

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VARIABLES", "Remote", "is_same", "of_requirement", "read"]

# Text that git could read as an option or as a program (ext::sh -c …), or that would break a protocol.
_ODD = re.compile(r"-.*|[A-Za-z0-9+.-]*::.*|.*[\x00-\x1f\x7f].*", re.DOTALL)

_USERNAME = "VLLM_PLUGINS_GIT_USERNAME"
_PASSWORD = "VLLM_PLUGINS_GIT_PASSWORD"  # noqa: S105 - the name of a variable
# printf is a builtin of every sh, so the secrets don't become arguments of a process here either.
_HELPER = (
    f'!f() {{ if test "$1" = get; then printf "username=%s\\npassword=%s\\n" "${_USERNAME}" "${_PASSWORD}"; fi; }}; f'
)
VARIABLES = (_USERNAME, _PASSWORD)


@dataclass(frozen=True, kw_only=True, slots=True)
class Remote:
    """A URL that can be given to git.

    ``url`` has its variables expanded and, for http and https, no user part. ``shown`` is for messages: the text of
    the manifest without its user part. ``config`` and ``variables`` belong into git's environment only.
    """

    url: str
    shown: str
    scheme: str
    config: tuple[tuple[str, str], ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()


def read(url: str, *, environ: Mapping[str, str], plugin: str) -> Remote:
    """Read a URL of the manifest. ``${NAME}`` is replaced by a variable of ``environ``.

    A user part ``user:password`` is the login. A single name that comes from a variable is a token, used as user and
    password, which the well-known hosts accept. A single literal name is a user name; git's own credential helpers
    know its password. As everywhere in URLs, ``%40`` means ``@``. Variables in other parts of a URL are visible to
    other users of the machine, because git gets them as arguments.

    Raises:
        SourceError: a variable is not set, or the URL has an unsupported form.
    """
    shown = redact(url)
    values = {name: _value(name, environ, shown, plugin) for name in forms.VARIABLE.findall(url)}

    def expand(text: str) -> str:
        return forms.VARIABLE.sub(lambda match: values[match[1]], text)

    whole = expand(url)
    secrets = tuple(sorted(value for value in values.values() if value))
    # The parts are separated before the variables are expanded, because a password may contain "/" and "@".
    match = forms.HTTP.fullmatch(url) or forms.HTTP.fullmatch(whole)
    if _ODD.fullmatch(whole):
        raise _unsupported(shown, plugin)
    if match is not None:
        authority, slash, path = expand(match["rest"]).partition("/")
        inner, at, host = authority.rpartition("@")  # ${HOST} may contain a user part, too
        user = inner if at else match["user"] or ""
        address = f"{match['scheme']}://{host}"
        built = Remote(url=address + slash + path, shown=shown, scheme=match["scheme"], secrets=secrets)
        is_token = user != expand(user) or bool(at) or match.string is not url
        return _with_login(built, address, expand(user), is_token=is_token) if user else built
    if forms.FILE.fullmatch(whole):
        return Remote(url=whole, shown=shown, scheme="file", secrets=secrets)
    ssh = forms.SSH.fullmatch(whole)
    if ssh is None and ("://" in whole or not forms.SCP.fullmatch(whole)):
        raise _unsupported(shown, plugin)
    if ssh is not None and ":" in (ssh["user"] or ""):
        raise SourceError(
            "an ssh URL can't contain a password",
            where=shown,
            required_by=f"plugin {plugin!r}",
            next_step="use an ssh key (ssh-agent, ~/.ssh/config), or an https URL with a token",
        )
    return Remote(url=whole, shown=shown, scheme="ssh", secrets=secrets)


def of_requirement(url: str) -> GitSource | None:
    """The source that a requirement by URL (PEP 508) names, as pip reads it; ``None`` if it is not one of git.

    ``${NAME}`` has no meaning there.
    """
    if not url.startswith("git+"):
        return None
    address, _, fragment = url.removeprefix("git+").partition("#")
    scheme, separator, rest = public_url(address).partition("://")
    host, slash, path = rest.partition("/")
    path, at, ref = path.rpartition("@") if "@" in path else (path, "", "")
    below = posixpath.normpath(parse_qs(fragment).get("subdirectory", ["."])[0]).strip("/")
    return GitSource(
        url=f"{scheme}{separator}{host}{slash}{path}",
        ref=ref if at else None,
        subdirectory=None if below == "." else below,
    )


def is_same(literal: str, url: str, *, environ: Mapping[str, str]) -> bool:
    """Whether two URLs lead to one repository: that of a requirement, which has no variables, and one of a manifest.

    Logins, the case of the host, and a final ``.git`` or ``/`` make no difference.
    """
    try:
        return _address(literal, {}) == _address(url, environ)
    except SourceError:  # a variable is not set, or git takes no such URL
        return False


def _address(url: str, environ: Mapping[str, str]) -> str:
    scheme, separator, rest = public_url(read(url, environ=environ, plugin="").url).partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.lower()}{slash}{path.rstrip('/').removesuffix('.git')}"


def _with_login(remote: Remote, address: str, user: str, *, is_token: bool) -> Remote:
    name, colon, password = user.partition(":")
    login, password = unquote(name), unquote(password)
    if not colon and not is_token:
        return replace(remote, config=((f"credential.{address}.username", login),))
    if not colon:
        password = login
    # git shows the user name of a login in its errors, but a token is secret.
    secrets = {*remote.secrets, password, quote(password, safe="")} - {""}
    return replace(
        remote,
        # An empty value removes the helpers before it, which would answer first, or store our secrets.
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
            next_step=f"set {name}, or remove ${{{name}}} from `url` of plugin {plugin!r} in plugins.yaml",
        )
    value = environ[name]
    if any(character in value for character in "\r\n\0"):
        raise SourceError(
            f"the environment variable {name} contains a line break",
            where=shown,
            required_by=f"plugin {plugin!r}",
            next_step=f"set {name} without the line break (the last line of a file often ends with one)",
        )
    return value


def _unsupported(shown: str, plugin: str) -> SourceError:
    return SourceError(
        "the url is not a supported git URL",
        where=shown,
        expected=forms.FORMS,
        required_by=f"plugin {plugin!r}",
        next_step=f"change `url` of plugin {plugin!r} in plugins.yaml",
    )
