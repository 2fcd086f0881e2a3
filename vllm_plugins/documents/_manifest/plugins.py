"""The plugins of plugins.yaml: the values of an entry and of its source, and how they are read."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal

from packaging.utils import canonicalize_name
from yaml.nodes import MappingNode

from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import versions
from vllm_plugins.documents._manifest import file_rules, indexes, rules
from vllm_plugins.documents._manifest.rules import quoted
from vllm_plugins.documents._yaml import Fields, describe, did_you_mean, line
from vllm_plugins.startup import Record

if TYPE_CHECKING:
    from packaging.utils import NormalizedName
    from yaml.nodes import Node

    from vllm_plugins.documents._yaml import Problems

__all__ = ["FileSource", "GitSource", "LocalSource", "Plugin", "PypiSource", "Source", "read"]

_COMMON = ("name", "source", "enabled", "loads")
_OF_KIND = {
    "pypi": ("package", "extras", "build", "version", "index"),
    "git": ("package", "extras", "build", "url", "ref", "subdirectory"),
    "local": ("package", "extras", "build", "path", "editable"),
    "file": ("path", "url", "sha256", "filename"),
}
_KINDS = "pypi, git, local or file"


class PypiSource(Record):
    """A distribution from an index; ``package`` and ``version`` (a PEP 440 specifier) are as in the file.

    ``index`` is the name of the one index that it comes from; ``None``: from those that pip is configured with.
    """

    package: str
    version: str | None = None
    extras: tuple[str, ...] = ()
    index: str | None = None

    @property
    def requirement(self) -> str:
        """The requirement (PEP 508) that the entry is."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return f"{self.package}{extras}{self.version or ''}"


class GitSource(Record):
    """A project in a git repository.

    ``url`` is as in the file, ``${NAME}`` not expanded. ``ref`` is a branch, tag or commit (``None``: the remote's
    HEAD). ``subdirectory`` is a relative POSIX path without ``..``. ``package`` is the expected name.
    """

    url: str
    ref: str | None = None
    subdirectory: str | None = None
    package: str | None = None
    extras: tuple[str, ...] = ()


class LocalSource(Record):
    """A project directory; ``path`` is as in the file (see :meth:`Manifest.local_directory`)."""

    path: str
    editable: bool = False
    package: str | None = None
    extras: tuple[str, ...] = ()


class FileSource(Record):
    """A single file, at ``path`` or at ``url``, whose hash is ``sha256`` (``None``: it is locked as it is).

    ``filename`` is its name in the overlay. A file with a name such as ``parser.py`` is a module, ``parser``.
    """

    filename: str
    path: str | None = None
    url: str | None = None
    sha256: Sha256 | None = None

    @property
    def package(self) -> None:
        """The name of a distribution, which such a file is not."""

    @property
    def extras(self) -> tuple[str, ...]:
        """Extras, which such a file does not have."""
        return ()

    @property
    def requested(self) -> str:
        """The path or the URL."""
        return self.path or self.url or ""

    @property
    def module(self) -> str | None:
        """The name under which the file can be imported."""
        return self.filename.removesuffix(".py") if self.filename.endswith(".py") else None

    @property
    def loads(self) -> tuple[str, ...]:
        """What is loaded of the file at least: its module."""
        return () if self.module is None else (self.module,)


Source = PypiSource | GitSource | LocalSource | FileSource


class Plugin(Record):
    """One entry of the manifest; ``line`` is its first line, from 1.

    ``build_requires`` are requirements of its build beyond those that its project declares; ``with_base`` are
    packages of the base that its build uses.
    """

    name: str
    source: Source
    enabled: bool = True
    loads: tuple[str, ...] = ()
    build_requires: tuple[str, ...] = ()
    with_base: tuple[NormalizedName, ...] = ()
    line: int = 1

    @property
    def kind(self) -> Literal["pypi", "git", "local", "file"]:
        """The word after ``source:``."""
        match self.source:
            case PypiSource():
                return "pypi"
            case GitSource():
                return "git"
            case LocalSource():
                return "local"
            case FileSource():
                return "file"


def read(node: Node, where: str, problems: Problems) -> Plugin | None:
    """Read one plugin; ``None`` if its problems leave too little."""
    if not isinstance(node, MappingNode):
        problems.add(node, where, f"expected a mapping with name and source, found {describe(node)}")
        return None
    fields = Fields(node, where, problems)
    name = fields.text("name", rules.name, required="a unique name")
    kind = fields.text("source", _kind, required=_KINDS)
    fields.unknown((*_COMMON, *(_OF_KIND[kind] if kind else itertools.chain(*_OF_KIND.values()))), _foreign(kind))
    enabled = fields.flag("enabled", default=True)
    loads = fields.texts("loads", rules.load)
    requires, with_base = _build(fields, problems)
    source = _source(fields, kind) if kind else None
    if name is None or source is None:
        return None
    if isinstance(source, FileSource) and (module := source.module) is not None:
        # What else is named of a module is found only if the module itself can be imported.
        loads = loads if any(load.partition(":")[0] == module for load in loads) else (module, *loads)
    return Plugin(
        name=name,
        source=source,
        enabled=enabled,
        loads=tuple(dict.fromkeys(loads)),
        build_requires=requires,
        with_base=with_base,
        line=line(node),
    )


def _build(fields: Fields, problems: Problems) -> tuple[tuple[str, ...], tuple[NormalizedName, ...]]:
    """What a build requires, and what it uses of the base."""
    node = fields.node_of("build")
    if node is None:
        return (), ()
    if not isinstance(node, MappingNode):
        fields.problem("build", f"expected a mapping with requires and with-base, found {describe(node)}")
        return (), ()
    inner = Fields(node, fields.path("build"), problems)
    inner.unknown(("requires", "with-base"))
    requires = inner.texts("requires", rules.build_requirement)
    names = tuple(dict.fromkeys(map(canonicalize_name, inner.texts("with-base", rules.package))))
    for text in requires:
        if canonicalize_name(versions.requirement(text).name) in names:
            inner.problem("requires", f"{quoted(text)} is in with-base, too; remove one")
    return tuple(dict.fromkeys(requires)), names


def _kind(text: str) -> str | None:
    if text in _OF_KIND:
        return None
    return f"expected {_KINDS}, found {quoted(text)}{did_you_mean(text, list(_OF_KIND))}"


def _foreign(kind: str | None) -> dict[str, str]:
    """Messages for keys that belong to another source than this plugin's."""
    return {
        key: f"belongs to source: {' or '.join(owner for owner, keys in _OF_KIND.items() if key in keys)}, but this "
        f"plugin has source: {kind}; remove the key or change the source"
        for key in itertools.chain(*_OF_KIND.values())
        if kind is not None
    }


def _source(fields: Fields, kind: str) -> Source | None:
    if kind == "file":
        return _file(fields)
    extras = fields.texts("extras", rules.extra)
    if kind == "pypi":
        package = fields.text("package", rules.package, required="the name of a distribution")
        version = fields.text("version", rules.version)
        index = fields.text("index", indexes.name_problem)
        return None if package is None else PypiSource(package=package, version=version, extras=extras, index=index)
    package = fields.text("package", rules.package)
    if kind == "local":
        path = fields.text("path", rules.path, required="the path of a project directory")
        editable = fields.flag("editable", default=False)
        return None if path is None else LocalSource(path=path, editable=editable, package=package, extras=extras)
    url = fields.text("url", rules.url, required="the URL of a git repository")
    ref = fields.text("ref", rules.ref)
    below = fields.text("subdirectory", rules.subdirectory)
    if url is None:
        return None
    subdirectory = rules.normal_subdirectory(below) if below else None
    return GitSource(url=url, ref=ref, subdirectory=subdirectory, package=package, extras=extras)


def _file(fields: Fields) -> FileSource | None:
    """The source of a single file."""
    url = fields.text("url", file_rules.url)
    path = fields.text("path", file_rules.path)
    sha256 = fields.text("sha256", file_rules.sha256)
    filename = fields.text("filename", file_rules.filename)
    if ("url" in fields.fields) == ("path" in fields.fields):
        found = "found both" if "url" in fields.fields else "missing; expected the path or the https URL of a file"
        fields.problem("path", f"{found}; give either `path` or `url`" if "both" in found else found)
        return None
    if "url" in fields.fields and "sha256" not in fields.fields:
        fields.problem("sha256", "missing; a file at a URL requires its sha256, as `sha256sum FILE` prints it")
        return None
    if path is None and url is None:
        return None
    if "filename" not in fields.fields:
        filename = file_rules.last_part(path or url or "")
        if (wrong := file_rules.filename(filename)) is not None:
            fields.problem("path" if path else "url", f"{wrong}; or name it with the key filename")
            return None
    if filename is None:
        return None
    return FileSource(filename=filename, path=path, url=url, sha256=Sha256(sha256) if sha256 else None)
