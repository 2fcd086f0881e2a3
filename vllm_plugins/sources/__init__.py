"""Git repositories and local directories: what they are now, and a clean copy for a build."""

from __future__ import annotations
