"""What the tests are made of: real projects, a real index, real repositories, one user's world, a vLLM to stand in."""

from __future__ import annotations
