"""The files that a user reads and commits: plugins.yaml, plugins.lock, base.json."""

from __future__ import annotations
