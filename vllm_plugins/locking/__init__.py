"""From plugins.yaml to plugins.lock."""

from __future__ import annotations
