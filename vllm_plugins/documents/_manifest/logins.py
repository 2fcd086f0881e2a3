"""Which variables and logins a manifest sends where, compared with a manifest that is trusted with that.

A manifest names variables, and the hosts that get their values. Whoever proposes a change of it could name any
variable of the reviewer, and a host of their own. So a review has a second manifest, such as that of the base branch,
and the change may send a login only where that one does. Only the texts of both are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.documents import git_url_forms as forms
from vllm_plugins.documents._manifest.plugins import GitSource
from vllm_plugins.startup.environment import index_logins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from vllm_plugins.documents._manifest.indexes import NamedIndex
    from vllm_plugins.documents._manifest.plugins import Plugin
    from vllm_plugins.documents.policy import Policy

__all__ = ["of_indexes", "of_plugins"]


def of_plugins(plugins: Iterable[Plugin], known: Iterable[Plugin], policy: Policy) -> Iterator[str]:
    """A line for each variable that a plugin sends where no known plugin, and no policy, sends it."""
    urls = {plugin.source.url for plugin in known if isinstance(plugin.source, GitSource)}
    logins = {(name, _origin(url)) for url in urls for name in _variables(url)[0]}
    logins |= {(name, origin.lower()) for name, origins in policy.variables for origin in origins}
    for plugin in plugins:
        if not isinstance(plugin.source, GitSource) or plugin.source.url in urls:
            continue
        login, rest = _variables(plugin.source.url)
        for name in dict.fromkeys((*login, *rest)):
            # A variable in a path, or in place of a host, may go anywhere. Only the same URL is known to be harmless.
            if name in rest:
                yield f"plugin {plugin.name!r} has {name} in its url, in another part than the login"
            elif (name, _origin(plugin.source.url)) not in logins:
                yield f"plugin {plugin.name!r} sends {name} to {_origin(plugin.source.url)}"


def of_indexes(
    indexes: Iterable[tuple[str, str]], known: Iterable[NamedIndex], environ: Mapping[str, str]
) -> Iterator[str]:
    """A line for each index, a name and a URL, that has a login in ``environ`` and no known index of its host."""
    origins = {(index_logins.variables(index.name), _origin(index.url)) for index in known}
    for name, url in dict.fromkeys(indexes):
        variables = index_logins.variables(name)
        if any(index_logins.login(name, environ)) and (variables, _origin(url)) not in origins:
            yield f"index {name!r} sends {' and '.join(variables)} to {_origin(url)}"


def _variables(url: str) -> tuple[list[str], list[str]]:
    """The variables in the login of a URL, and those in its other parts."""
    match = forms.HTTP.fullmatch(url)
    login, rest = ("", url) if match is None else (match["user"] or "", match["rest"])
    return forms.VARIABLE.findall(login), forms.VARIABLE.findall(rest)


def _origin(url: str) -> str:
    """What a login is sent to: scheme, host and port."""
    match = forms.HTTP.fullmatch(url)
    return url if match is None else f"{match['scheme']}://{match['rest'].partition('/')[0]}".lower()
