"""Read plugins.yaml into a :class:`Manifest`. Everything is checked here; an error has every problem of the file."""

from __future__ import annotations

import os
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from vllm_plugins.core import hashes, regular_file
from vllm_plugins.core.errors import LockMissing, LoginRefused, ManifestError, UsageError
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import _yaml, overrides, policy
from vllm_plugins.documents._manifest import indexes, logins, request_hash, targets
from vllm_plugins.documents._manifest import plugins as plugins_key
from vllm_plugins.documents._manifest.plugins import FileSource, GitSource, LocalSource, Plugin, PypiSource, Source
from vllm_plugins.documents._manifest.rules import quoted
from vllm_plugins.documents._manifest.targets import HERE, RequestedTarget, is_release
from vllm_plugins.documents._yaml import Fields, Malformed, Problems, describe
from vllm_plugins.documents.policy import Policy
from vllm_plugins.startup import Record, named_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from yaml.nodes import Node

    from vllm_plugins.documents._manifest.indexes import NamedIndex
    from vllm_plugins.documents.overrides import Override
    from vllm_plugins.startup.settings import Settings

__all__ = [
    "HERE",
    "FileSource",
    "GitSource",
    "LocalSource",
    "Manifest",
    "Plugin",
    "PypiSource",
    "RequestedTarget",
    "Source",
    "absolute",
    "check_indexes",
    "find",
    "is_release",
    "parse",
    "read",
    "read_policy",
    "require",
    "under_policy",
]

_MAX_PROBLEMS = 100


class Manifest(Record):
    """A valid plugins.yaml.

    ``sha256`` is of the requests of the enabled plugins. Comments, order, layout, credentials in URLs, disabled
    plugins, ``policy`` and targets from the command line don't count. ``file_sha256`` is of the bytes, which the hook
    compares.
    """

    path: Path
    plugins: tuple[Plugin, ...]
    policy: Policy = Policy()
    overrides: tuple[Override, ...] = ()
    indexes: tuple[NamedIndex, ...] = ()
    targets: tuple[RequestedTarget, ...] = ()
    file_sha256: Sha256 = Sha256("")

    @cached_property
    def sha256(self) -> Sha256:
        """The hash of the requests."""
        written = (target for target in self.targets if not target.is_option)
        return request_hash.sha256(self.enabled, self.overrides, self.indexes, written)

    def with_targets(self, words: Iterable[str]) -> Manifest:
        """The same manifest with the targets of ``--target NAME=BASE``. Raises as :func:`targets.of_options`."""
        return self.replace(targets=targets.of_options(words))

    @property
    def enabled(self) -> tuple[Plugin, ...]:
        """The plugins to lock, in the order of the file."""
        return tuple(plugin for plugin in self.plugins if plugin.enabled)

    def index_of(self, source: PypiSource) -> NamedIndex | None:
        """The index that a plugin comes from, if it has one of its own."""
        return next((index for index in self.indexes if index.name == source.index), None)

    def local_directory(self, source: LocalSource) -> Path:
        """The absolute directory of a local source, which may not exist."""
        return self._absolute(source.path)

    def local_file(self, source: FileSource) -> Path | None:
        """The absolute path of a single file, which may not exist; ``None`` for one at a URL."""
        return None if source.path is None else self._absolute(source.path)

    def _absolute(self, path: str) -> Path:
        return absolute(path, self.path.parent)


def absolute(path: str, directory: Path) -> Path:
    """The absolute path of one that plugins.yaml or plugins.lock, in a directory, contains.

    ``~`` and ``~user`` at its beginning are home directories. ``./~name`` is not: :class:`Path` would make the two
    equal, and refuse a user who does not exist.
    """
    # The files are UTF-8, whatever the encoding of file names is in this locale.
    written = os.path.expanduser(os.fsdecode(path.encode("utf-8", "surrogatepass")))
    return Path(os.path.abspath(os.path.join(directory, written)))


def find(settings: Settings) -> Manifest | None:
    """The manifest; ``None`` where only the lock is there, which is enough to install.

    Raises:
        LockMissing: neither exists, or a variable names a manifest that is missing.
        ManifestError: the manifest is invalid.
        LoginRefused: it sends a login where ``settings.policy`` does not.
    """
    if settings.manifest.exists():
        return _permitted(settings)
    if settings.lock.exists():
        named_files.check_manifest(settings)
        return None
    raise nothing_there(settings)


def nothing_there(settings: Settings) -> LockMissing:
    """The error that neither manifest nor lock exists."""
    return LockMissing(
        "neither a manifest nor a lock exists",
        where=f"{settings.manifest}, {settings.lock}",
        next_step="write one here with vllm-plugins init, or name another with --config or VLLM_PLUGIN_CONFIG",
    )


def require(settings: Settings) -> Manifest:
    """The manifest, for a command that needs one.

    Raises:
        UsageError: the manifest is missing.
        ManifestError: it is invalid.
        LoginRefused: it sends a login where ``settings.policy`` does not.
    """
    if not settings.manifest.exists():
        raise UsageError(
            "the manifest is missing",
            where=str(settings.manifest),
            next_step="write one here with vllm-plugins init, or name another with --config or VLLM_PLUGIN_CONFIG",
        )
    return _permitted(settings)


def _permitted(settings: Settings) -> Manifest:
    found = read(settings.manifest)
    under_policy(found, settings)
    return found


def under_policy(manifest: Manifest, settings: Settings) -> Manifest:
    """The manifest with the policy of ``--policy`` or ``VLLM_PLUGIN_POLICY``; as it is where neither is given.

    Raises:
        ManifestError: that file can't be read, or is invalid.
        LoginRefused: the manifest sends a login where that file does not.
    """
    known = read_policy(settings)
    if known is None:
        return manifest
    lines = [
        *logins.of_plugins(manifest.plugins, known.plugins, known.policy),
        *logins.of_indexes(((index.name, index.url) for index in manifest.indexes), known.indexes, os.environ),
    ]
    if lines:
        raise _refused(manifest.path, lines, known.path)
    return manifest.replace(policy=known.policy)


def check_indexes(found: Iterable[tuple[str, str]], settings: Settings) -> None:
    """Check where the indexes of a lock, names and URLs, send logins. Raises as :func:`under_policy`."""
    known = read_policy(settings)
    if known is not None and (lines := [*logins.of_indexes(found, known.indexes, os.environ)]):
        raise _refused(settings.lock, lines, known.path)


def read_policy(settings: Settings) -> Manifest | None:
    """The manifest that ``--policy`` or ``VLLM_PLUGIN_POLICY`` names. Raises as :func:`read`.

    It is read once in a process: what a command has checked against is what it goes by afterwards, too.
    """
    return None if settings.policy is None else _read_policy(settings.policy)


@cache
def _read_policy(path: Path) -> Manifest:
    return read(path, option="--policy or VLLM_PLUGIN_POLICY")


def _refused(path: Path, lines: list[str], policy: Path) -> LoginRefused:
    return LoginRefused(
        f"{path.name} sends a login where {policy.name}, which --policy or VLLM_PLUGIN_POLICY names, sends none",
        where=str(path),
        details=lines,
        next_step=f"review each host, then allow it in {policy.name}: by `policy.variables`, "
        "by an entry of `indexes`, or by an entry of `plugins` with the same url",
    )


def read(path: Path, *, option: str = "--config or VLLM_PLUGIN_CONFIG") -> Manifest:
    """Read a plugins.yaml, which ``option`` names.

    Raises:
        ManifestError: it can't be read, or is invalid; ``details`` has every problem.
    """
    try:
        data = regular_file.read_bytes(path, _yaml.MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        fix = "create it" if isinstance(error, FileNotFoundError) else "make it readable"
        raise ManifestError(
            "the manifest can't be read",
            where=str(path),
            expected="a readable file",
            found=(error.strerror if isinstance(error, OSError) else None) or str(error),
            next_step=f"{fix}, or name another manifest with {option}",
        ) from error
    return parse(data, path)


def parse(data: bytes, path: Path) -> Manifest:
    """Read the bytes of a plugins.yaml with the path ``path``. Raises as :func:`read`."""
    problems = Problems()
    try:
        root = _yaml.load(data)
    except Malformed as error:
        column = "" if error.column is None else f", column {error.column}"
        raise _error(path, [f"line {error.line}{column}: {error}"]) from error
    except RecursionError as error:
        raise _error(path, ["line 1: too many levels: a manifest needs far fewer"]) from error
    content = _document(root, problems)
    if problems.found:
        raise _error(path, [text for _, text in sorted(problems.found, key=lambda found: found[0])])
    return content.replace(path=path, file_sha256=hashes.sha256(data))


def _error(path: Path, lines: list[str]) -> ManifestError:
    count = len(lines)
    rest = [f"and {count - _MAX_PROBLEMS} more"] if count > _MAX_PROBLEMS else []
    return ManifestError(
        f"{path.name} is invalid: {count} problem{'' if count == 1 else 's'}",
        where=str(path),
        details=[*lines[:_MAX_PROBLEMS], *rest],
        next_step=f"correct {path.name}, then run the command again",
    )


def _document(root: Node | None, problems: Problems) -> Manifest:
    """The content of a file, without its path and its hash."""
    empty = Manifest(path=Path(), plugins=())
    if root is None or _yaml.kind(root) == "null":
        problems.found.append((1, "line 1: the file is empty; expected the key plugins, as in `plugins: []`"))
        return empty
    if not isinstance(root, MappingNode):
        hint = "; put `plugins:` before it" if isinstance(root, SequenceNode) else ""
        # The text of another file is not shown: a change under review could link a secret of this machine.
        shown = "a single value" if isinstance(root, ScalarNode) else describe(root)
        problems.add(root, "the top", f"expected a mapping with the key plugins, found {shown}{hint}")
        return empty
    top = Fields(root, "", problems)
    top.unknown(("plugins", "policy", "overrides", "indexes", "targets"))
    rules, replaced, named = top.node_of("policy"), top.node_of("overrides"), top.node_of("indexes")
    environments = top.node_of("targets")
    found = _plugins(top, problems)
    defined = indexes.read(named, problems) if named is not None else ()
    indexes.check_names(found, named, problems)
    return Manifest(
        path=empty.path,
        plugins=tuple(plugin for _, _, plugin in found),
        policy=policy.read(rules, problems) if rules is not None else Policy(),
        overrides=overrides.read(replaced, problems) if replaced is not None else (),
        indexes=defined,
        targets=targets.read(environments, problems) if environments is not None else (),
    )


def _plugins(top: Fields, problems: Problems) -> list[tuple[int, Node, Plugin]]:
    """The plugins, each with its number and its place."""
    node = top.node_of("plugins", required="a list of plugins")
    if node is None:
        return []
    if not isinstance(node, SequenceNode):
        hint = "; for no plugins, write `plugins: []`" if _yaml.kind(node) == "null" else ""
        hint = "; begin each plugin with `- `" if isinstance(node, MappingNode) else hint
        top.problem("plugins", f"expected a list, found {describe(node)}{hint}")
        return []
    found = [
        (number, item, plugins_key.read(item, f"plugins[{number}]", problems))
        for number, item in enumerate(node.value)
    ]
    read = [(number, item, plugin) for number, item, plugin in found if plugin is not None]
    _duplicates(read, problems)
    return read


def _duplicates(found: list[tuple[int, Node, Plugin]], problems: Problems) -> None:
    """Names are unique among all plugins, packages and the modules of single files among the enabled ones."""
    firsts: dict[tuple[str, str], Plugin] = {}
    for number, node, plugin in found:
        for key, value, written, fix in _unique(plugin):
            first = firsts.setdefault((key, value), plugin)
            if first is not plugin:
                noun = "file" if key == "filename" else key
                other = f"the {noun} of plugin {quoted(first.name)} in line {first.line}"
                problems.add(node, f"plugins[{number}].{key}", f"{quoted(written)} is also {other}; {fix}")


def _unique(plugin: Plugin) -> Iterator[tuple[str, str, str, str]]:
    """What no other plugin may have: the key, the value that is compared, as it is written, and what to do."""
    yield "name", canonicalize_name(plugin.name), plugin.name, "change one"
    source = plugin.source
    if plugin.enabled and isinstance(source, FileSource) and source.module is not None:
        yield "filename", source.module, source.filename, "give one another filename"
    if plugin.enabled and source.package is not None:
        yield "package", canonicalize_name(source.package), source.package, "remove or disable one"
