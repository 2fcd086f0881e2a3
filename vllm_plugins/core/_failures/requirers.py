"""The plugins that an error names as the ones that require something."""

from __future__ import annotations

import re

__all__ = ["as_data"]

_PLUGIN = re.compile(r"\bplugin '([^']+)'")


def as_data(required_by: str | None) -> dict[str, object]:
    """The part of an error for JSON: the names of the plugins, none if packages require it, and the text."""
    if required_by is None:
        return {}
    return {"required_by": list(dict.fromkeys(_PLUGIN.findall(required_by))), "required_by_text": required_by}
