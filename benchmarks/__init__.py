"""What the promises of speed cost, measured side by side: ``python -m benchmarks``.

Machines are shared and noisy, so hardly anything here is a time alone: the programs of a row take turns, and what
counts is the median of their ratios (or differences). ``docs/development/performance.md`` says what each row is for.
"""

from __future__ import annotations
