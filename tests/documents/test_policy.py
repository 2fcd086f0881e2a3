"""`policy:` of plugins.yaml, as an audit uses it."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.kit import values
from vllm_plugins.core.errors import ManifestError
from vllm_plugins.core.progress import SILENT
from vllm_plugins.documents import manifest, policy
from vllm_plugins.documents.policy import Accepted, Policy
from vllm_plugins.review import audit

PATH = Path("plugins.yaml")


def read(text: str) -> Policy:
    return manifest.parse(f"plugins: []\npolicy: {text}\n".encode(), PATH).policy


def test_each_problem_of_the_accepted_advisories_is_reported() -> None:
    text = "{accepted: [CVE-1, {id: CVE-2}, {reason: x}, {id: CVE-3, reason: x, until: soon}]}"
    with pytest.raises(ManifestError) as caught:
        read(text)
    assert [line.split(": ")[1] for line in caught.value.details] == [
        "policy.accepted[0]", "policy.accepted[1].reason", "policy.accepted[2].id", "policy.accepted[3].until",
    ]  # fmt: skip


def refused(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        read(text)
    (problem,) = caught.value.details
    return problem


def test_without_a_policy_each_check_has_its_own_level() -> None:
    found = manifest.parse(b"plugins: []\n", PATH).policy
    assert found == Policy()
    assert {check: found.level(check) for check in policy.CHECKS} == policy.CHECKS
    assert found.min_age_days == 7


def test_what_shows_an_attack_fails_unless_a_policy_says_otherwise() -> None:
    levels = dict(policy.CHECKS)
    assert {check for check, level in levels.items() if level == "fail"} == {
        *("vulnerabilities", "changed", "yanked", "unhashed", "contradiction", "orphan", "local-wheel"),
        *("attestation", "publisher"),
    }
    assert [check for check, level in levels.items() if level == "ignore"] == ["no-attestation"]
    assert set(levels.values()) == {"fail", "warn", "ignore"}


def test_only_a_policy_that_says_an_age_keeps_the_resolver_from_younger_releases() -> None:
    assert (read("{yanked: warn}").min_age_days, read("{yanked: warn}").cooldown_days) == (7, 0)
    found = read("{min-age-days: 14, min-age-exempt: [tiny, other]}")
    assert (found.min_age_days, found.cooldown_days, found.min_age_exempt) == (14, 14, ("tiny", "other"))
    assert refused("{min-age-exempt: ['no name']}").startswith("line 2: policy.min-age-exempt[0]: ")


def test_every_key_of_a_policy_is_read() -> None:
    found = read(
        "{yanked: ignore, young: fail, license: warn, required: [vulnerabilities, young], min-age-days: 0,"
        " allowed-licenses: [MIT], denied-licenses: [GPL-3.0-only],"
        " accepted: [{id: CVE-1, reason: not reachable, until: '2026-12-31'}, {id: CVE-2, reason: fixed here}]}"
    )
    assert found == Policy(
        levels=(("yanked", "ignore"), ("license", "warn"), ("young", "fail")),
        required=("vulnerabilities", "young"),
        min_age_days=0,
        allowed_licenses=("MIT",),
        denied_licenses=("GPL-3.0-only",),
        accepted=(
            Accepted(id="CVE-1", reason="not reachable", until=date(2026, 12, 31)),
            Accepted(id="CVE-2", reason="fixed here"),
        ),
    )
    assert (found.level("yanked"), found.level("young"), found.level("unhashed")) == ("ignore", "fail", "fail")


def test_a_policy_is_no_part_of_the_meaning_of_a_manifest() -> None:
    without = manifest.parse(b"plugins: []\n", PATH)
    assert manifest.parse(b"plugins: []\npolicy: {yanked: warn}\n", PATH).sha256 == without.sha256


@pytest.mark.parametrize("check", policy.CHECKS)
@pytest.mark.parametrize("level", ["fail", "warn", "ignore"])
def test_each_check_may_have_each_level(check: str, level: str) -> None:
    assert read(f"{{{check}: {level}}}").level(check) == level


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a]", "policy: expected a mapping such as `yanked: warn`, found a list"),
        ("{yanked: warm}", "policy.yanked: expected fail, warn or ignore, found 'warm'; did you mean warn?"),
        ("{yanked: error}", "policy.yanked: expected fail, warn or ignore, found 'error'"),
        ("{yankd: warn}", "policy.yankd: unknown key; did you mean yanked?"),
        ("{required: [yankd]}", "policy.required[0]: 'yankd' is not a check; did you mean yanked?"),
        ("{required: [min-age-days]}", "policy.required[0]: 'min-age-days' is not a check"),
        ("{min-age-days: -1}", "policy.min-age-days: expected a whole number from 0 to 99999, found the number -1"),
        ("{min-age-days: 100000}", "policy.min-age-days: expected a whole number from 0 to 99999, found the number 100000"),
        ("{allowed-licenses: MIT}", "policy.allowed-licenses: expected a list of strings, found the text 'MIT'; write [MIT]"),
        ("{denied-licenses: [' ']}", "policy.denied-licenses[0]: ' ' begins or ends with a space; remove it"),
        ("{allowed-licenses: ['']}", "policy.allowed-licenses[0]: expected a string, found an empty one; write a value or remove the key"),
        ("{accepted: CVE-1}", "policy.accepted: expected a list of advisories, each with id and reason, found the text 'CVE-1'"),
        ("{accepted: [CVE-1]}", "policy.accepted[0]: expected a mapping with id and reason, found the text 'CVE-1'"),
        ("{accepted: [{reason: x}]}", "policy.accepted[0].id: missing; expected the identifier of an advisory, such as CVE-2026-1234"),
        ("{accepted: [{id: CVE-1}]}", "policy.accepted[0].reason: missing; expected the reason why this advisory is harmless here"),
        ("{accepted: [{id: CVE-1, reason: x, untill: '2026-12-31'}]}", "policy.accepted[0].untill: unknown key; did you mean until?"),
        ("{accepted: [{id: CVE-1, reason: x, until: soon}]}", "policy.accepted[0].until: expected a date such as 2026-12-31, found 'soon'"),
        ("{accepted: [{id: CVE-1, reason: x, until: '2026-13-01'}]}", "policy.accepted[0].until: expected a date such as 2026-12-31, found '2026-13-01'"),
    ],
)  # fmt: skip
def test_another_policy_is_refused_with_its_place(text: str, problem: str) -> None:
    assert refused(text) == f"line 2: {problem}"


@pytest.mark.parametrize(
    ("ids", "today", "accepted"),
    [
        (("CVE-1",), date(2026, 12, 30), True),
        (("CVE-1",), date(2026, 12, 31), True),
        (("CVE-1",), date(2027, 1, 1), False),
        (("GHSA-x", "CVE-1"), date(2026, 1, 1), True),
        (("CVE-2",), date(2099, 1, 1), True),
        (("CVE-3",), date(2026, 1, 1), False),
        (("cve-1", "CVE-11", ""), date(2026, 1, 1), False),
        ((), date(2026, 1, 1), False),
    ],
)
def test_an_advisory_is_accepted_by_any_of_its_names_until_a_day(
    ids: tuple[str, ...], today: date, accepted: bool
) -> None:
    items = (Accepted(id="CVE-1", reason="a", until=date(2026, 12, 31)), Accepted(id="CVE-2", reason="b"))
    found = Policy(accepted=items).accepts(ids, today)
    assert (found is not None) is accepted
    assert found is None or found.id in ids


def test_an_acceptance_that_has_expired_does_not_hide_a_later_one() -> None:
    items = tuple(Accepted(id="CVE-1", reason=str(year), until=date(year, 1, 1)) for year in (2025, 2027))
    assert Policy(accepted=items).accepts(("CVE-1",), date(2026, 1, 1)) == items[1]


def run(tmp_path: Path, text: str, **lock: Any) -> audit.Audit:
    """An audit without network, of a lock with an editable plugin that it does not otherwise explain."""
    text = text.replace("{", "{contradiction: ignore, local-wheel: ignore, ", 1)
    package = values.package(wheels=(), directory="../tiny")
    no_index: Any = contextlib.nullcontext
    return audit.run(
        values.lock(package, **lock),
        read(text),
        None,
        values.settings(tmp_path).replace(offline=True),
        index=no_index,
        now=datetime(2026, 1, 1, tzinfo=UTC),
        reporter=SILENT,
    )


@pytest.mark.parametrize(("level", "fails"), [("fail", True), ("warn", False), ("ignore", False)])
def test_the_level_of_a_check_decides_whether_an_audit_fails(tmp_path: Path, level: str, fails: bool) -> None:
    found = run(tmp_path, f"{{unhashed: {level}}}")
    levels = [item.level for item in found.findings if item.check == "unhashed"]
    assert levels == ([] if level == "ignore" else [level])
    assert found.fails is fails


def test_a_check_that_is_required_and_could_not_run_fails_the_audit(tmp_path: Path) -> None:
    found = run(tmp_path, "{unhashed: ignore}")
    assert [item.check for item in found.not_run if item.demanded] == []
    assert not found.fails
    found = run(tmp_path, "{unhashed: ignore, required: [vulnerabilities]}")
    assert [item.check for item in found.not_run if item.demanded] == ["vulnerabilities"]
    assert found.fails


def test_variables_have_hosts_with_their_schemes() -> None:
    found = read("{variables: {GIT_TOKEN: ['https://git.example.org', 'http://127.0.0.1:8080'], OTHER: []}}")
    assert found.variables == (("GIT_TOKEN", ("https://git.example.org", "http://127.0.0.1:8080")), ("OTHER", ()))


@pytest.mark.parametrize(
    "host", ["git.example.org", "https://git.example.org/", "https://a@b", "ssh://a", "https://$A", "https://a b"]
)
def test_what_is_not_a_host_is_not_allowed_for_a_variable(host: str) -> None:
    problem = refused(f"{{variables: {{GIT_TOKEN: ['{host}']}}}}")
    assert problem.startswith("line 2: policy.variables.GIT_TOKEN[0]: ")
    assert "is not a host with its scheme; expected https://host" in problem


def test_what_is_not_a_variable_has_no_hosts() -> None:
    assert "'1A' is not the name of an environment variable" in refused("{variables: {1A: ['https://a']}}")
    assert "expected a mapping of variables to lists of hosts" in refused("{variables: [GIT_TOKEN]}")
