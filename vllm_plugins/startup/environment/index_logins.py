"""The variables with the logins of the indexes in plugins.yaml, named as uv names those of its own indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PREFIX", "is_variable", "login", "variables"]

PREFIX = "VLLM_PLUGIN_INDEX_"
_USER, _PASSWORD = "_USERNAME", "_PASSWORD"


def variables(index: str) -> tuple[str, str]:
    """The variables with the user and the password of an index."""
    word = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in index).upper()
    return f"{PREFIX}{word}{_USER}", f"{PREFIX}{word}{_PASSWORD}"


def is_variable(name: str) -> bool:
    """Whether a variable has the login of an index."""
    return name.startswith(PREFIX) and name.endswith((_USER, _PASSWORD))


def login(index: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The user and the password of an index; empty where no variable has them."""
    user, password = variables(index)
    return environ.get(user, ""), environ.get(password, "")
