"""From plugins.lock to the store."""

from __future__ import annotations
