"""Read ``plugins.lock`` and check everything in it.

The file is a PEP 751 document. Its packages are wheels with a sha256 or editable directories; our own table,
``tool.vllm-plugins``, has the rest. What is checked here is trusted afterwards.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from vllm_plugins.core import regular_file
from vllm_plugins.core.errors import HashMismatch, LockInvalid, LockMissing, StoreError
from vllm_plugins.core.fields import FieldError, get, items, strings
from vllm_plugins.core.hashes import sha256
from vllm_plugins.documents import _rules, merge_conflicts
from vllm_plugins.documents._form import build_requirements, file_rules, lock_keys, merged, pylock, values
from vllm_plugins.documents.lock import BaseUse, Lock, Override, Package, Plugin, Target, Wheel
from vllm_plugins.startup.settings import WHEELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vllm_plugins.documents.base import Base

__all__ = ["FORMAT", "MAX_BYTES", "TOOL", "content_sha256", "parse", "parse_all", "read", "read_bytes"]

FORMAT = 1
FORMAT_OF_TARGETS = 2  # of a lock whose targets have names
_MAX_DOTS = 2000  # in a line; tomllib takes the square of a dotted key's length, in time and memory
MAX_BYTES = 32 << 20  # a thousand packages with a hundred wheels each
TOOL = "vllm-plugins"
_FILENAME = re.compile(r"[\w.+!-]+")
_RESTORE = "restore it from version control, or resolve everything again: vllm-plugins lock --upgrade"
_RELOCK = "run vllm-plugins lock and review the change, or restore the lock from version control"


def read(path: Path, *, edited: bool = False, base: Base | None = None, target: str | None = None) -> Lock:
    """Read a lock file: :func:`read_bytes` and :func:`parse`."""
    return parse(read_bytes(path), path, edited=edited, base=base, target=target)


def read_bytes(path: Path) -> bytes:
    """The bytes of a lock file, whose hash is the key of its overlay.

    Raises:
        LockMissing: the file does not exist.
        LockInvalid: it is too large.
        StoreError: it can't be read.
    """
    try:
        data = regular_file.read_bytes(path, MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise LockMissing("the lock is missing", where=str(path), next_step="vllm-plugins lock") from error
    except OSError as error:
        raise StoreError(
            "the lock can't be read",
            where=str(path),
            found=error.strerror or str(error),
            next_step="make it a file that you can read",
        ) from error
    if len(data) > MAX_BYTES:
        raise LockInvalid(
            "the lock is too large",
            where=str(path),
            expected=f"at most {MAX_BYTES >> 20} MiB",
            next_step=_RESTORE,
        )
    return data


def parse(
    data: bytes, path: Path, *, edited: bool = False, base: Base | None = None, target: str | None = None
) -> Lock:
    """Read a lock from its bytes. Of a lock with several targets, this is the lock of one of them.

    That is the named ``target``, or else the one that a base, by default this interpreter's, belongs to.

    Raises as :func:`parse_all`, and:
        TargetMissing: the lock has no such target.
    """
    locks = parse_all(data, path, edited=edited)
    if locks[0].targets and locks[0].targets[0].name is not None:
        from vllm_plugins.documents import compatibility

        return compatibility.choose(locks, path, base=base, target=target)
    return locks[0]


def parse_all(data: bytes, path: Path, *, edited: bool = False) -> tuple[Lock, ...]:
    """The lock of each target from the bytes of a lock; ``path`` is for messages. Most locks have one target.

    ``edited`` accepts a lock that was edited by hand. Its pins are then only preferences.

    Raises:
        LockInvalid: it is not a valid lock of a format that this version knows.
        HashMismatch: it was edited by hand.
    """
    where = str(path)
    try:
        if any(line.count(b".") > _MAX_DOTS for line in data.splitlines()):
            raise ValueError(f"a line with more than {_MAX_DOTS} dots")  # noqa: TRY301 - one error for every reason
        document = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        if merge_conflicts.has_markers(data.decode("utf-8", "replace")):
            raise LockInvalid(
                "the lock has merge conflicts",
                where=where,
                next_step="run `vllm-plugins lock`: it keeps the pins that both sides agree on and resolves the rest",
            ) from error
        raise LockInvalid("the lock is not valid TOML", where=where, found=str(error), next_step=_RESTORE) from error
    try:
        tool = _tool(document, where)
        pylock.environments(document)
        documents = merged.split(document) if merged.is_merged(document) else [document]
        locks = tuple(map(_of_target, documents))
        content = content_sha256(document)
    except pylock.NewerVersionError as error:
        raise _newer(where, f"lock-version {document.get('lock-version')!r}", "lock-version 1.0") from error
    except (FieldError, ValueError, RecursionError) as error:  # 0xf… of ten thousand digits
        raise LockInvalid("the lock is not valid", where=where, found=str(error), next_step=_RESTORE) from error
    if not edited and tool.get("content-sha256") != content:
        raise HashMismatch(
            "the lock was edited by hand; nothing is installed from it",
            where=where,
            expected=f"content-sha256 {tool.get('content-sha256')}",
            found=f"content-sha256 {content}",
            next_step=_RELOCK,
        )
    return locks


def _of_target(document: Mapping[str, Any]) -> Lock:
    """The lock in a document that has one target."""
    environments = pylock.environments(document)
    packages = tuple(_package(found, f"packages[{i}]") for i, found in enumerate(pylock.packages(document)))
    lock = _lock(document["tool"][TOOL], packages, environments)
    for place, why in lock_keys.refused(document):
        raise FieldError(f"{place}: {why}")
    return lock


_NOT_CONTENT = ("content-sha256", "accepted-manifests")


def content_sha256(document: Mapping[str, Any]) -> str:
    """The hash of a lock document's content; layout, the hash itself and the note of a rollback don't count."""
    tool = {key: value for key, value in document["tool"][TOOL].items() if key not in _NOT_CONTENT}
    meaning = {**document, "tool": {**document["tool"], TOOL: tool}}
    return sha256(json.dumps(meaning, sort_keys=True, separators=(",", ":"), default=str).encode())


def _newer(where: str, found: str, expected: str) -> LockInvalid:
    return LockInvalid(
        "the lock was written by a newer version",
        where=where,
        expected=expected,
        found=found,
        next_step="pip install --upgrade vllm-plugin-manager, in the environment that runs vLLM",
    )


def _tool(document: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    tool: object = document.get("tool")
    table: object = tool.get(TOOL) if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        raise FieldError(f"tool.{TOOL}: missing; vllm-plugins did not write this file")
    number = table.get("format")
    if type(number) is not int or not 1 <= number < 1000:
        raise FieldError(f"tool.{TOOL}.format: expected an integer, found {number!r}")
    expected = FORMAT_OF_TARGETS if merged.is_merged(document) else FORMAT
    if number > expected:
        raise _newer(where, f"format {number!r}", f"format {expected}")
    if number < expected:
        raise FieldError(f"tool.{TOOL}.format: expected {expected}, found {number}")
    return table


def _lock(tool: Mapping[str, Any], packages: tuple[Package, ...], environments: tuple[str, ...]) -> Lock:
    here = f"tool.{TOOL}"
    plugins = tuple(_plugin(item, f"{here}.plugins[{i}]") for i, item in enumerate(items(tool, here, "plugins")))
    overrides = tuple(
        _override(item, f"{here}.overrides[{i}]") for i, item in enumerate(items(tool, here, "overrides"))
    )
    built = tuple(
        build_requirements.read(item, f"{here}.build-requirements[{i}]")
        for i, item in enumerate(items(tool, here, "build-requirements"))
    )
    _unique(f"{here}.build-requirements", (item.pin for item in built))
    names = _unique("packages", (package.name for package in packages))
    _unique(f"{here}.plugins", (canonicalize_name(plugin.name) for plugin in plugins))
    _unique(f"{here}.overrides", (override.package for override in overrides))
    for i, plugin in enumerate(plugins):
        if plugin.package not in names and not plugin.provided:
            raise FieldError(f"{here}.plugins[{i}].package: {plugin.package} is not among the packages")
    return Lock(
        manifest_sha256=values.sha256(get(tool, here, "manifest-sha256", str), f"{here}.manifest-sha256"),
        packages=packages,
        plugins=plugins,
        targets=tuple(_target(item, f"{here}.targets[{i}]") for i, item in enumerate(items(tool, here, "targets"))),
        environments=environments,
        accepted_manifests=strings(tool, here, "accepted-manifests"),
        overrides=overrides,
        build_requirements=built,
        manifest_name=_file_name(tool, here),
    )


def _file_name(tool: Mapping[str, Any], here: str) -> str | None:
    name = get(tool, here, "manifest", str, default=None)
    if name is not None and (not name or "/" in name or not name.isprintable() or name in (".", "..")):
        raise FieldError(f"{here}.manifest: expected the name of a file")
    return name


def _unique(place: str, names: Iterable[str]) -> Counter[str]:
    """The names of a list, each of which stands there once: a second one would hide behind the first in a review."""
    counted = Counter(names)
    if twice := [name for name, times in counted.items() if times > 1]:
        raise FieldError(f"{place}: {twice[0]} appears more than once")
    return counted


def _override(item: Any, here: str) -> Override:
    return Override(
        package=canonicalize_name(get(item, here, "package", str)),
        version=get(item, here, "version", str),
        replaces=get(item, here, "replaces", str),
        requested=values.requirement(get(item, here, "requested", str), f"{here}.requested"),
        reason=get(item, here, "reason", str),
        against=_askers(item, here, "against"),
    )


def _package(package: pylock.Package, here: str) -> Package:
    """A package under the rules of this lock, which are stricter than those of PEP 751."""
    tool = package.tool.get(TOOL, {})
    if not isinstance(tool, dict):
        raise FieldError(f"{here}.tool.{TOOL}: expected a table")
    return Package(
        name=package.name,
        version=str(package.version),
        marker=None if package.marker is None else str(package.marker),
        wheels=tuple(_wheel(wheel, f"{here}.wheels[{i}]") for i, wheel in enumerate(package.wheels)),
        directory=package.directory,
        index=package.index,
        requires_python=None if package.requires_python is None else str(package.requires_python),
        dependencies=package.dependencies,
        built_with=strings(tool, f"{here}.tool.{TOOL}", "built-with"),
        sdist_url=get(tool, f"{here}.tool.{TOOL}", "sdist-url", str, default=None),
        sdist_sha256=values.optional_sha256(tool, f"{here}.tool.{TOOL}", "sdist-sha256"),
        find_links=get(tool, f"{here}.tool.{TOOL}", "find-links", bool, default=False),
        identities=package.identities,
    )


def _wheel(wheel: pylock.Wheel, here: str) -> Wheel:
    digest = wheel.hashes.get("sha256")
    if not isinstance(digest, str):
        raise FieldError(f"{here}.hashes: expected a sha256, found none")
    if not _FILENAME.fullmatch(wheel.filename):
        raise FieldError(f"{here}.name: expected the name of a file, found {wheel.filename!r}")
    if wheel.path is not None and wheel.url is not None:
        raise FieldError(f"{here}: expected a path or a URL, found both")
    if wheel.path is not None and PurePosixPath(wheel.path) != PurePosixPath(WHEELS, wheel.filename):
        raise FieldError(f"{here}.path: expected {WHEELS}/{wheel.filename}, found {wheel.path!r}")
    if wheel.path is None and not values.URL.fullmatch(str(wheel.url)):
        raise FieldError(f"{here}.url: expected an https URL, found {wheel.url!r}")
    return Wheel(
        filename=wheel.filename,
        sha256=values.sha256(digest, f"{here}.hashes.sha256"),
        size=wheel.size,
        url=wheel.url if wheel.path is None else None,
    )


def _plugin(item: Any, here: str) -> Plugin:
    points = [
        tuple(get(point, f"{here}.entry-points[{i}]", key, str) for key in ("group", "name", "value"))
        for i, point in enumerate(items(item, here, "entry-points"))
    ]
    name, filename = get(item, here, "name", str), get(item, here, "filename", str, default=None)
    url = get(item, here, "url", str, default=None)
    if filename is not None and (wrong := _wrong_file(name, filename, url)):
        raise FieldError(f"{here}: {wrong}")
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


def _wrong_file(name: str, filename: str, url: str | None) -> str | None:
    """Why a path or a request must not be made of the fields of a single file."""
    return _rules.name(name) or file_rules.filename(filename) or (file_rules.url(url) if url is not None else None)


def _target(item: Any, here: str) -> Target:
    return Target(
        name=get(item, here, "name", str, default=None),
        python=values.python(get(item, here, "python", str), f"{here}.python"),
        platform=get(item, here, "platform", str),
        vllm=get(item, here, "vllm", str, default=None),
        base=tuple(_base_use(use, f"{here}.base[{i}]") for i, use in enumerate(items(item, here, "base"))),
    )


def _base_use(use: Any, here: str) -> BaseUse:
    return BaseUse(
        name=canonicalize_name(get(use, here, "name", str)),
        version=get(use, here, "version", str),
        required_by=_askers(use, here, "required-by"),
    )


def _askers(item: Any, here: str, key: str) -> tuple[tuple[str, str], ...]:
    """Pairs of a name and the specifier that it requires."""
    found = []
    for i, dependent in enumerate(items(item, here, key)):
        there = f"{here}.{key}[{i}]"
        specifier = values.specifier(get(dependent, there, "specifier", str), f"{there}.specifier")
        found.append((get(dependent, there, "name", str), specifier))
    return tuple(found)
