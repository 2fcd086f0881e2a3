"""``policy:`` of plugins.yaml: whether a finding of an audit fails, warns or is ignored.

The policy has no influence on the installed packages. So it is not part of the manifest's meaning, and a change of it
leaves the lock up to date.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Literal, get_args

from yaml.nodes import MappingNode, SequenceNode

from vllm_plugins.documents._manifest import rules
from vllm_plugins.documents._manifest.rules import quoted
from vllm_plugins.documents._yaml import Fields, describe, did_you_mean
from vllm_plugins.documents.git_url_forms import NAME
from vllm_plugins.startup import Record

if TYPE_CHECKING:
    from yaml.nodes import Node

    from vllm_plugins.documents._yaml import Problems

__all__ = ["CHECKS", "Accepted", "Level", "Policy", "read"]

Level = Literal["fail", "warn", "ignore"]

# Every check of an audit, with the level of its findings unless the policy sets another.
CHECKS: dict[str, Level] = {
    "vulnerabilities": "fail",
    "changed": "fail",
    "yanked": "fail",
    "unhashed": "fail",
    "contradiction": "fail",
    "orphan": "fail",
    "local-wheel": "fail",
    "override": "warn",
    "policy-changed": "warn",
    "attestation": "fail",
    "publisher": "fail",
    "license": "warn",
    "young": "warn",
    "no-wheel": "warn",
    "no-entry-point": "warn",
    "moved-ref": "warn",
    "no-attestation": "ignore",
}
_OTHERS = (
    "required",
    "min-age-days",
    "min-age-exempt",
    "allowed-licenses",
    "denied-licenses",
    "accepted",
    "variables",
)
ORIGIN = re.compile(r"https?://[^/?#@$\s\\]+")  # scheme, host and port
_MIN_AGE_DAYS = 7


class Accepted(Record):
    """An advisory that was reviewed and accepted. After ``until`` it counts again."""

    id: str
    reason: str
    until: date | None = None


class Policy(Record):
    """The levels of an audit's findings, and the values that its checks compare with.

    ``required`` checks must have run. A release younger than ``min_age_days`` is ``young``. If the manifest says how
    many days, they are also ``cooldown_days``, and the release is not locked. ``min_age_exempt`` distributions may be
    of any age. Licences are SPDX expressions (PEP 639) or the texts of older metadata; an empty ``allowed_licenses``
    allows every licence that is not denied. ``variables`` may be logins in the URLs of git plugins, each at these
    hosts, for a review with this policy.
    """

    levels: tuple[tuple[str, Level], ...] = ()
    required: tuple[str, ...] = ()
    min_age_days: int = _MIN_AGE_DAYS
    cooldown_days: int = 0
    min_age_exempt: tuple[str, ...] = ()
    allowed_licenses: tuple[str, ...] = ()
    denied_licenses: tuple[str, ...] = ()
    accepted: tuple[Accepted, ...] = ()
    variables: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def level(self, check: str) -> Level:
        """The level of the findings of a check."""
        return dict(self.levels).get(check, CHECKS[check])

    def accepts(self, ids: tuple[str, ...], today: date) -> Accepted | None:
        """The acceptance of an advisory, by any of its identifiers, if it has not expired."""
        return next(
            (item for item in self.accepted if item.id in ids and (item.until is None or today <= item.until)), None
        )


def read(node: Node, problems: Problems) -> Policy:
    """The policy in a node; its problems are added to ``problems``."""
    if not isinstance(node, MappingNode):
        problems.add(node, "policy", f"expected a mapping such as `yanked: warn`, found {describe(node)}")
        return Policy()
    fields = Fields(node, "policy", problems)
    fields.unknown((*CHECKS, *_OTHERS))
    levels: list[tuple[str, Level]] = []
    for check in CHECKS:
        word = fields.text(check, _level)
        levels += [(check, level) for level in get_args(Level) if level == word]
    days = fields.number("min-age-days", default=_MIN_AGE_DAYS)
    return Policy(
        levels=tuple(levels),
        required=fields.texts("required", _check),
        min_age_days=days,
        cooldown_days=days if fields.node_of("min-age-days") is not None else 0,
        min_age_exempt=fields.texts("min-age-exempt", rules.package),
        allowed_licenses=fields.texts("allowed-licenses"),
        denied_licenses=fields.texts("denied-licenses"),
        accepted=_accepted(fields, problems),
        variables=_variables(fields, problems),
    )


def _accepted(fields: Fields, problems: Problems) -> tuple[Accepted, ...]:
    node = fields.node_of("accepted")
    if node is None:
        return ()
    if not isinstance(node, SequenceNode):
        fields.problem("accepted", f"expected a list of advisories, each with id and reason, found {describe(node)}")
        return ()
    found = []
    for number, item in enumerate(node.value):
        where = f"policy.accepted[{number}]"
        if not isinstance(item, MappingNode):
            problems.add(item, where, f"expected a mapping with id and reason, found {describe(item)}")
            continue
        inner = Fields(item, where, problems)
        inner.unknown(("id", "reason", "until"))
        name = inner.text("id", required="the identifier of an advisory, such as CVE-2026-1234")
        reason = inner.text("reason", required="the reason why this advisory is harmless here")
        until = inner.text("until", _date)
        if name and reason:
            day = date.fromisoformat(until) if until else None
            found.append(Accepted(id=name, reason=reason, until=day))
    return tuple(found)


def _variables(fields: Fields, problems: Problems) -> tuple[tuple[str, tuple[str, ...]], ...]:
    node = fields.node_of("variables")
    if node is None:
        return ()
    if not isinstance(node, MappingNode):
        what = f"expected a mapping of variables to lists of hosts, found {describe(node)}"
        fields.problem("variables", f"{what}; write it as in `GIT_TOKEN: [https://git.example.org]`")
        return ()
    inner = Fields(node, "policy.variables", problems)
    for name in inner.fields:
        if not NAME.fullmatch(name):
            inner.problem(name, f"{quoted(name)} is not the name of an environment variable")
    return tuple((name, inner.texts(name, _host)) for name in inner.fields)


def _host(text: str) -> str | None:
    if ORIGIN.fullmatch(text):
        return None
    return f"{quoted(text)} is not a host with its scheme; expected https://host, without a login or a path"


def _level(text: str) -> str | None:
    levels = get_args(Level)
    if text in levels:
        return None
    return f"expected {', '.join(levels[:-1])} or {levels[-1]}, found {quoted(text)}{did_you_mean(text, [*levels])}"


def _check(text: str) -> str | None:
    return None if text in CHECKS else f"{quoted(text)} is not a check{did_you_mean(text, [*CHECKS])}"


def _date(text: str) -> str | None:
    try:
        date.fromisoformat(text)
    except ValueError:
        return f"expected a date such as 2026-12-31, found {quoted(text)}"
    return None
