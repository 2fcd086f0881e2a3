"""``indexes:`` of plugins.yaml: package indexes of single plugins, by name. Nothing else is taken from them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from yaml.nodes import MappingNode

from vllm_plugins.documents._manifest import rules
from vllm_plugins.documents._manifest.rules import quoted
from vllm_plugins.documents._yaml import Fields, describe, did_you_mean, line
from vllm_plugins.startup import Record
from vllm_plugins.startup.environment import index_logins

if TYPE_CHECKING:
    from collections.abc import Iterable

    from yaml.nodes import Node

    from vllm_plugins.documents._manifest.plugins import Plugin
    from vllm_plugins.documents._yaml import Problems

__all__ = ["NamedIndex", "check_names", "read"]

_SCHEMES = ("https://", "http://")


class NamedIndex(Record):
    """One index: the URL of its simple API (PEP 503), with a slash at its end and without a login."""

    name: str
    url: str
    line: int = 1


def read(node: Node, problems: Problems) -> tuple[NamedIndex, ...]:
    """The indexes in a node; their problems are added to ``problems``."""
    if not isinstance(node, MappingNode):
        what = f"expected a mapping of names to indexes, as in `internal: {{url: https://…}}`, found {describe(node)}"
        problems.add(node, "indexes", what)
        return ()
    top = Fields(node, "indexes", problems)
    found: dict[str, NamedIndex] = {}
    for name in top.fields:
        index = _index(top, name, problems)
        if index is None:
            continue
        # Two names that have one variable would share a login.
        first = found.setdefault(index_logins.variables(name)[0], index)
        if first is not index:
            what = f"{quoted(name)} and {quoted(first.name)} would have the same variable for a login; rename one"
            top.problem(name, what)
    return tuple(found.values())


def check_names(plugins: Iterable[tuple[int, Node, Plugin]], node: Node | None, problems: Problems) -> None:
    """Report plugins whose index is not defined in the node of ``indexes``."""
    known = [key.value for key, _ in node.value] if isinstance(node, MappingNode) else []
    for number, place, plugin in plugins:
        name = getattr(plugin.source, "index", None)
        if name is not None and name not in known:
            hint = did_you_mean(name, list(map(str, known))) or f"; add `{name}: {{url: https://…}}` there"
            problems.add(place, f"plugins[{number}].index", f"{quoted(name)} is not in `indexes`{hint}")


def _index(top: Fields, name: str, problems: Problems) -> NamedIndex | None:
    if (wrong := name_problem(name)) is not None:
        top.problem(name, wrong)
        return None
    node = top.fields[name][1]
    if not isinstance(node, MappingNode):
        top.problem(name, f"expected a mapping with the key url, found {describe(node)}")
        return None
    fields = Fields(node, top.path(name), problems)
    fields.unknown(("url",))
    user, password = index_logins.variables(name)
    url = fields.text("url", lambda text: _url(text, user, password), required="the URL of its simple API")
    return None if url is None else NamedIndex(name=name, url=f"{url.rstrip('/')}/", line=line(node))


def name_problem(value: str) -> str | None:
    """The problem of an index's name."""
    wrong = rules.text(value) or rules.name(value)
    return wrong and wrong.replace("plugin name", "name of an index")


def _url(value: str, user: str, password: str) -> str | None:
    """The problem of an index's URL."""
    if "${" in value:
        return f"{quoted(value)} has a variable; write the address, and a login into {user} and {password}"
    try:
        parts = urlsplit(value)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        return f"{quoted(value)} is not a valid URL: {error}"
    if not value.startswith(_SCHEMES) or not has_host or any(map(str.isspace, value)):
        return f"{quoted(value)} is not the URL of an index; expected https://host/path"
    if "@" in parts.netloc:
        return f"{quoted(value)} contains a login; write it into {user} and {password}"
    if "?" in value or "#" in value:
        return f"{quoted(value)} has a query or a fragment; expected https://host/path"
    return None
