"""Let a build import the given packages of the vLLM environment, and no others.

This file is copied into the environment of a build, next to its list of packages: it uses the standard library alone.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

__all__ = ["Finder", "install"]


class Finder(DistributionFinder):
    """Finds modules and distributions of a list in some directories. It comes after every other finder.

    A build meets the files where they are. Links to them would not do: compilers write the paths of headers into what
    they make.
    """

    def __init__(self, directories: Sequence[str], modules: Iterable[str], distributions: Iterable[str]) -> None:
        self.directories = list(directories)
        self.modules = frozenset(modules)
        self.distributions = frozenset(distributions)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module that is in no package; those in a package are found through its path."""
        if path is not None or fullname not in self.modules:
            return None
        return PathFinder.find_spec(fullname, self.directories, target)

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterable[Distribution]:
        """Find metadata."""
        name = None if context is None else context.name
        there = DistributionFinder.Context(name=name, path=self.directories)
        for found in MetadataPathFinder.find_distributions(there):
            if re.sub(r"[-_.]+", "-", found.metadata["Name"] or "").lower() in self.distributions:
                yield found


def install() -> None:
    """Install the finder of the list that is next to this file."""
    sys.meta_path.append(Finder(**json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))))
