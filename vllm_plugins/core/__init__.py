"""What everything stands on: errors, processes, files, threads. Standard library only."""

from __future__ import annotations
