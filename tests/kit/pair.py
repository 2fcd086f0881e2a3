"""The pair of plugins that many tests begin with: ``tiny`` from the index, and ``mine`` from a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import projects

if TYPE_CHECKING:
    from .index import Index
    from .place import Place

__all__ = ["lock"]


def lock(place: Place, index: Index, *, mine: str = "mine-plugin", helper: str | None = None, **tiny: Any) -> None:
    """Lock both. ``mine`` is the name of the directory's distribution, ``helper`` the version of one more that ``tiny``
    needs, if it needs one; the rest goes to :meth:`Index.wheel`.
    """
    if helper is not None:
        index.wheel("helper", helper)
        tiny["requires"] = ["helper"]
    index.wheel("tiny", **tiny)
    projects.project(place.config / "mine", name=mine)
    place.write(
        """
        plugins:
          - {name: tiny, source: pypi, package: tiny}
          - {name: mine, source: local, path: mine}
        """
    )
    place.run("lock")
