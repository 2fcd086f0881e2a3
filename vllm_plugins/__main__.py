"""``python -m vllm_plugins``: the command line, without its script."""

from __future__ import annotations

import sys

from vllm_plugins.cli import main

sys.exit(main())
