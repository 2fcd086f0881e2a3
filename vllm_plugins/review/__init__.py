"""What a lock and an overlay are, for people and programs that check them."""

from __future__ import annotations
