"""Why a request or an access to a file failed, without the layers of the libraries above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cause"]


def cause(error: BaseException) -> str:
    """The cause of an error for people, such as ``Connection refused``, or else its class and text."""
    chain = list(_chain(error))
    slow = next((item for item in chain if type(item).__name__ == "SlowServer"), None)
    if slow is not None:
        return f"the server is too slow: {slow}"
    if error.args and isinstance(error.args[0], str):  # a text for people, and no other error with something added
        return f"{type(error).__name__}: {error}"
    late = next((item for item in chain if "Timeout" in type(item).__name__), None)
    through = "the proxy: " if any(type(item).__name__ == "ProxyError" for item in chain) else ""
    if late is not None:
        return f"{through}no answer in time: {str(late).rpartition('): ')[2]}"
    for item in reversed(chain):
        if type(item).__name__ == "SSLCertVerificationError":  # an import of ssl would take longer than most commands
            return f"{through}its certificate is not accepted: {getattr(item, 'verify_message', item)}"
        if isinstance(item, OSError) and item.errno is not None and item.strerror:
            return f"{through}{item.strerror}"
    return f"{type(error).__name__}: {error}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it was made from: requests and urllib3 have them as arguments, or as ``reason``."""
    pending: list[object] = [error]
    known: set[int] = set()
    for item in pending:  # the list grows during the loop
        if isinstance(item, BaseException) and id(item) not in known:
            known.add(id(item))
            yield item
            pending += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]
