"""Which plugins a vLLM never loads, by its release and by its environment variables.

Read in 18 releases, 0.8.5 to 0.33, and run on seven of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vllm_plugins.documents.entry_point_names import Names

__all__ = ["RUST", "lacks", "omni", "rust", "too_new"]

# The releases in which groups appeared. General and platform plugins are older than all that we know.
_SINCE = {
    "vllm.logits_processors": "0.10.2",
    "vllm.io_processor_plugins": "0.10.2",
    "vllm.stat_logger_plugins": "0.11.1",
    "vllm.endpoint_plugins": "0.26",
}
RUST = (
    "vllm.endpoint_plugins",
    "vllm.stat_logger_plugins",
)  # not loaded by the front end in Rust, 0.22 to 0.32

Texts = tuple[str, str, str]  # what, evidence, fix


def lacks(vllm: str | None) -> frozenset[str]:
    """The groups that a release of vLLM does not have; none where the release is unknown."""
    try:
        release = Version(vllm or "").release
    except InvalidVersion:
        return frozenset()
    return frozenset(group for group, since in _SINCE.items() if release < Version(since).release)


def too_new(vllm: str | None, locked: Names) -> Iterator[str]:
    """Notes on entry points in groups that this vLLM does not have. A plugin may be made for several releases."""
    for group in sorted(lacks(vllm) & locked.keys()):
        points = ", ".join(f"{name} ({plugin})" for name, plugin in sorted(locked[group].items()))
        yield f"vLLM {vllm} has no {group}, which came with {_SINCE[group]}: it never loads {points}"


def rust(locked: Names, environ: Mapping[str, str]) -> Iterator[Texts]:
    """Plugins that vLLM's front end in Rust does not load."""
    if environ.get("VLLM_USE_RUST_FRONTEND", "0") in ("", "0"):
        return
    points = [f"{name} ({plugin})" for group in RUST for name, plugin in sorted(locked.get(group, {}).items())]
    if points:
        what = f"vLLM's front end in Rust loads neither endpoint plugins nor stat loggers: {', '.join(points)}"
        yield what, f"VLLM_USE_RUST_FRONTEND={environ['VLLM_USE_RUST_FRONTEND']}", "unset VLLM_USE_RUST_FRONTEND"


def omni(modules: Mapping[str, object], *, is_linked: bool) -> Iterator[str]:
    """A note on ``vllm serve --omni``, which looks for its module before vLLM calls any plugin."""
    if "vllm_omni" in modules and not is_linked:
        yield (
            "vllm serve --omni looks for vllm_omni before vLLM calls the hook, and does not find it in the overlay; "
            "to start it so: vllm-plugins sync --bake"
        )
