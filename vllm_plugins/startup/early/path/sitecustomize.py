"""Run by Python when an interpreter starts below ``vllm-plugins run``: put the overlay on its path.

This hides a ``sitecustomize`` of the environment or of ``PYTHONPATH``, which is run first.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

__all__ = ["run"]


def run() -> None:
    """Leave the path, run the module that this one hides, and put the overlay on the path."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    try:
        spec = PathFinder.find_spec(__name__, sys.path)
        if spec is not None and spec.loader is not None:
            module = module_from_spec(spec)
            sys.modules[__name__] = module
            spec.loader.exec_module(module)
    finally:
        try:
            from vllm_plugins.startup import early
        except ImportError:
            pass  # another environment than the one that the overlay is for
        else:
            early.add()


if __name__ == "sitecustomize":
    run()
