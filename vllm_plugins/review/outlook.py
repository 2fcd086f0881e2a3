"""Whether plugins can be loaded by another release of vLLM, as far as their source and its wheel tell.

Nothing is imported. Every name that a plugin imports from vLLM is looked up in the files of the release: it is there,
missing, defined elsewhere now, or unknown. What is only bound when code runs, such as methods, is not compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vllm_plugins.review._outlook import references
from vllm_plugins.review._outlook.context import ORDER, When
from vllm_plugins.review._outlook.release import PACKAGE, Release, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from vllm_plugins.packages.wheel_files import WheelFiles
    from vllm_plugins.review._outlook.references import Edge, Reference, References

__all__ = ["Finding", "Outlook", "Release", "When", "examine", "release_of"]

_MOST = 32 << 20  # bytes of a plugin's files that are parsed, also those that are read again
_ROUNDS = 16  # functions that call one another while vLLM starts; few plugins have three
_CALL, _GUARDED = ORDER.index("call"), ORDER.index("guarded")
_CALLED = ("vllm.general_plugins", "vllm.platform_plugins")  # vLLM calls these when it starts


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A name that the release does not have (``missing``, ``moved``), or of which nothing is known (``unknown``).

    ``when`` is when the plugin needs it (see ``Reference``), ``where`` its files and lines. ``moved_to`` are modules
    that define the name now.
    """

    kind: Literal["missing", "moved", "unknown"]
    name: str
    when: When
    where: tuple[str, ...]
    moved_to: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What was found for one plugin. ``names`` counts what it imports from vLLM; ``unread`` files can't be parsed."""

    findings: tuple[Finding, ...]
    names: int
    unread: tuple[str, ...] = ()

    @property
    def verdict(self) -> Literal["breaks", "may break", "fits"]:
        """``breaks``: a name is missing that is needed when vLLM starts; ``may break``: one that is needed later."""
        gone = {finding.when for finding in self.findings if finding.kind != "unknown"}
        return "breaks" if "load" in gone else "may break" if "call" in gone else "fits"


def release_of(files: WheelFiles) -> Release:
    """The release of vLLM whose wheel has these files."""
    return Release(files.names, files.sources)


def examine(files: WheelFiles, points: Iterable[tuple[str, str]], release: Release) -> Outlook:
    """Look up every name of vLLM that a plugin imports.

    ``points`` are the groups and values of its entry points; other objects that vLLM loads have the group ``""``.
    """
    plugin = _Plugin(files, tuple(points))
    levels = plugin.levels()
    known: dict[tuple[str, tuple[str, ...]], Verdict] = {}
    found: dict[tuple[str, str], tuple[int, list[str], Verdict, Reference]] = {}
    for key in {(item.module, item.chain) for read in plugin.read.values() for item in read.vllm}:
        known[key] = release.look_up(*key)
    gone = {
        module: [item for item in _needed(read, known) if known[item.module, item.chain].state != "present"]
        for module, read in plugin.read.items()
    }
    failing = plugin.importing(module for module, items in gone.items() if any(item.when == "load" for item in items))
    for module, items in gone.items():
        level = levels.get(module, _CALL)
        for reference in items:
            verdict = known[reference.module, reference.chain]
            when = ORDER.index(reference.when)
            # A plugin that handles the failure of an import does not handle what fails later in such a module.
            is_handled = level == _GUARDED and when == _CALL and module not in failing
            certainty = when if is_handled else max(level, when)
            name = _name(reference, verdict)
            place = f"{plugin.modules[module]}:{reference.line}"
            before = found.get((verdict.state, name))
            if before is None:
                found[verdict.state, name] = (certainty, [place], verdict, reference)
            else:
                found[verdict.state, name] = (min(certainty, before[0]), [*before[1], place], verdict, before[3])
    findings = [_finding(*parts, release=release) for parts in found.values()]
    order = {"missing": 0, "moved": 0, "unknown": 1}
    findings.sort(key=lambda item: (order[item.kind], ORDER.index(item.when), item.name))
    return Outlook(findings=tuple(findings), names=len(known), unread=tuple(plugin.unread))


def _needed(read: References, known: Mapping[tuple[str, tuple[str, ...]], Verdict]) -> Iterator[Reference]:
    """The references of a file that run, in its order: those of a handler only if its ``try`` runs and fails."""
    failed: set[int | None] = {None}
    for item in read.vllm:
        bound = known.get((item.module, item.imported)) if item.imported is not None else None
        if item.instead_of not in failed or (bound is not None and bound.state == "missing"):
            continue  # what could not be imported is not used
        if known[item.module, item.chain].state != "present":
            failed.add(item.attempt)
        yield item


def _finding(
    certainty: int, places: list[str], verdict: Verdict, reference: Reference, *, release: Release
) -> Finding:
    moved: tuple[str, ...] = ()
    name = _name(reference, verdict)
    if verdict.state == "missing":
        moved = release.places_of(name) if reference.chain else release.modules_called(name)
    return Finding(
        kind="unknown" if verdict.state == "unknown" else "moved" if moved else "missing",
        name=name,
        when=ORDER[certainty],
        where=tuple(dict.fromkeys(places)),
        moved_to=moved,
        why=verdict.why,
    )


def _name(reference: Reference, verdict: Verdict) -> str:
    """What is missing or unknown; of a missing module, the name that is imported from it."""
    if verdict.missing and verdict.missing != verdict.module:
        return verdict.missing
    return ".".join(
        (reference.module, *reference.chain[:1]) if verdict.missing else (reference.module, *reference.chain)
    )


class _Plugin:
    """The modules of a plugin, and what each refers to."""

    def __init__(self, files: WheelFiles, points: tuple[tuple[str, str], ...]) -> None:
        self._points = points
        self.modules = {
            path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path
            for path in files.sources
            if ".dist-info/" not in path and ".data/" not in path
        }
        own = {name.partition(".")[0] for name in self.modules} - {PACKAGE}
        called: dict[str, set[str]] = {}
        for group, value in points:
            module, _, attribute = value.partition("[")[0].strip().partition(":")
            called.setdefault(module, set()).update({attribute.partition(".")[0]} if group in _CALLED else ())
        self._entries = tuple(called)
        self.unread: list[str] = []
        self.read: dict[str, References] = {}
        self._left = _MOST
        pending = set(self.modules)
        for _ in range(_ROUNDS):
            for module in sorted(pending):
                self._read(module, files.sources[self.modules[module]], own, called.get(module, set()))
            pending = self._newly_called(called)

    def _read(self, module: str, source: bytes, own: Collection[str], called: Collection[str]) -> None:
        path = self.modules[module]
        self._left -= len(source)
        if self._left < 0:
            if module not in self.read:  # else what was read at first counts
                self.unread.append(path)
            return
        try:
            self.read[module] = references.read(
                source, module, is_package=path.endswith("/__init__.py"), own=own, called=called
            )
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            self.unread.append(path)

    def _newly_called(self, called: dict[str, set[str]]) -> set[str]:
        """The modules of functions that turn out to be called while vLLM starts; they are read again."""
        levels = self.levels()
        found = set()
        for module, read in list(self.read.items()):
            for target, function in read.calls if levels.get(module) == 0 else ():
                if target in self.read and function not in called.setdefault(target, set()):
                    called[target].add(function)
                    found.add(target)
        return found

    def levels(self) -> dict[str, int]:
        """How certain it is that a module is imported when vLLM starts, as a position in ``ORDER``."""
        levels: dict[str, int] = {}
        pending: list[list[str]] = [[] for _ in ORDER]
        pending[0] += self._entries
        for level, waiting in enumerate(pending):
            for module in waiting:  # the list grows during the loop
                if module in levels or module not in self.modules:
                    continue
                levels[module] = level
                pending[level] += _parents(module)
                for edge in self.read[module].edges if module in self.read else ():
                    pending[max(level, ORDER.index(edge.when))] += self._targets(edge)
        return levels

    def importing(self, modules: Iterable[str]) -> set[str]:
        """These modules, and those that import one of them while they are imported."""
        found = set(modules)
        for _ in self.modules:
            more = {
                module
                for module, read in self.read.items()
                if any(edge.when == "load" and not found.isdisjoint(self._targets(edge)) for edge in read.edges)
            }
            if more <= found:
                break
            found |= more
        return found

    def _targets(self, edge: Edge) -> Iterator[str]:
        yield edge.module
        yield from _parents(edge.module)
        yield from (inner for name in edge.names if (inner := f"{edge.module}.{name}") in self.modules)


def _parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))
