"""Everything that the hook promises, on vLLM itself: ``tox -e vllm``."""

from __future__ import annotations
