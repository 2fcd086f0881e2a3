"""``plugins.lock``: reading it, and checking all that it says.

A PEP 751 document whose packages are all wheels with a sha256, with our own table ``tool.vllm-plugins`` beside.
What is checked here is not checked again.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from packaging.pylock import Pylock, PylockUnsupportedVersionError, PylockValidationError
from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import HashMismatch, LockInvalid, LockMissing, StoreError
from vllm_plugins.core.hashes import sha256
from vllm_plugins.documents import _fields, merge_conflicts
from vllm_plugins.documents._fields import FieldError
from vllm_plugins.documents.lock import BaseUse, Lock, Package, Plugin, Target, Wheel
from vllm_plugins.startup.settings import WHEELS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BaseUse", "Lock", "Package", "Plugin", "Target", "Wheel", "parse", "read"]

FORMAT = 1
_MAX_DOTS = 2000  # in a line; tomllib takes the square of a dotted key's length, in time and memory
MAX_BYTES = 32 << 20  # a thousand packages with a hundred wheels each
TOOL = "vllm-plugins"
_RELOCK = "run vllm-plugins lock, and review the change; to go back, take the lock from version control"


def read(path: Path, *, edited: bool = False) -> Lock:
    """Read a lock file: :func:`read_bytes` and :func:`parse`."""
    return parse(read_bytes(path), path, edited=edited)


def read_bytes(path: Path) -> bytes:
    """The bytes of a lock file, whose hash is the key of its overlay.

    Raises:
        LockMissing: there is none.
        LockInvalid: it is too large to be one.
        StoreError: it can't be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise LockMissing("there is no lock", where=str(path), next_step="vllm-plugins lock") from error
    except OSError as error:
        raise StoreError(
            "the lock can't be read",
            where=str(path),
            found=error.strerror or str(error),
            next_step="make it a file that this user can read",
        ) from error
    if len(data) > MAX_BYTES:
        raise LockInvalid(
            f"the lock has more than {MAX_BYTES >> 20} MiB: no lock is so large", where=str(path), next_step=_RELOCK
        )
    return data


def parse(data: bytes, path: Path, *, edited: bool = False) -> Lock:
    """Read a lock from its bytes; ``path`` is for messages.

    ``edited`` accepts one that was changed by hand, whose pins are then no more than wishes.

    Raises:
        LockInvalid: it is not a lock of a format that this version knows.
        HashMismatch: it was changed by hand.
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
        raise LockInvalid("the lock is not TOML", where=where, found=str(error), next_step=_RELOCK) from error
    try:
        tool = _tool(document, where)
        pylock = Pylock.from_dict(document)
        packages = tuple(_package(package, f"packages[{i}]") for i, package in enumerate(pylock.packages))
        lock = _lock(tool, packages)
        content = content_sha256(document)
    except PylockUnsupportedVersionError as error:
        raise _newer(where, f"lock-version {document.get('lock-version')!r}", "lock-version 1.0") from error
    except (PylockValidationError, FieldError, ValueError, RecursionError) as error:  # 0xf… of ten thousand digits
        raise LockInvalid(
            "the lock does not say what a lock must", where=where, found=str(error), next_step=_RELOCK
        ) from error
    if not edited and tool.get("content-sha256") != content:
        raise HashMismatch(
            "the lock was changed by hand: nothing is installed from it",
            where=where,
            expected=f"content-sha256 {tool.get('content-sha256')}",
            found=f"content-sha256 {content}",
            next_step=_RELOCK,
        )
    return lock


def content_sha256(document: Mapping[str, Any]) -> str:
    """The hash of what a lock document says, without its layout and without this hash."""
    tool = {key: value for key, value in document["tool"][TOOL].items() if key != "content-sha256"}
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
        raise FieldError(f"no table [tool.{TOOL}]: this is not a lock of vllm-plugins")
    number = table.get("format")
    if type(number) is not int or not 1 <= number < 1000:
        raise FieldError(f"tool.{TOOL}.format: expected an integer, found {number!r}")
    if number > FORMAT:
        raise _newer(where, f"format {number!r}", f"format {FORMAT}")
    return table


def _lock(tool: Mapping[str, Any], packages: tuple[Package, ...]) -> Lock:
    here = f"tool.{TOOL}"
    names = Counter(package.name for package in packages)
    if twice := [name for name, times in names.items() if times > 1]:
        raise FieldError(f"packages: {twice[0]} stands there more than once")
    plugins = tuple(
        _plugin(item, f"{here}.plugins[{i}]") for i, item in enumerate(_fields.items(tool, here, "plugins"))
    )
    for i, plugin in enumerate(plugins):
        if plugin.package not in names:
            raise FieldError(f"{here}.plugins[{i}].package: {plugin.package} is not among the packages")
    return Lock(
        manifest_sha256=_fields.sha256(_fields.get(tool, here, "manifest-sha256", str), f"{here}.manifest-sha256"),
        packages=packages,
        plugins=plugins,
        targets=tuple(
            _target(item, f"{here}.targets[{i}]") for i, item in enumerate(_fields.items(tool, here, "targets"))
        ),
    )


def _package(package: Any, here: str) -> Package:
    """A package as ``packaging.pylock`` read it, under the stricter rules of this lock."""
    if package.version is None:
        raise FieldError(f"{here}.version: missing; only exact versions are installed")
    if package.vcs or package.archive or package.sdist:
        raise FieldError(f"{here}: only wheels and editable directories are installed")
    if package.directory is not None and package.directory.editable is not True:
        raise FieldError(f"{here}.directory: only an editable directory can be without a hash")
    tool = (package.tool or {}).get(TOOL, {})
    if not isinstance(tool, dict):
        raise FieldError(f"{here}.tool.{TOOL}: expected a table")
    return Package(
        name=package.name,
        version=str(package.version),
        wheels=tuple(_wheel(wheel, f"{here}.wheels[{i}]") for i, wheel in enumerate(package.wheels or ())),
        directory=package.directory.path if package.directory is not None else None,
        index=package.index,
        requires_python=None if package.requires_python is None else str(package.requires_python),
        dependencies=tuple(
            canonicalize_name(_fields.get(item, f"{here}.dependencies[{i}]", "name", str))
            for i, item in enumerate(package.dependencies or ())
        ),
        built_with=_fields.strings(tool, f"{here}.tool.{TOOL}", "built-with"),
        sdist_url=_fields.get(tool, f"{here}.tool.{TOOL}", "sdist-url", str, default=None),
        sdist_sha256=_fields.get(tool, f"{here}.tool.{TOOL}", "sdist-sha256", str, default=None),
    )


def _wheel(wheel: Any, here: str) -> Wheel:
    digest = wheel.hashes.get("sha256")
    if not isinstance(digest, str):
        raise FieldError(f"{here}.hashes: no sha256; nothing else counts")
    if wheel.size is None or wheel.size < 0:
        raise FieldError(f"{here}.size: expected a number of bytes, found {wheel.size!r}")
    filename = _fields.wheel_filename(wheel.filename, f"{here}.name")
    if wheel.path is not None and PurePosixPath(wheel.path) != PurePosixPath(WHEELS, filename):
        raise FieldError(f"{here}.path: expected {WHEELS}/{filename}, found {wheel.path!r}")
    if wheel.path is None and not wheel.url.startswith(("https://", "http://", "file://")):
        raise FieldError(f"{here}.url: expected an https URL, found {wheel.url!r}")
    return Wheel(
        filename=filename,
        sha256=_fields.sha256(digest, f"{here}.hashes.sha256"),
        size=wheel.size,
        url=wheel.url if wheel.path is None else None,
    )


def _plugin(item: Any, here: str) -> Plugin:
    points = []
    for i, point in enumerate(_fields.items(item, here, "entry-points")):
        there = f"{here}.entry-points[{i}]"
        points.append(tuple(_fields.get(point, there, key, str) for key in ("group", "name", "value")))
    return Plugin(
        name=_fields.get(item, here, "name", str),
        source=_fields.get(item, here, "source", str),
        package=canonicalize_name(_fields.get(item, here, "package", str)),
        version=_fields.get(item, here, "version", str),
        requested=_fields.get(item, here, "requested", str),
        url=_fields.get(item, here, "url", str, default=None),
        subdirectory=_fields.get(item, here, "subdirectory", str, default=None),
        commit=_fields.get(item, here, "commit-id", str, default=None),
        tree_sha256=_fields.get(item, here, "tree-sha256", str, default=None),
        editable=_fields.get(item, here, "editable", bool, default=False),
        project_sha256=_fields.get(item, here, "project-sha256", str, default=None),
        entry_points=tuple((group, name, value) for group, name, value in points),
    )


def _target(item: Any, here: str) -> Target:
    return Target(
        python=_fields.python(_fields.get(item, here, "python", str), f"{here}.python"),
        platform=_fields.get(item, here, "platform", str),
        vllm=_fields.get(item, here, "vllm", str, default=None),
        base=tuple(_base_use(use, f"{here}.base[{i}]") for i, use in enumerate(_fields.items(item, here, "base"))),
    )


def _base_use(item: Any, here: str) -> BaseUse:
    askers = []
    for i, asker in enumerate(_fields.items(item, here, "required-by")):
        there = f"{here}.required-by[{i}]"
        specifier = _fields.specifier(_fields.get(asker, there, "specifier", str), f"{there}.specifier")
        askers.append((_fields.get(asker, there, "name", str), specifier))
    return BaseUse(
        name=canonicalize_name(_fields.get(item, here, "name", str)),
        version=_fields.get(item, here, "version", str),
        required_by=tuple(askers),
    )
