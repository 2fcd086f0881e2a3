"""``python -m vllm_plugins``: the command line, without its script."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
