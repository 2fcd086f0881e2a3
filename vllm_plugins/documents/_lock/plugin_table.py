"""The form of the plugins in a lock: ``[[tool.vllm-plugins.plugins]]``."""

from __future__ import annotations

from typing import Any

from packaging.utils import canonicalize_name

from vllm_plugins.core.fields import FieldError, get, items, strings
from vllm_plugins.documents._lock import values
from vllm_plugins.documents._manifest import file_rules, rules
from vllm_plugins.documents.lock import Plugin

__all__ = ["fields", "read"]


def read(item: Any, here: str) -> Plugin:
    """Read a table.

    Raises:
        FieldError: it is not valid.
    """
    points = [
        tuple(get(point, f"{here}.entry-points[{i}]", key, str) for key in ("group", "name", "value"))
        for i, point in enumerate(items(item, here, "entry-points"))
    ]
    name, filename = get(item, here, "name", str), get(item, here, "filename", str, default=None)
    url = get(item, here, "url", str, default=None)
    if filename is not None and (problem := _file_problem(name, filename, url)):
        raise FieldError(f"{here}: {problem}")
    return Plugin(
        name=name,
        source=get(item, here, "source", str),
        package=canonicalize_name(get(item, here, "package", str)),
        version=get(item, here, "version", str),
        requested=get(item, here, "requested", str),
        url=url,
        subdirectory=get(item, here, "subdirectory", str, default=None),
        commit=values.commit(item, here),
        tree_sha256=values.optional_sha256(item, here, "tree-sha256"),
        editable=get(item, here, "editable", bool, default=False),
        project_sha256=values.optional_sha256(item, here, "project-sha256"),
        filename=filename,
        file_sha256=values.optional_sha256(item, here, "file-sha256"),
        passed_over=get(item, here, "passed-over", str, default=None),
        entry_points=tuple((group, name, value) for group, name, value in points),
        loads=strings(item, here, "loads"),
        provided=get(item, here, "provided", bool, default=False),
        dependencies=tuple(map(canonicalize_name, strings(item, here, "dependencies"))),
        index=get(item, here, "index", str, default=None),
        index_url=get(item, here, "index-url", str, default=None),
        build_requires=tuple(
            values.requirement(text, f"{here}.build-requires") for text in strings(item, here, "build-requires")
        ),
        with_base=tuple(map(canonicalize_name, strings(item, here, "with-base"))),
    )


def _file_problem(name: str, filename: str, url: str | None) -> str | None:
    """The problem of the fields of a single file, of which a path and a request would be made."""
    return rules.name(name) or file_rules.filename(filename) or (file_rules.url(url) if url is not None else None)


def fields(plugin: Plugin) -> dict[str, Any]:
    """The keys of a table, as they are written."""
    return {
        "name": plugin.name,
        "source": plugin.source,
        "package": plugin.package,
        "version": plugin.version,
        "requested": plugin.requested,
        "index": plugin.index,
        "index-url": plugin.index_url,
        "url": plugin.url,
        "subdirectory": plugin.subdirectory,
        "commit-id": plugin.commit,
        "tree-sha256": plugin.tree_sha256,
        "editable": plugin.editable,
        "provided": plugin.provided,
        "dependencies": list(plugin.dependencies),
        "project-sha256": plugin.project_sha256,
        "filename": plugin.filename,
        "file-sha256": plugin.file_sha256,
        "loads": list(plugin.loads),
        "build-requires": list(plugin.build_requires),
        "with-base": list(plugin.with_base),
        "passed-over": plugin.passed_over,
        "entry-points": [
            {"group": group, "name": name, "value": value} for group, name, value in plugin.entry_points
        ],
    }
