"""Checks of single values of a lock: each returns the value, or raises an error that begins with its path."""

from __future__ import annotations

import re
from typing import Any

from packaging.specifiers import InvalidSpecifier

from vllm_plugins.core.fields import FieldError, get
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import versions
from vllm_plugins.documents.lock import CommitSha

__all__ = ["PYTHON", "SHA256", "URL", "commit", "optional_sha256", "python", "requirement", "sha256", "specifier"]

PYTHON = re.compile(r"3\.[0-9]{1,3}")
SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Of a file. In a requirements file, a space begins an option, such as another hash, and pip replaces "${NAME}".
URL = re.compile(r"(?:https?|file)://(?:(?!\$\{)\S)+")


def sha256(value: str, here: str) -> Sha256:
    """The value, if it is a sha256 in lower-case hexadecimal digits."""
    if not SHA256.fullmatch(value):
        raise FieldError(f"{here}: expected 64 hexadecimal digits, found {value!r}")
    return Sha256(value)


def optional_sha256(item: Any, here: str, key: str) -> Sha256 | None:
    value = get(item, here, key, str, default=None)
    return None if value is None else sha256(value, f"{here}.{key}")


def commit(item: Any, here: str) -> CommitSha | None:
    if (value := get(item, here, "commit-id", str, default=None)) is not None and not _COMMIT.fullmatch(value):
        raise FieldError(f"{here}.commit-id: expected the 40 hexadecimal digits of a commit, found {value!r}")
    return None if value is None else CommitSha(value)


def python(value: str, here: str) -> str:
    """The value, if it is a Python's version as in ``3.11``."""
    if not PYTHON.fullmatch(value):
        raise FieldError(f"{here}: expected a version such as 3.11, found {value!r}")
    return value


def requirement(value: str, here: str) -> str:
    """The value, if it is a requirement (PEP 508)."""
    try:
        versions.requirement(value)
    except ValueError as error:  # InvalidRequirement
        raise FieldError(f"{here}: expected a requirement, found {value!r}") from error
    return value


def specifier(value: str, here: str) -> str:
    """The value, if it is a version specifier (PEP 440)."""
    try:
        versions.specifiers(value)
    except InvalidSpecifier as error:
        raise FieldError(f"{here}: expected a version specifier, found {value!r}") from error
    return value
