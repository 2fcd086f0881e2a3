"""Wheels, the indexes they come from, and the programs that install and build them."""

from __future__ import annotations
