"""The modules and names of a release of vLLM, read from the files of its wheel. A module is parsed when needed."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from vllm_plugins.review._outlook import bindings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vllm_plugins.review._outlook.bindings import Bindings

__all__ = ["MOST", "PACKAGE", "Release", "Verdict", "parse", "resolve"]

MOST = 1 << 20  # bytes of a file; a parsed one takes a thousand times the memory. vLLM's largest has 300 KB

PACKAGE = "vllm"
_COMPILED = (".so", ".pyd")
_GENERATED = frozenset({"vllm._version"})  # a wheel that was built from a clone has it
# Compiled for some platforms only, so that the wheel of another one says nothing.
_OF_A_PLATFORM = re.compile(
    r"vllm\.(?:_\w*C(?:_\w+)?|cumem_allocator|vllm_flash_attn|third_party|_rust\w*|spinloop)(?:\.|$)"
)
_DEFINITION = re.compile(rb"^(?:(?:async[ ]+)?def|class)[ ]+(\w+)|^(\w+)[ ]*(?::[^=\n]+)?=(?!=)", re.MULTILINE)
_SHOWN = 3  # places that a name may have moved to


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a release has for a reference. ``missing`` is the dotted name where the way ends, ``why`` says more."""

    state: Literal["present", "missing", "unknown"]
    module: str = ""
    missing: str = ""
    why: str = ""


_PRESENT = Verdict(state="present")


class Release:
    """One wheel: ``names`` of all its files, and the ``sources`` of its Python files."""

    def __init__(self, names: Iterable[str], sources: Mapping[str, bytes]) -> None:
        self._sources = sources
        self._compiled: set[str] = set()
        self._directories: set[str] = set()
        for name in names:
            parts = name.split("/")
            self._directories.update(".".join(parts[:end]) for end in range(1, len(parts)))
            if name.endswith(_COMPILED):
                self._compiled.add(".".join([*parts[:-1], parts[-1].partition(".")[0]]))
        self._bindings: dict[str, Bindings | None] = {}

    @cached_property
    def modules(self) -> Mapping[str, str]:
        """The path of each Python module, by its dotted name."""
        found = {}
        for path in self._sources:
            if path.startswith(f"{PACKAGE}/"):
                found[path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")] = path
        return found

    def is_module(self, dotted: str) -> bool:
        """Whether a name is that of a module or a directory of them."""
        return dotted in self.modules or dotted in self._compiled or dotted in self._directories

    def look_up(self, module: str, chain: Sequence[str]) -> Verdict:
        """Follow attributes from a module, as far as they are modules themselves."""
        if (missing := self._missing_module(module)) is not None:
            return missing
        here = module
        for name in chain:
            if here not in self.modules:
                return (
                    Verdict(state="unknown", module=here, why=f"{here} is compiled")
                    if (here in self._compiled)
                    else self._in_directory(here, name)
                )
            inner = f"{here}.{name}"
            verdict = self._name(here, name, set())
            if verdict.state != "present" or not self.is_module(inner):
                return verdict
            here = inner
        return _PRESENT

    def places_of(self, dotted: str) -> tuple[str, ...]:
        """The modules that define the last part of a name, those most like its module first; few of them."""
        module, _, name = dotted.rpartition(".")
        return _nearest(self._definitions.get(name, ()), module)

    @cached_property
    def _definitions(self) -> Mapping[str, Sequence[str]]:
        """The modules that define each name. Patterns are fifty times faster than parsing all of vLLM."""
        found: dict[str, list[str]] = {}
        for module, path in self.modules.items():
            names = {match[match.lastindex or 0] for match in _DEFINITION.finditer(self._sources[path])}
            for name in names:
                found.setdefault(name.decode("utf-8", "replace"), []).append(module)
        return found

    def modules_called(self, dotted: str) -> tuple[str, ...]:
        """Modules whose last part is that of another one."""
        last = dotted.rpartition(".")[2]
        found = [module for module in self.modules if module.rpartition(".")[2] == last]
        return _nearest(found, dotted)

    def _missing_module(self, module: str) -> Verdict | None:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            part = ".".join(parts[:end])
            if self.is_module(part):
                continue
            if part in _GENERATED:
                return Verdict(state="unknown", module=part, why=f"{part} is generated by a build")
            if _OF_A_PLATFORM.match(part):
                return Verdict(state="unknown", module=part, why=f"{part} is compiled for some platforms only")
            return Verdict(state="missing", module=part, missing=part)
        return None

    def _in_directory(self, here: str, name: str) -> Verdict:
        """A name of a directory without ``__init__.py``, which has modules alone."""
        inner = f"{here}.{name}"
        return _PRESENT if self.is_module(inner) else Verdict(state="missing", module=here, missing=inner)

    def _name(self, module: str, name: str, passed: set[str]) -> Verdict:
        """``passed`` are the modules that were asked: each is asked once, however many ways lead to it."""
        passed.add(module)
        found = self._read(module)
        if found is None:
            return Verdict(state="unknown", module=module, why=f"{module} can't be parsed by this Python")
        if name in found.sure or self.is_module(f"{module}.{name}") or name in found.lazy:
            return _PRESENT
        verdicts = [self._from_star(module, star, name, passed) for star in found.stars]
        if any(verdict.state == "present" for verdict in verdicts):
            return _PRESENT
        if name in found.maybe:
            why = f"{module} defines {name} on some machines only"
            return Verdict(state="unknown", module=module, why=why)
        unknown = next((verdict for verdict in verdicts if verdict.state == "unknown"), None)
        if found.is_open or unknown is not None:
            why = unknown.why if unknown is not None else f"{module} makes names that its source does not list"
            return Verdict(state="unknown", module=module, why=why)
        return Verdict(state="missing", module=module, missing=f"{module}.{name}")

    def _from_star(self, module: str, star: tuple[int, str], name: str, passed: set[str]) -> Verdict:
        level, target = star
        source = resolve(module, level, target, is_package=self.modules[module].endswith("/__init__.py"))
        if source in passed:
            return Verdict(state="missing", module=source)
        if source not in self.modules:
            return Verdict(state="unknown", module=source, why=f"{module} takes all names of {source}")
        exported = self._read(source)
        if exported is not None and exported.exported is not None and name not in exported.exported:
            return Verdict(state="missing", module=source)
        if exported is not None and exported.exported is None and name.startswith("_"):
            return Verdict(state="missing", module=source)
        return self._name(source, name, passed)

    def _read(self, module: str) -> Bindings | None:
        if module not in self._bindings:
            try:
                self._bindings[module] = bindings.read(parse(self._sources[self.modules[module]]))
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                self._bindings[module] = None
        return self._bindings[module]


def parse(source: bytes) -> ast.Module:
    """The tree of a file that a stranger wrote.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it is too large, or can't be parsed by this Python.
    """
    if len(source) > MOST:
        raise ValueError(f"it has more than {MOST} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in others' texts
        return ast.parse(source)


def _nearest(modules: Iterable[str], to: str) -> tuple[str, ...]:
    """Few modules: those that share most parts of their names with another one, and of these the shortest."""
    parts = set(to.split("."))
    order = {module: (-len(parts & set(module.split("."))), module.count("."), module) for module in modules}
    return tuple(sorted(order, key=lambda module: order[module])[:_SHOWN])


def resolve(module: str, level: int, target: str, *, is_package: bool) -> str:
    """The absolute name of ``from ..target import`` in a module."""
    if not level:
        return target
    parts = module.split(".")
    parts = parts[: len(parts) - level + (1 if is_package else 0)]
    return ".".join([*parts, target] if target else parts)
