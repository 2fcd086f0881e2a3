"""What the three promises of speed cost, measured side by side: ``python -m benchmarks``.

Machines are shared and noisy, so nothing here is a time alone: each figure is a ratio (or a difference) of runs that
took turns.
"""

from __future__ import annotations
