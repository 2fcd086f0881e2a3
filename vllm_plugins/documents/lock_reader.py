"""Read ``plugins.lock`` and check everything in it.

The file is a PEP 751 document. Its packages are wheels with a sha256 or editable directories; our own table,
``tool.vllm-plugins``, has the rest. What is checked here is trusted afterwards.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

from packaging.utils import canonicalize_name

from vllm_plugins.core import regular_file
from vllm_plugins.core.errors import HashMismatch, LockInvalid, LockMissing, StoreError
from vllm_plugins.core.fields import FieldError, get, items, strings
from vllm_plugins.core.hashes import sha256
from vllm_plugins.documents import _utf8, merge_conflicts
from vllm_plugins.documents._lock import (
    build_requirement_table,
    environment_tables,
    known_keys,
    package_table,
    plugin_table,
    pylock,
    several_targets,
    values,
)
from vllm_plugins.documents.lock import TOOL, Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Package

__all__ = ["FORMAT", "FORMAT_OF_TARGETS", "MAX_BYTES", "content_sha256", "parse", "parse_all", "read", "read_bytes"]

_T = TypeVar("_T")

FORMAT = 1
FORMAT_OF_TARGETS = 2  # of a lock whose targets have names
_MAX_DOTS = 2000  # in a line; tomllib takes the square of a dotted key's length, in time and memory
MAX_BYTES = 32 << 20  # a thousand packages with a hundred wheels each
_NOT_CONTENT = ("content-sha256", "accepted-manifests")  # the hash itself, and the note of a rollback
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
    if locks[0].target_name is not None:
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
        document = tomllib.loads(_utf8.decode(data))
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
        documents = several_targets.split(document) if several_targets.is_merged(document) else [document]
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
    packages = tuple(package_table.read(found, f"packages[{i}]") for i, found in enumerate(pylock.packages(document)))
    lock = _lock(document["tool"][TOOL], packages, environments)
    for place, why in known_keys.refused(document):
        raise FieldError(f"{place}: {why}")
    return lock


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
    expected = FORMAT_OF_TARGETS if several_targets.is_merged(document) else FORMAT
    if number > expected:
        raise _newer(where, f"format {number!r}", f"format {expected}")
    if number < expected:
        raise FieldError(f"tool.{TOOL}.format: expected {expected}, found {number}")
    return table


def _lock(tool: Mapping[str, Any], packages: tuple[Package, ...], environments: tuple[str, ...]) -> Lock:
    here = f"tool.{TOOL}"
    plugins = _read_each(tool, "plugins", plugin_table.read)
    overrides = _read_each(tool, "overrides", environment_tables.read_override)
    built = _read_each(tool, "build-requirements", build_requirement_table.read)
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
        targets=_read_each(tool, "targets", environment_tables.read_target),
        environments=environments,
        accepted_manifests=strings(tool, here, "accepted-manifests"),
        overrides=overrides,
        build_requirements=built,
        manifest_name=_file_name(tool, here),
    )


def _read_each(tool: Mapping[str, Any], key: str, read: Callable[[Any, str], _T]) -> tuple[_T, ...]:
    """The values of the tables in an array of our own table; ``read`` gets a table and its path."""
    here = f"tool.{TOOL}"
    return tuple(read(item, f"{here}.{key}[{i}]") for i, item in enumerate(items(tool, here, key)))


def _file_name(tool: Mapping[str, Any], here: str) -> str | None:
    name = get(tool, here, "manifest", str, default=None)
    if name is not None and (not name or "/" in name or not name.isprintable() or name in (".", "..")):
        raise FieldError(f"{here}.manifest: expected the name of a file")
    return name


def _unique(place: str, names: Iterable[str]) -> Counter[str]:
    """The names of a list, refused if one appears twice: a review could overlook the second."""
    counted = Counter(names)
    if twice := [name for name, times in counted.items() if times > 1]:
        raise FieldError(f"{place}: {twice[0]} appears more than once")
    return counted
