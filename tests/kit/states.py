"""States of one locked plugin, without files: for rules that only read a state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents.base import Base
from vllm_plugins.documents.lock import Lock, Plugin
from vllm_plugins.documents.state import LockFile, State
from vllm_plugins.startup.marker import Failure, Marker
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["marker", "state"]

KEY = "0" * 32


def state(
    points: Mapping[str, Iterable[str]], *, allowed: str | None = None, failed: Iterable[tuple[str, str]] = ()
) -> State:
    """A state with one plugin, ``tiny``, that has these entry points by group. ``failed`` are group and name."""
    environ = {"HOME": "/home/ada", **({} if allowed is None else {"VLLM_PLUGINS": allowed})}
    base = Base(
        python="3.11.9", platform="linux-x86_64", distributions=(), fingerprint="base", markers=(), platforms=()
    )
    plugin = Plugin(
        name="tiny",
        source="pypi",
        package=canonicalize_name("tiny"),
        version="1.0",
        requested="tiny",
        entry_points=tuple((group, name, f"{name}:run") for group, names in points.items() for name in names),
    )
    lock = Lock(manifest_sha256=Sha256(""), packages=(), plugins=(plugin,), targets=())
    return State(
        settings=Settings.from_environment(environ),
        base=base,
        manifest=None,
        locked=LockFile(data=b"", lock=lock, key=KEY),
        marker=marker(points, failed=failed),
        lock_problems=(),
        overlay_problems=(),
    )


def marker(points: Mapping[str, Iterable[str]], *, failed: Iterable[tuple[str, str]] = ()) -> Marker:
    """The marker of that plugin's overlay."""
    return Marker(
        key=KEY,
        interpreter="",
        lock_sha256="",
        files_sha256="",
        registry_sha256="",
        manifests=(),
        bases=("base",),
        points=tuple((group, name, f"{name}:run", "tiny", "tiny") for group in points for name in points[group]),
        plugins=("tiny 1.0",),
        checked=("base",),
        failures=tuple(
            Failure(base="base", group=group, name=name, what=f"{name} failed", found="") for group, name in failed
        ),
    )
