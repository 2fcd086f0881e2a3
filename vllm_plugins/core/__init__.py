"""Errors, processes, files and threads, for all other wings. Standard library only."""

from __future__ import annotations
