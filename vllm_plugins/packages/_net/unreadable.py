"""The error for an index, or a file of one, that can't be read: what to check depends on where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from requests.exceptions import InvalidSchema

from vllm_plugins.core.errors import SourceError, cause
from vllm_plugins.core.redact import redact

if TYPE_CHECKING:
    from vllm_plugins.packages.pip_config import PipConfig

__all__ = ["unreadable"]

# The next step for each kind of URL.
_STEPS = {
    "file": "make it a readable file, or remove it; `pip config list` shows the index or find-links that it is of",
    "own index": "check the network, the URL of index {login}",
    "index": "check the network, your login, and the indexes of `pip config list`",
    "socks": "name a proxy that begins with http:// in ALL_PROXY, HTTPS_PROXY, HTTP_PROXY and `proxy` of pip's "
    "configuration, or exclude the host with NO_PROXY",
}


def unreadable(
    url: str, error: Exception, config: PipConfig, *, login: str | None, what: str | None, step: str | None
) -> SourceError:
    """The error for a URL of an index. ``login`` names the index and its login, if the URL is of a single package.

    ``what`` and ``step`` take the place of the words that fit the URL.
    """
    kind = "file" if url.startswith("file:") else "own index" if login else "index"
    if isinstance(error, InvalidSchema) and "SOCKS" in str(error):  # requests needs another package for those proxies
        kind = "socks"
    return SourceError(
        what or "the index can't be read",
        where=redact(url, config.secrets),
        found=redact(cause(error), config.secrets),
        next_step=step if step is not None else _STEPS[kind].format(login=login),
    )
