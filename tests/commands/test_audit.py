from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import projects
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from tests.kit.advisory import Teller
    from tests.kit.index import Index
    from tests.kit.place import Completed, Place
    from tests.kit.templates import Templates

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
OLD = "2020-01-01T00:00:00Z"


@pytest.fixture
def locked(place: Place, index: Index, teller: Teller, templates: Templates) -> Place:
    """A lock of one plugin from the index, which has been there for long."""

    def make() -> None:
        index.wheel("tiny", entry_points=POINTS, modules={"tiny.py": "def register(): pass\n"})
        place.pypi("tiny")
        place.run("lock")

    teller.files["tiny-1.0-py3-none-any.whl"] = {"upload-time": OLD}
    return templates.fill(place, index, make)


def audit(place: Place, teller: Teller, *words: str, code: int | None = None) -> Completed:
    """Audited, with an index and an advisory service that tell."""
    env = {"PIP_INDEX_URL": teller.index_url}
    done = place.run("audit", "-q", "--service", teller.service, *words, env=env, check=False)
    assert code is None or done.returncode == code, (done.stdout, done.stderr)
    return done


def found(place: Place, teller: Teller, *words: str, code: int) -> dict[str, Any]:
    """The one finding, where missing licences do not count."""
    document = audit(place, teller, "--json", *words, code=code).json
    (finding,) = [item for item in document["findings"] if item["check"] != "license"]
    assert finding["package"] == "tiny" or words
    result: dict[str, Any] = finding
    return result


def policy(place: Place, text: str) -> None:
    place.manifest.write_text(
        f"plugins:\n  - {{name: tiny, source: pypi, package: tiny}}\npolicy:\n  license: ignore\n  {text}\n"
    )


def test_a_good_lock_has_no_findings(locked: Place, teller: Teller) -> None:
    policy(locked, "yanked: fail")
    done = audit(locked, teller, code=0)
    assert done.stdout == "1 plugin, 1 package: 0 failures, 0 warnings, 0 parts not run\n"
    assert teller.asked == ["tiny"]


def test_a_known_vulnerability_fails(locked: Place, teller: Teller) -> None:
    teller.vulnerable("tiny", "PYSEC-2026-1", aliases=("CVE-2026-1",), fixed="2.0")
    finding = found(locked, teller, code=1)
    assert finding == {
        "check": "vulnerabilities",
        "level": "fail",
        "package": "tiny",
        "version": "1.0",
        "required_by": ["tiny"],
        "what": finding["what"],
        "next_step": "vllm-plugins lock --upgrade-package tiny",
    }
    assert "PYSEC-2026-1" in finding["what"]
    assert "CVE-2026-1" in finding["what"]
    assert finding["what"].endswith("; fixed in 2.0")


@pytest.mark.parametrize(("until", "code"), [("2999-01-01", 0), ("2020-01-01", 1)])
def test_an_advisory_is_accepted_until_its_day(locked: Place, teller: Teller, until: str, code: int) -> None:
    teller.vulnerable("tiny", "PYSEC-2026-1", aliases=("CVE-2026-1",))
    policy(locked, f'accepted:\n    - {{id: CVE-2026-1, reason: not reached here, until: "{until}"}}')
    audit(locked, teller, code=code)


def test_an_advisory_service_that_can_not_be_reached_is_reported(locked: Place, teller: Teller) -> None:
    env = {"PIP_INDEX_URL": teller.index_url}
    words = ("audit", "-q", "--json", "--service", f"{teller.address}/v1/nothing-here-is-json\x7f")
    assert locked.run(*words[:-1], "http://127.0.0.1:9/v1/query", env=env).json["not_run"][0]["check"] == (
        "vulnerabilities"
    )
    done = locked.run(
        *words[:-1], "http://127.0.0.1:9/v1/query", "--require", "vulnerabilities", env=env, check=False
    )
    assert done.returncode == 1
    assert done.json["not_run"][0]["required"] is True


def test_offline_reports_checks_that_did_not_run(locked: Place, teller: Teller) -> None:
    done = audit(locked, teller, "--offline", code=0)
    assert teller.asked == []
    lines = [line for line in done.stdout.splitlines() if line.startswith("not run: ")]
    assert lines == [
        "not run: attestation, changed, no-attestation, vulnerabilities, yanked, young: offline",
        "not run: license: tiny: its wheel is not in plugins.wheels/",
    ]
    policy(locked, "required: [yanked]")
    assert "not run: yanked: offline (required)\n" in audit(locked, teller, "--offline", code=1).stdout
    demanded = audit(locked, teller, "--offline", "--require", "vulnerabilities", code=1)
    assert "not run: vulnerabilities, yanked: offline (required)\n" in demanded.stdout
    assert demanded.stdout.endswith("7 parts not run, 2 of them required\n")


def test_a_yanked_release_fails(locked: Place, index: Index, teller: Teller) -> None:
    (file,) = index.page("tiny")["files"]
    teller.files[file["filename"]]["yanked"] = "breaks everything"
    finding = found(locked, teller, code=1)
    assert (finding["check"], finding["what"]) == ("yanked", "was yanked from its index: breaks everything")
    policy(locked, "yanked: warn")
    assert found(locked, teller, code=0)["level"] == "warn"
    policy(locked, "yanked: ignore")
    assert audit(locked, teller, "--json", code=0).json["findings"] == []


def test_a_young_release_warns(locked: Place, index: Index, teller: Teller) -> None:
    (file,) = index.page("tiny")["files"]
    when = datetime.now(UTC) - timedelta(days=3, hours=1)
    teller.files[file["filename"]]["upload-time"] = when.isoformat()
    finding = found(locked, teller, code=0)
    assert finding["what"] == "was uploaded 3 days ago; the policy requires 7 days"
    policy(locked, "min-age-days: 3")
    assert audit(locked, teller, "--json", code=0).json["findings"] == []


def test_a_changed_file_at_the_index_fails(locked: Place, index: Index, teller: Teller) -> None:
    (file,) = index.page("tiny")["files"]
    index.wheel("tiny", modules={"tiny.py": "EVIL = 1\n"})
    finding = found(locked, teller, code=1)
    assert finding["check"] == "changed"
    assert finding["what"] == f"has another file at its index than the locked one: {file['filename']}"


def test_publishers_can_be_required_and_are_verified(locked: Place, index: Index, teller: Teller) -> None:
    (file,) = index.page("tiny")["files"]
    policy(locked, "no-attestation: fail")
    assert found(locked, teller, code=1)["what"] == f"has no attestation: {file['filename']}"
    publisher = {"kind": "GitHub", "repository": "someone/tiny", "workflow": "release.yml"}
    pytest.importorskip("pypi_attestations")
    teller.attest(file["filename"], file["hashes"]["sha256"], publisher)  # without a signature
    document = audit(locked, teller, "--json", code=1).json
    assert {item["check"] for item in document["findings"]} == {"attestation", "no-attestation"}
    assert document["facts"][0]["publishers"] == []


def test_denied_licences_are_found(place: Place, index: Index, teller: Teller) -> None:
    for name, license_ in (("free", "MIT OR GPL-3.0-only"), ("strict", "MIT AND GPL-3.0-only"), ("silent", "")):
        points = {"vllm.general_plugins": {name: f"{name}:register"}}
        wheel = index.wheel(name, entry_points=points, license=license_)
        teller.files[wheel.name] = {"upload-time": OLD}
    place.pypi("free", "strict", "silent")
    place.run("lock")
    place.manifest.write_text(
        f'{place.manifest.read_text()[:-1]}, "policy": {{"denied-licenses": ["GPL-3.0-only"]}}}}'
    )
    document = audit(place, teller, "--json", code=0).json
    assert [(item["package"], item["what"]) for item in document["findings"]] == [
        ("silent", "declares no licence"),
        ("strict", "is under MIT AND GPL-3.0-only, which the policy denies"),
    ]


def test_checks_of_the_lock_alone(place: Place, index: Index, teller: Teller) -> None:
    sdist = index.sdist("built", modules={"built.py": ""})
    teller.files[sdist.name] = {"upload-time": OLD}
    projects.project(place.config / "mine", name="mine-plugin", entry_points=POINTS)
    place.write(
        """
        plugins:
          - {name: built, source: pypi, package: built}
          - {name: mine, source: local, path: mine, editable: true}
        """
    )
    place.run("lock")
    document = audit(place, teller, "--json", code=1).json
    checks = {(item["check"], item["level"], item["package"]) for item in document["findings"]}
    assert checks - {("license", "warn", "built")} == {
        ("no-wheel", "warn", "built"),
        ("no-entry-point", "warn", "built"),
        ("unhashed", "fail", "mine-plugin"),
    }
    assert teller.asked == ["built"]  # what is private is not told to anybody


def test_a_moved_ref_is_found(place: Place, teller: Teller) -> None:
    repository = Repository.init(projects.project(place.root / "repository", name="mine-plugin", entry_points=POINTS))
    was = repository.commit()
    place.write(f'plugins:\n  - {{name: mine, source: git, url: "{repository.url}"}}\npolicy: {{license: ignore}}\n')
    place.run("lock")
    assert audit(place, teller, "--json", code=0).json["findings"] == []
    now = repository.commit("later", {"more.txt": "more\n"})
    finding = found(place, teller, "-v", code=0)
    assert finding["check"] == "moved-ref"
    assert finding["what"].endswith(f" is now commit {now[:12]}; {was[:12]} is locked")


def test_a_change_of_policy_does_not_make_the_lock_stale(locked: Place) -> None:
    locked.run("sync")
    before = locked.files()
    policy(locked, "yanked: warn")
    locked.run("lock", "--check")
    assert locked.run("sync").returncode == 0
    changed = {name for name, digest in locked.files().items() if before.get(name) != digest}
    assert not any("/site/" in name for name in changed)


def test_each_error_of_a_policy_is_reported_with_its_line(place: Place) -> None:
    place.write(
        """
        plugins: []
        policy:
          yankd: fail
          young: perhaps
          min-age-days: -1
          required: [vulnerability]
          accepted:
            - {id: CVE-1}
            - {id: CVE-2, reason: known, until: tomorrow}
        """
    )
    done = place.run("lock", check=False)
    assert done.returncode == 2
    assert [line.strip() for line in done.stderr.splitlines() if line.strip().startswith("line ")] == [
        "line 4: policy.yankd: unknown key; did you mean yanked?",
        "line 5: policy.young: expected fail, warn or ignore, found 'perhaps'",
        "line 6: policy.min-age-days: expected a whole number from 0 to 99999, found the number -1",
        "line 7: policy.required[0]: 'vulnerability' is not a check; did you mean vulnerabilities?",
        "line 9: policy.accepted[0].reason: missing; expected the reason why this advisory is harmless here",
        "line 10: policy.accepted[1].until: expected a date such as 2026-12-31, found 'tomorrow'",
    ]


def test_an_audit_requires_a_lock_and_a_valid_service(place: Place) -> None:
    place.write("plugins: []\n")
    assert place.run("audit", check=False).returncode == 3
    assert place.run("audit", "--service", "nobody", check=False).returncode == 2
