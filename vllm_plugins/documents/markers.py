"""Environment markers (PEP 508) that a lock keeps: the parts that its targets don't decide already.

A target fixes the minor Python version and the operating system. Markers on other variables, such as
``python_full_version`` or ``platform_machine``, may evaluate differently on another machine of the same target. A
:data:`Condition` is the rest of a marker after everything that the target fixes was evaluated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.markers import Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.version import InvalidVersion

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

__all__ = [
    "ALWAYS",
    "NEVER",
    "Comparison",
    "Condition",
    "TooComplexError",
    "applies",
    "both",
    "condition",
    "either",
    "exactly",
    "excluding",
    "holds",
    "text",
    "variables",
]

# Every other variable has one value for all machines of a target.
FINE = ("python_full_version", "implementation_version", "platform_machine", "platform_release", "platform_version")
# Text, and how it is compared.
_TEXT = (
    "implementation_name",
    "os_name",
    "platform_machine",
    "platform_python_implementation",
    "platform_system",
    "platform_version",
    "sys_platform",
)
_OF_TEXT = ("==", "!=", "===", "in", "not in")
_LIMIT = 64  # alternatives; a distribution has a few
_TOKEN = re.compile(r"""\s*(\(|\)|"[^"]*"|'[^']*'|[<>=!~]+|not\s+in\b|[A-Za-z_.]+)""")
_OPPOSITE = {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "==": "!=", "!=": "==", "in": "not in", "not in": "in"}


class TooComplexError(Exception):
    """The markers have too many alternatives, or no opposite that a marker can express."""


@dataclass(frozen=True, order=True, slots=True)
class Comparison:
    """One comparison of a marker, its sides as they are written."""

    left: str
    operator: str
    right: str

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right}"

    @property
    def variable(self) -> str:
        """The variable on one of the two sides."""
        return self.left if self.left[:1] not in ("'", '"') else self.right

    def holds(self, environment: Mapping[str, str]) -> bool:
        """Evaluate it. A comparison without a meaning, such as ``platform_machine ~= "x"``, is false, as for uv.

        Releases of packaging differ in the text that they take for a version, so text is compared here.
        """
        if self.variable in _TEXT and self.operator not in _OF_TEXT:
            return False
        try:
            return Marker(str(self)).evaluate(dict(environment))
        except (UndefinedComparison, UndefinedEnvironmentName):
            return False
        except InvalidVersion:
            left, right = (environment.get(side, side.strip("'\"")) for side in (self.left, self.right))
            return {"==": left == right, "===": left == right, "!=": left != right}.get(self.operator, False)

    def negated(self) -> Comparison:
        """The opposite comparison."""
        if self.operator not in _OPPOSITE:
            raise TooComplexError(self.operator)
        return Comparison(self.left, _OPPOSITE[self.operator], self.right)


# Alternatives, each a set of comparisons that must all hold.
Condition = frozenset[frozenset[Comparison]]
ALWAYS: Condition = frozenset({frozenset()})
NEVER: Condition = frozenset()


def condition(marker: str, environment: Mapping[str, str], extras: Iterable[str] = ()) -> Condition:
    """What is left of a marker for machines like ``environment``, with any of these extras or none.

    Raises:
        TooComplexError: it has too many alternatives.
    """
    found = NEVER
    for extra in ("", *extras):
        found = either(found, _Parser(str(Marker(marker)), {**environment, "extra": extra}).parse())
    return found


def either(first: Condition, second: Condition) -> Condition:
    """The condition that holds if one of the two does."""
    return _simplest(first | second)


def both(first: Condition, second: Condition) -> Condition:
    """The condition that holds if the two do."""
    return _simplest(one | other for one in first for other in second)


def holds(condition: Condition, environment: Mapping[str, str]) -> bool:
    """Evaluate a condition."""
    return any(all(comparison.holds(environment) for comparison in term) for term in condition)


def text(condition: Condition) -> str | None:
    """The condition as a marker; ``None`` if it always holds."""
    if condition == ALWAYS:
        return None
    terms = sorted(sorted(term) for term in condition)
    return _joined([_joined(map(str, term), "and", nested=len(terms) > 1) for term in terms], "or")


def excluding(conditions: Iterable[Condition]) -> str | None:
    """The marker of the environments in which none of these conditions holds; ``None`` if there are no conditions.

    Raises:
        TooComplexError: a comparison has no opposite, or there are too many.
    """
    clauses = {
        frozenset(comparison.negated() for comparison in term) for condition in conditions for term in condition
    }
    clauses = {clause for clause in clauses if not any(other < clause for other in clauses)}
    if len(clauses) > _LIMIT:
        raise TooComplexError(f"{len(clauses)} clauses")
    ordered = sorted(sorted(clause) for clause in clauses)
    return _joined([_joined(map(str, clause), "or", nested=len(ordered) > 1) for clause in ordered], "and") or None


def exactly(names: Iterable[str], environment: Mapping[str, str]) -> str | None:
    """The marker of environments that have the same values of these variables as this one."""
    return " and ".join(f'{name} == "{environment[name]}"' for name in sorted(set(names))) or None


def variables(marker: str) -> set[str]:
    """The variables of a marker that a target does not fix."""
    return {name for name in FINE if re.search(rf"\b{name}\b", marker)}


def applies(marker: str | None, environment: Mapping[str, str]) -> bool:
    """Whether a marker of a lock, if there is one, holds in an environment."""
    if marker is None:
        return True
    parser = _Parser(str(Marker(marker)), {"extra": "", **environment}, keep=())
    return parser.parse() == ALWAYS


def _simplest(terms: Iterable[frozenset[Comparison]]) -> Condition:
    every = set(terms)
    if len(every) > _LIMIT * _LIMIT:
        raise TooComplexError(f"{len(every)} alternatives")
    fewest = frozenset(term for term in every if not any(other < term for other in every))
    if len(fewest) > _LIMIT:
        raise TooComplexError(f"{len(fewest)} alternatives")
    return fewest


def _joined(parts: Iterable[str], word: str, *, nested: bool = False) -> str:
    every = list(parts)
    joined = f" {word} ".join(every)
    return f"({joined})" if nested and len(every) > 1 else joined


class _Parser:
    """Reads a marker in the form that ``str(Marker)`` has, and evaluates all but the variables to ``keep``."""

    def __init__(self, marker: str, environment: Mapping[str, str], *, keep: Collection[str] = FINE) -> None:
        self.tokens = list(_tokens(marker))
        self.environment = environment
        self.keep = keep

    def parse(self) -> Condition:
        found = self._either()
        if self.tokens:
            raise TooComplexError(f"unexpected {self.tokens[0]}")
        return found

    def _either(self) -> Condition:
        found = self._both()
        while self._accept("or"):
            found = either(found, self._both())
        return found

    def _both(self) -> Condition:
        found = self._one()
        while self._accept("and"):
            found = both(found, self._one())
        return found

    def _one(self) -> Condition:
        if self._accept("("):
            found = self._either()
            if not self._accept(")"):
                raise TooComplexError("expected )")
            return found
        if len(self.tokens) < 3:
            raise TooComplexError("expected a comparison")
        left, operator, right = self.tokens[:3]
        del self.tokens[:3]
        comparison = Comparison(left, operator, right)
        if comparison.variable in self.keep:
            return frozenset({frozenset({comparison})})
        return ALWAYS if comparison.holds(self.environment) else NEVER

    def _accept(self, token: str) -> bool:
        if self.tokens[:1] == [token]:
            del self.tokens[0]
            return True
        return False


def _tokens(marker: str) -> Iterator[str]:
    position = 0
    while position < len(marker):
        found = _TOKEN.match(marker, position)
        if found is None:
            raise TooComplexError(f"unexpected {marker[position : position + 20]!r}")
        yield " ".join(found[1].split()) if found[1].startswith("not") else found[1]
        position = found.end()
