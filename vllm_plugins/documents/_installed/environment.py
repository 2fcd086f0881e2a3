"""The values of environment markers (PEP 508) of this interpreter.

``packaging.markers.default_environment`` returns the same, from a module that takes 6 ms to import with its parser.
"""

from __future__ import annotations

import os
import platform
import sys

__all__ = ["markers"]


def markers() -> dict[str, str]:
    """The variables of markers, each with its value here."""
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": _implementation_version(),
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    }


def _implementation_version() -> str:
    found = sys.implementation.version
    version = f"{found.major}.{found.minor}.{found.micro}"
    return version if found.releaselevel == "final" else f"{version}{found.releaselevel[0]}{found.serial}"
