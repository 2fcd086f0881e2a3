"""Taking overlays off the import path of a process."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import overlay
from vllm_plugins.startup._path.origins import path_file_entries

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["remove"]


def remove(added: Iterable[str], finders: Iterable[object], *, forget_modules: bool) -> None:
    """Remove every overlay from the path, with the entries that its ``.pth`` files have added.

    ``added`` and ``finders`` are the path entries and finders that this process has added with its own overlay.
    """
    path = [overlay.real(entry) for entry in overlay.entries()]
    sites = {entry for entry in path if overlay.key_in(entry) is not None}
    # Entries that an overlay's .pth files have added come after it. Those before it were there without it.
    after = {entry for number, entry in enumerate(path) if not sites.isdisjoint(path[:number])}
    named = {entry for site in sites for entry in path_file_entries(site)}
    gone = sites | (after & named) | set(map(overlay.real, added))
    left = [*finders, *(finder for finder in sys.meta_path if _comes_from(finder, tuple(sites)))]
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in left]
    entries: list[Any] = sys.path  # other objects than strings are left alone
    sys.path[:] = [entry for entry in entries if not isinstance(entry, str) or overlay.real(entry) not in gone]
    for entry in gone:
        sys.path_importer_cache.pop(entry, None)
        sys.path_importer_cache.pop(overlay.GUARDED + entry, None)
    if forget_modules:
        roots = tuple(entry + os.sep for entry in gone)
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(roots):
                del sys.modules[name]


def _comes_from(finder: object, sites: tuple[str, ...]) -> bool:
    module = sys.modules.get(getattr(finder, "__module__", None) or type(finder).__module__)
    return bool(sites) and (getattr(module, "__file__", None) or "").startswith(sites)
