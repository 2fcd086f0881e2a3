"""Git repositories and local directories: their current state, and a clean copy for a build."""

from __future__ import annotations
