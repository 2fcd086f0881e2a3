"""``audit`` of a lock that was changed by somebody who knows its format, and of a policy that was weakened with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import projects

from .test_hostile_lock import (
    EVIL,
    LOCAL,
    POINTS,
    Document,
    a_package_that_nobody_asked_for,
    an_evil_wheel_in_place_of_the_index_s,
    another_wheel_that_claims_to_be_built_from_an_sdist,
    another_wheel_that_claims_to_be_of_find_links,
    forge,
    honest,
    the_index_taken_out,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kit.advisory import Teller
    from tests.kit.index import Index
    from tests.kit.place import Completed, Place

__all__ = ["honest"]

IGNORE_ALL = "policy: {vulnerabilities: ignore, contradiction: ignore, orphan: ignore, local-wheel: ignore}\n"


def audit(place: Place, teller: Teller, *words: str, code: int) -> Any:
    env = {"PIP_INDEX_URL": teller.index_url}
    done: Completed = place.run("audit", "-q", "--json", "--service", teller.service, *words, env=env, check=False)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.json


def failures(document: Any) -> set[str]:
    return {item["check"] for item in document["findings"] if item["level"] == "fail"}


@pytest.mark.parametrize("attack", LOCAL, ids=lambda attack: attack.__name__)
def test_each_contradiction_is_a_finding_that_fails(
    honest: Place, index: Index, teller: Teller, attack: Callable[[Place, Index, Document], None]
) -> None:
    forge(honest, lambda document: attack(honest, index, document))
    assert failures(audit(honest, teller, "--offline", code=1)) & {"contradiction", "orphan", "local-wheel"}


@pytest.mark.parametrize(
    ("attack", "check"),
    [
        (a_package_that_nobody_asked_for, "orphan"),
        (an_evil_wheel_in_place_of_the_index_s, "local-wheel"),
        (another_wheel_that_claims_to_be_of_find_links, "local-wheel"),
        (another_wheel_that_claims_to_be_built_from_an_sdist, "local-wheel"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_orphans_and_wheels_of_another_origin_have_checks_of_their_own(
    honest: Place, index: Index, teller: Teller, attack: Callable[[Place, Index, Document], None], check: str
) -> None:
    forge(honest, lambda document: attack(honest, index, document))
    assert failures(audit(honest, teller, code=1)) == {check}


def test_advisories_are_looked_up_whatever_the_lock_says_of_the_index(
    honest: Place, index: Index, teller: Teller
) -> None:
    teller.vulnerable("helper", "PYSEC-2026-1")
    assert failures(audit(honest, teller, code=1)) == {"vulnerabilities"}
    forge(honest, lambda document: the_index_taken_out(honest, index, document))
    teller.asked.clear()
    assert failures(audit(honest, teller, code=1)) == {"vulnerabilities"}
    assert sorted(teller.asked) == ["helper", "tiny"]  # and not the plugin from a directory


def test_what_is_not_looked_at_did_not_run(honest: Place, index: Index, teller: Teller) -> None:
    forge(honest, lambda document: another_wheel_that_claims_to_be_of_find_links(honest, index, document))
    document = audit(honest, teller, "--require", "changed", code=1)
    missed = {(item["check"], item["package"], item["why"], item["required"]) for item in document["not_run"]}
    assert ("vulnerabilities", "tiny", "it comes from a directory, and its name stays here", False) in missed
    assert ("changed", "tiny", "it comes from a directory of find-links", True) in missed


def test_a_required_check_can_not_be_ignored(honest: Place, teller: Teller) -> None:
    teller.vulnerable("helper", "PYSEC-2026-1")
    text = honest.manifest.read_text(encoding="utf-8")
    honest.manifest.write_text(f"{text}\n{IGNORE_ALL}", encoding="utf-8")
    assert failures(audit(honest, teller, code=0)) == set()
    assert failures(audit(honest, teller, "--require", "vulnerabilities", code=1)) == {"vulnerabilities"}
    required = IGNORE_ALL.replace("}", ", required: [vulnerabilities]}")
    honest.manifest.write_text(f"{text}\n{required}", encoding="utf-8")
    assert failures(audit(honest, teller, code=1)) == {"vulnerabilities"}


def test_the_policy_of_the_base_branch_counts(honest: Place, index: Index, teller: Teller) -> None:
    teller.vulnerable("helper", "PYSEC-2026-1")
    before = honest.root / "base.yaml"
    before.write_text(honest.manifest.read_text(encoding="utf-8"), encoding="utf-8")
    honest.manifest.write_text(f"{before.read_text(encoding='utf-8')}\n{IGNORE_ALL}", encoding="utf-8")
    forge(honest, lambda document: a_package_that_nobody_asked_for(honest, index, document))
    assert failures(audit(honest, teller, code=0)) == set()
    document = audit(honest, teller, "--policy", str(before), code=1)
    assert failures(document) == {"vulnerabilities", "orphan"}
    changed = [item for item in document["findings"] if item["check"] == "policy-changed"]
    assert [item["level"] for item in changed] == ["warn"]
    done = honest.run("audit", "--policy", "missing.yaml", check=False)
    assert done.returncode == 2


def test_a_lock_of_another_manifest_is_a_finding(honest: Place, teller: Teller) -> None:
    honest.pypi("tiny")
    assert failures(audit(honest, teller, code=1)) == {"contradiction"}


def test_a_file_that_was_added_to_an_old_release_is_young(honest: Place, index: Index, teller: Teller) -> None:
    points, requires = POINTS, ["helper>=1"]
    added = projects.wheel(
        honest.root, "tiny", "2.0", tag="py2.py3-none-any", modules=EVIL, entry_points=points, requires=requires
    )
    index.add(added)
    honest.run("lock", "--upgrade")
    old, new = sorted(item["name"] for item in honest.package("tiny")["wheels"])
    teller.files[new] = {"upload-time": "2020-01-01T00:00:00Z"}
    teller.files[old] = {"upload-time": "2999-01-01T00:00:00Z"}
    document = audit(honest, teller, code=0)
    assert ("young", "tiny") in {(item["check"], item["package"]) for item in document["findings"]}
