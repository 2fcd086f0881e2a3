"""``python -m vllm_plugins``: the command line, without its script."""

from __future__ import annotations

import os
import sys


def _main() -> int:
    # `python -m` puts the working directory first on the path: a yaml.py in it would be imported in place of PyYAML.
    # The script `vllm-plugins` and `python -P` don't. A checkout of this project stays, as we are imported from it.
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()] != [home]:
        del sys.path[0]
    from vllm_plugins.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(_main())
