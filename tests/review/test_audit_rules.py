"""What an audit makes of what a lock, an index and an advisory service say: no finding is lost."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import values
from vllm_plugins.core.errors import AttestationMismatch
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import manifest
from vllm_plugins.documents.lock import CommitSha, Lock, Override, Package
from vllm_plugins.documents.policy import CHECKS, Accepted, Level, Policy
from vllm_plugins.packages import attestations
from vllm_plugins.packages.simple_api import File
from vllm_plugins.review import advisories
from vllm_plugins.review._audit import index_checks, lock_checks, provenance
from vllm_plugins.review._audit.auditor import Auditor, Finding, NotRun
from vllm_plugins.review._audit.provenance import Published

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
NAME = values.NAME
ADA: tuple[tuple[str, str], ...] = (("kind", "GitHub"), ("repository", "ada/tiny"), ("workflow", "release.yml"))
EVE: tuple[tuple[str, str], ...] = (("kind", "GitHub"), ("repository", "eve/tiny"), ("workflow", "release.yml"))
HASH = Sha256("a" * 64)


def auditor(
    tmp_path: Path,
    lock: Lock | None = None,
    text: str | None = values.MANIFEST,
    required: tuple[str, ...] = (),
    **policy: Any,
) -> Auditor:
    asked = None if text is None else manifest.parse(text.encode(), Path("plugins.yaml"))
    return Auditor(
        lock=lock or values.lock(), policy=Policy(**policy), manifest=asked, settings=values.settings(tmp_path),
        required=required, now=NOW,
    )  # fmt: skip


def published(**fields: Any) -> Published:
    """What an index says of a package that has nothing wrong."""
    return Published(
        **{
            "yanked": None, "changed": (), "missing": (), "unknown": (), "none": False, "wheel": None,
            "uploaded": NOW - timedelta(days=30), "publishers": (), "unattested": (), "is_verified": True,
            "invalid": (), "identities": (), **fields,
        }
    )  # fmt: skip


def told(found: Iterable[Finding | NotRun]) -> list[tuple[str, str]]:
    """The checks and their levels; ``not run`` of those that did not."""
    return [(item.check, item.level if isinstance(item, Finding) else "not run") for item in found]


def of_index(
    tmp_path: Path, found: Published, package: Package | None = None, **policy: Any
) -> list[tuple[str, str]]:
    every = list(index_checks._published(auditor(tmp_path, **policy), package or values.package(), found))
    assert all(item.package == "tiny" for item in every if item.check != "attestation")  # that is of every package
    findings = [item for item in every if isinstance(item, Finding)]
    assert all(" " in text for item in findings for text in (item.what, item.next_step))
    return told(every)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"changed": ("tiny.whl",)}, [("changed", "fail")]),
        ({"missing": ("tiny.whl",)}, [("yanked", "fail")]),
        ({"yanked": ""}, [("yanked", "fail")]),
        ({"yanked": "broken"}, [("yanked", "fail")]),
        ({"unknown": ("tiny.whl",)}, [("changed", "not run")]),
        ({"wheel": "tiny.whl"}, [("local-wheel", "fail")]),
        ({"uploaded": None}, [("young", "not run")]),
        ({"uploaded": NOW - timedelta(days=7)}, []),
        ({"uploaded": NOW - timedelta(days=6, hours=23)}, [("young", "warn")]),
        ({"uploaded": NOW + timedelta(days=1)}, [("young", "warn")]),
        ({"invalid": ("tiny.whl: no signature",)}, [("attestation", "fail")]),
        ({"unattested": ("tiny.whl",)}, [("no-attestation", "ignore")]),
        ({"identities": (ADA,)}, [("publisher", "fail")]),
        ({"is_verified": False, "publishers": ("GitHub ada/tiny",)}, [("attestation", "not run")]),
        ({"is_verified": False, "invalid": ("x",), "identities": (EVE,)}, []),
        ({"none": True, "changed": ("x",)}, [(check, "not run") for check in index_checks.OF_INDEX]),
    ],
)  # fmt: skip
def test_what_an_index_says_is_a_finding(
    tmp_path: Path, fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert of_index(tmp_path, published(**fields)) == expected


LATEST = "vllm-plugins lock --upgrade-package tiny"
WHO = "find out who changed it, and trust neither file until then"
REPORT = "don't use that file until you know why: report it to the index and to the project"


@pytest.mark.parametrize(
    ("fields", "what", "step"),
    [
        ({"changed": ("a", "b")}, "has another file at its index than the locked one: a, b", WHO),
        ({"missing": ("a", "b")}, "is no longer at its index: a, b", LATEST),
        ({"yanked": ""}, "was yanked from its index: no reason given", LATEST),
        ({"yanked": "broken"}, "was yanked from its index: broken", LATEST),
        ({"wheel": "a.whl"}, "has a wheel next to the lock, though its index has one: a.whl", LATEST),
        ({"invalid": ("a: b",)}, "has an attestation that does not verify: a: b", REPORT),
        (
            {"unattested": ("a", "b", "c", "d")},
            "has no attestation: a, b, c",
            "ask the project to publish with attestations",
        ),
        (
            {"identities": (ADA, EVE)},
            "has a publisher that is not in the lock: GitHub ada/tiny release.yml, GitHub eve/tiny release.yml",
            f"{LATEST}, unless you find out that somebody took it out",
        ),
        *(
            ({"uploaded": NOW - age}, f"was uploaded {words} ago; the policy requires 7 days", "wait, or review the release")
            for age, words in (
                (timedelta(days=6, hours=23), "6 days"),
                (timedelta(hours=24), "1 day"),
                (timedelta(hours=23, minutes=59), "23 hours"),
                (timedelta(hours=1), "1 hour"),
                (timedelta(minutes=59), "0 hours"),
                (-timedelta(days=3), "0 hours"),
            )
        ),
    ],
)  # fmt: skip
def test_each_finding_of_an_index_says_what_is_and_what_to_do(
    tmp_path: Path, fields: dict[str, Any], what: str, step: str
) -> None:
    (found,) = index_checks._published(auditor(tmp_path), values.package(), published(**fields))
    assert isinstance(found, Finding)
    assert (found.what, found.next_step) == (what, step)


def test_another_publisher_is_named_with_the_one_of_the_lock(tmp_path: Path) -> None:
    package = values.package(identities=(ADA,))
    for there, words in (((EVE,), "GitHub eve/tiny release.yml"), ((), "no attestation")):
        (found,) = index_checks._published(auditor(tmp_path), package, published(identities=there))
        assert isinstance(found, Finding)
        assert found.what == f"has another publisher: {words}; the lock says GitHub ada/tiny release.yml"
        assert found.next_step == "find out why, before you use it"


@pytest.mark.parametrize(
    ("fields", "check", "why"),
    [
        ({"unknown": ("a", "b")}, "changed", "the index has no hash of a, b"),
        ({"uploaded": None}, "young", "the index has no upload time"),
        (
            {"is_verified": False, "publishers": ("x",)},
            "attestation",
            "pypi-attestations is not installed: pip install 'vllm-plugin-manager[attestations]'",
        ),
    ],
)
def test_each_check_of_an_index_that_did_not_run_says_why(
    tmp_path: Path, fields: dict[str, Any], check: str, why: str
) -> None:
    (found,) = index_checks._published(auditor(tmp_path, required=(check,)), values.package(), published(**fields))
    assert isinstance(found, NotRun)
    assert (found.check, found.why, found.demanded) == (check, why, True)
    nowhere = list(index_checks._published(auditor(tmp_path), values.package(), published(none=True)))
    assert {item.why for item in nowhere if isinstance(item, NotRun)} == {"none of its locked files is at an index"}


def test_every_finding_of_an_index_is_reported(tmp_path: Path) -> None:
    everything = published(
        changed=("a",), missing=("b",), yanked="c", unknown=("d",), wheel="e", uploaded=NOW, invalid=("f",),
        identities=(EVE,), unattested=("g",),
    )  # fmt: skip
    assert [check for check, _ in of_index(tmp_path, everything)] == [
        *("changed", "yanked", "yanked", "changed", "local-wheel", "young", "attestation", "publisher"),
        "no-attestation",
    ]


@pytest.mark.parametrize(
    ("locked", "found", "expected"),
    [
        ((ADA,), (ADA,), []),
        ((ADA,), (EVE,), ["publisher"]),
        ((ADA,), (), ["publisher"]),
        ((ADA,), (ADA, EVE), ["publisher"]),
        ((ADA, EVE), (EVE, ADA), []),
        ((), (), []),
    ],
)
def test_the_publishers_are_those_of_the_lock(
    tmp_path: Path, locked: tuple[Any, ...], found: tuple[Any, ...], expected: list[str]
) -> None:
    package = values.package(identities=locked)
    assert [check for check, _ in of_index(tmp_path, published(identities=found), package)] == expected
    unverified = published(is_verified=False)
    assert of_index(tmp_path, unverified, package) == ([("attestation", "not run")] if locked else [])


def test_an_age_is_that_of_the_policy_and_exemptions_are_by_name(tmp_path: Path) -> None:
    young = published(uploaded=NOW - timedelta(days=10))
    assert of_index(tmp_path, young, min_age_days=14) == [("young", "warn")]
    assert of_index(tmp_path, young, min_age_days=14, min_age_exempt=("Tiny",)) == []
    assert of_index(tmp_path, young, min_age_days=14, min_age_exempt=("other",)) == [("young", "warn")]


@pytest.mark.parametrize(
    ("check", "level", "required", "expected"),
    [
        ("yanked", "ignore", (), "ignore"),
        ("yanked", "ignore", ("yanked",), "fail"),
        ("yanked", "ignore", ("young",), "ignore"),
        ("yanked", "warn", ("yanked",), "warn"),
        ("young", "ignore", ("young",), "warn"),
        ("no-attestation", "ignore", ("no-attestation",), "fail"),
        ("no-attestation", None, (), "ignore"),
    ],
)
def test_a_required_check_is_not_ignored(
    tmp_path: Path, check: str, level: Level | None, required: tuple[str, ...], expected: str
) -> None:
    levels = ((check, level),) if level else ()
    found = auditor(tmp_path, required=required, levels=levels)
    assert found.level(check) == expected
    assert found.finding(check, None, "what", "step").level == expected
    missed = found.not_run(check, "why", "tiny")
    assert (missed.check, missed.why, missed.package, missed.demanded) == (check, "why", "tiny", check in required)


def test_a_finding_names_its_package_and_who_needs_it(tmp_path: Path) -> None:
    lock = values.lock(values.package(dependencies=(NAME("dep"),)), values.package("dep", "2.0"))
    found = auditor(tmp_path, lock).finding("yanked", lock.package("dep"), "what", "step")
    assert (found.package, found.version, found.required_by) == ("dep", "2.0", ("tiny",))
    whole = auditor(tmp_path, lock).finding("contradiction", None, "what", "step")
    assert (whole.package, whole.version, whole.required_by) == ("plugins.lock", "", ())


def of_lock(tmp_path: Path, lock: Lock, **fields: Any) -> list[str]:
    found = list(lock_checks.run(auditor(tmp_path, lock, **fields)))
    for item in found:
        is_whole = item.check in ("contradiction", "policy-changed")
        assert (item.package == "plugins.lock") is is_whole
        assert " " in item.what
        assert " " in item.next_step
    return [item.check for item in found]


def test_an_honest_lock_has_no_finding(tmp_path: Path) -> None:
    assert of_lock(tmp_path, values.lock()) == []
    assert of_lock(tmp_path, values.lock(), text=None) == []


def test_what_a_lock_says_of_itself_is_a_finding(tmp_path: Path) -> None:
    (plugin,) = values.lock().plugins
    local = (values.wheel(url=None),)
    override = Override(
        package=NAME("dep"),
        version="1.0",
        replaces="0.9",
        requested="dep>=1",
        reason="new",
        against=(("vllm", "<1"),),
    )
    changed = "find out who changed the lock and why; then run vllm-plugins lock, and review the difference"
    built = "has no wheel at its index; its wheel was built from the sdist on the machine that locked"
    of_sdist = "review that wheel, or ask the project to publish wheels"
    linked = "comes from a directory of find-links; only that directory has its wheel"
    nowhere = "has no entry point in vLLM's groups: vLLM loads plugin 'tiny' only where you name it"
    for lock, expected in (
        (values.lock(values.package(), values.package("stray")), ("orphan", "is required by no plugin", changed)),
        (
            values.lock(values.package(wheels=local)),
            (
                "local-wheel",
                "has a wheel of another origin: it comes from an index, and its wheel tiny-1.0-py3-none-any.whl does not",
                changed,
            ),
        ),
        (
            values.lock(values.package(dependencies=(NAME("gone"),))),
            ("contradiction", "tiny 1.0: it requires gone, which is not in the lock", changed),
        ),
        (
            values.lock(values.package(wheels=local, find_links=True)),
            ("local-wheel", linked, "review that wheel, or publish it at an index"),
        ),
        (
            values.lock(values.package(wheels=local, sdist_url="https://x/t.tar.gz", sdist_sha256=HASH)),
            ("no-wheel", built, of_sdist),
        ),
        (values.lock(values.package(wheels=local, sdist_sha256=HASH)), ("no-wheel", built, of_sdist)),
        (
            values.lock(plugins=(plugin.replace(entry_points=()),)),
            ("no-entry-point", nowhere, "check that it is the right distribution"),
        ),
        (
            values.lock(plugins=(plugin.replace(entry_points=(), loads=("tiny:A",)),)),
            ("contradiction", "plugin 'tiny': its `loads` is tiny:A; plugins.yaml says nothing", changed),
        ),
    ):
        (found,) = lock_checks.run(auditor(tmp_path, lock))
        assert (found.check, found.what, found.next_step) == expected
        assert of_lock(tmp_path, lock) == [expected[0]]
    editable = plugin.replace(source="local", requested="../tiny", editable=True, project_sha256=HASH)
    text = "plugins:\n  - {name: tiny, source: local, path: ../tiny, editable: true}\n"
    lock = values.lock(values.package(wheels=(), directory="../tiny"), plugins=(editable,), manifest=text)
    assert of_lock(tmp_path, lock, text=text) == ["unhashed"]
    (found,) = lock_checks.run(auditor(tmp_path, lock, text))
    assert found.what == "is editable: ../tiny has no hash, and is used as it is when vLLM starts"
    assert found.next_step == "remove `editable: true` in plugins.yaml, then run vllm-plugins lock"
    text = values.MANIFEST + "overrides:\n  - {package: dep, version: '>=1', reason: new}\n"
    lock = values.lock(values.package(), values.package("dep"), overrides=(override,), manifest=text)
    (found,) = lock_checks.run(auditor(tmp_path, lock, text))
    assert (found.check, found.package) == ("override", "dep")
    assert found.what == "overrides 0.9 of the vLLM environment (new); vllm of it requires <1"
    assert found.next_step == (
        "review the reason; remove it from `overrides` in plugins.yaml once the environment has such a version"
    )
    two = (override.replace(against=(("vllm", "<1"), ("other", "==0.9"))),)
    (found,) = lock_checks.run(auditor(tmp_path, lock.replace(overrides=two), text))
    assert found.what.endswith("(new); vllm of it requires <1, other of it requires ==0.9")
    alone = (override.replace(against=()),)
    (found,) = lock_checks.run(auditor(tmp_path, lock.replace(overrides=alone), text))
    assert found.what == "overrides 0.9 of the vLLM environment (new)"


def test_a_wheel_that_was_built_with_packages_of_which_no_hash_is_known_is_a_finding(tmp_path: Path) -> None:
    local = (values.wheel(url=None),)
    built = values.package(wheels=local, sdist_sha256=HASH, built_with=("flit-core==3.12.0", "wheel==1.0"))
    found = list(lock_checks.run(auditor(tmp_path, values.lock(built))))
    assert [(item.check, item.level) for item in found] == [("unhashed", "fail"), ("no-wheel", "warn")]
    assert found[0].what == ("was built with packages of which the lock has no hash: flit-core==3.12.0, wheel==1.0")
    assert found[0].next_step == "run vllm-plugins lock, and review the difference"
    assert {item.package for item in found} == {"tiny"}


def test_a_finding_about_one_package_hides_no_other(tmp_path: Path) -> None:
    local = (values.wheel("dep", url=None),)
    first = values.package(wheels=(), directory="../tiny", dependencies=(NAME("dep"), NAME("more")))
    dep = values.package("dep", wheels=local, sdist_sha256=HASH)
    more = values.package("more", wheels=(values.wheel("more", url=None),), find_links=True)
    (plugin,) = values.lock().plugins
    editable = plugin.replace(source="local", requested="../tiny", editable=True, project_sha256=HASH)
    found = lock_checks.run(auditor(tmp_path, values.lock(first, dep, more, plugins=(editable,)), None))
    assert [(item.check, item.package) for item in found] == [
        ("unhashed", "tiny"),
        ("no-wheel", "dep"),
        ("local-wheel", "more"),
    ]


@pytest.mark.parametrize(
    ("name", "fields", "what"),
    [
        ("dep", {"version": "1.1"}, "the override of dep is 1.1; the lock installs 1.0"),
        ("dep", {"requested": "dep>=2"}, "the override of dep is 1.0; requested was dep>=2"),
        ("gone", {}, "the override of gone is 1.0; the lock installs nothing"),
        ("torch", {"requested": "torch>=1"}, "the override of torch is not possible: vLLM is compiled against "),
    ],
)
def test_an_override_that_can_not_be_is_a_contradiction(
    tmp_path: Path, name: str, fields: dict[str, Any], what: str
) -> None:
    honest = {"version": "1.0", "replaces": "0.9", "requested": f"{name}>=1", "reason": "new", "against": ()}
    override = Override(**{"package": NAME(name), **honest, **fields})
    installed = values.package(dependencies=(NAME("dep" if name == "gone" else name),))
    lock = values.lock(installed, values.package("dep" if name == "gone" else name), overrides=(override,))
    found = list(lock_checks.run(auditor(tmp_path, lock, None)))
    assert [item.check for item in found] == ["contradiction", "override"]
    assert found[0].what.startswith(what)


def test_a_lock_is_compared_with_plugins_yaml(tmp_path: Path) -> None:
    forged = values.lock(plugins=(values.lock().plugins[0].replace(requested="tiny>=9"),))
    (found,) = lock_checks.run(auditor(tmp_path, forged))
    assert found.what == "plugin 'tiny': its requirement is tiny>=9; plugins.yaml says tiny"
    assert found.next_step.startswith("find out who changed the lock and why; ")
    assert of_lock(tmp_path, forged) == ["contradiction"]
    assert of_lock(tmp_path, forged, text=None) == []
    other = values.MANIFEST.replace("name: tiny", "name: other")
    (found,) = lock_checks.run(auditor(tmp_path, values.lock(), other))
    assert (found.check, found.what) == ("contradiction", "was not made from this plugins.yaml")
    assert found.next_step == "run vllm-plugins lock, and review the difference"
    accepted = (manifest.parse(other.encode(), Path("plugins.yaml")).sha256,)
    (found,) = lock_checks.run(auditor(tmp_path, values.lock(accepted_manifests=accepted), other))
    assert (found.check, found.what) == ("contradiction", "was rolled back: plugins.yaml has changed since")


def test_a_policy_from_elsewhere_shows_that_the_one_of_plugins_yaml_differs(tmp_path: Path) -> None:
    weak = values.MANIFEST + "policy: {yanked: ignore}\n"
    (found,) = lock_checks.run(auditor(tmp_path, values.lock(), weak))
    assert (found.check, found.level) == ("policy-changed", "warn")
    assert found.what == "plugins.yaml has another policy than the one of this audit"
    assert found.next_step == "review the change of `policy:` in plugins.yaml"
    assert of_lock(tmp_path, values.lock(), text=weak, levels=(("yanked", "ignore"),)) == []


# What an index says of the files of a lock.


class Pages:
    """An index with these files, and these documents about them."""

    def __init__(self, *files: File, documents: dict[str, Any] | None = None) -> None:
        self._files, self._documents = files, documents or {}

    def files(self, name: str) -> tuple[File, ...]:
        assert name == "tiny"
        return self._files

    def document(self, address: str) -> Any:
        return self._documents[address]


WHEEL = values.wheel()


def file(**fields: Any) -> File:
    return File(**{"filename": WHEEL.filename, "url": str(WHEEL.url), "sha256": WHEEL.sha256, "size": 10, **fields})


def read(*files: File, package: Package | None = None, documents: dict[str, Any] | None = None) -> Published:
    pages: Any = Pages(*files, documents=documents)
    return provenance.read(package or values.package(), pages)


def test_a_locked_file_is_found_by_its_name_and_hash() -> None:
    found = read(file(upload_time="2026-01-02T03:04:05Z"), file(filename="tiny-2.0-py3-none-any.whl"))
    assert (found.changed, found.missing, found.unknown, found.none, found.yanked) == ((), (), (), False, None)
    assert found.uploaded == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert found.unattested == (WHEEL.filename,)
    assert read(file(sha256=Sha256("b" * 64))).changed == (WHEEL.filename,)
    assert read(file(sha256=Sha256("b" * 64)), file()).changed == ()  # another index of the same name
    assert (read().missing, read().changed) == ((WHEEL.filename,), ())
    assert read(file(sha256=None)).unknown == (WHEEL.filename,)


def test_the_newest_file_counts_and_each_yanked_one() -> None:
    two = values.package(wheels=(WHEEL, values.wheel(tag="cp39-cp39-win_amd64")))
    other = file(filename="tiny-1.0-cp39-cp39-win_amd64.whl", upload_time="2026-05-01T00:00:00Z", yanked=True)
    found = read(file(upload_time="2026-01-01T00:00:00Z"), other, package=two)
    assert (found.uploaded, found.yanked) == (datetime(2026, 5, 1, tzinfo=UTC), "")
    assert read(file(yanked=True, yanked_reason="broken"), other, package=two).yanked == "broken"
    why = dataclasses.replace(other, yanked_reason="broken")
    assert read(file(yanked=True), why, package=two).yanked == "broken"
    assert read(file(), file(filename="other.whl", yanked=True)).yanked is None


def test_a_package_without_a_file_of_an_index_has_none() -> None:
    local = values.package(wheels=(values.wheel(url=None),))
    assert read(file(), package=local).none
    sdist = local.replace(sdist_url="https://x/tiny-1.0%2Bx.tar.gz", sdist_sha256=HASH)
    found = read(file(filename="tiny-1.0+x.tar.gz", sha256=HASH), package=sdist)
    assert (found.none, found.changed, found.missing, found.wheel) == (False, (), (), None)
    assert read(package=sdist).missing == ("tiny-1.0+x.tar.gz",)
    assert read(file(filename="tiny-1.0+x.tar.gz", sha256=Sha256("b" * 64)), package=sdist).changed != ()
    late = file(filename="tiny-1.0-py3-none-any.whl")
    newer, source = file(filename="tiny-2.0-py3-none-any.whl"), file(filename="tiny-1.0.tar.gz")
    assert read(newer, source, late, package=sdist).wheel == late.filename
    assert read(newer, source, package=sdist).wheel is None
    assert read(package=local.replace(sdist_sha256=HASH)).none
    assert read(late).wheel is None


def provenance_of(digest: str, **publisher: str) -> Any:
    statement = base64.b64encode(json.dumps({"subject": [{"digest": {"sha256": digest}}]}).encode()).decode()
    attestation = {"envelope": {"statement": statement}}
    return {"attestation_bundles": [{"publisher": publisher, "attestations": [attestation]}]}


def test_an_attestation_that_does_not_verify_is_reported() -> None:
    document = provenance_of(HASH, kind="GitHub", repository="ada/tiny")
    found = read(file(provenance="there"), documents={"there": document})
    if attestations.is_available():
        (line,) = found.invalid
        assert line.startswith(f"{WHEEL.filename}: ")
    assert (found.identities, found.unattested) == ((), (WHEEL.filename,))


def test_each_file_is_verified_by_its_own_name_and_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without an attestation, and one whose attestation does not verify, hide no other."""
    names = ("cp39-cp39-win_amd64", "py3-none-any", "cp310-cp310-win_amd64")
    wheels = [values.wheel(tag=tag, sha256=Sha256(str(number) * 64)) for number, tag in enumerate(names)]
    plain = values.wheel(tag="cp311-cp311-win_amd64")
    files = [
        file(filename=wheel.filename, sha256=wheel.sha256, provenance=f"of {wheel.filename}") for wheel in wheels
    ]
    documents = {f"of {wheel.filename}": {"file": wheel.filename} for wheel in wheels}

    def verify(document: Any, *, filename: str, sha256: str) -> tuple[Any, ...]:
        number = [wheel.filename for wheel in wheels].index(filename)
        assert (document, sha256) == ({"file": filename}, str(number) * 64)
        if number == 0:
            raise AttestationMismatch("no", found="no signature")
        return ((), (ADA,), (EVE,))[number]

    monkeypatch.setattr(attestations, "is_available", lambda: True)
    monkeypatch.setattr(attestations, "verify", verify)
    package = values.package(wheels=(plain, *wheels))
    found = read(file(filename=plain.filename), *files, package=package, documents=documents)
    assert found.is_verified
    assert found.invalid == (f"{wheels[0].filename}: no signature",)
    assert found.identities == (ADA, EVE)
    assert found.publishers == (attestations.words(ADA), attestations.words(EVE))
    assert found.unattested == (plain.filename, wheels[0].filename)


def test_without_the_extra_publishers_are_those_of_these_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attestations, "is_available", lambda: False)
    document = provenance_of(HASH, kind="GitHub", repository="ada/tiny", workflow="release.yml")
    found = read(file(provenance="there"), documents={"there": document})
    assert (found.publishers, found.is_verified, found.unattested) == (
        ("GitHub ada/tiny release.yml (not verified)",), False, (),
    )  # fmt: skip
    others: list[Any] = [
        provenance_of("b" * 64, kind="GitHub"),
        {},
        [],
        {"attestation_bundles": [5, {"publisher": 5}]},
    ]
    for other in others:
        assert read(file(provenance="there"), documents={"there": other}).publishers == ()


@pytest.mark.parametrize(
    ("publisher", "expected"),
    [
        ({"kind": "GitLab", "repository": "a/b", "workflow_filepath": ".gitlab-ci.yml"}, "GitLab a/b .gitlab-ci.yml"),
        ({"email": "a@example.org", "kind": "Google"}, "Google a@example.org"),
        ({"kind": "GitHub", "repository": "x" * 300, "environment": "e"}, f"GitHub {'x' * 200}"),
        ({"kind": "a\n  b", "repository": 5, "workflow": ["w"]}, "a b 5 ['w']"),
        ({"kind": "", "environment": "e"}, None),
        ({}, None),
        (5, None),
        (None, None),
    ],
)
def test_a_publisher_is_named_in_one_line_without_the_extra(publisher: Any, expected: str | None) -> None:
    document = provenance_of(HASH)
    document["attestation_bundles"][0]["publisher"] = publisher
    document["attestation_bundles"].insert(0, {"publisher": {"kind": "other"}, "attestations": []})
    assert provenance._publishers(document, HASH) == ({expected} if expected else set())


@pytest.mark.parametrize(
    "envelope",
    [
        {},
        {"statement": 5},
        {"statement": None},
        {"statement": "not base64"},
        {"statement": "\u0663"},
        {"statement": base64.b64encode(b"not JSON").decode()},
        {"statement": base64.b64encode(b"[]").decode()},
        {"statement": base64.b64encode(b'{"subject": 5}').decode()},
        {"statement": base64.b64encode(b'{"subject": [5, {}, {"digest": 5}]}').decode()},
        {"statement": base64.b64encode(b'{"subject": [{"digest": {"sha512": "a"}}]}').decode()},
        5,
        None,
    ],
)
def test_a_statement_that_can_not_be_read_is_about_no_file(envelope: Any) -> None:
    document = provenance_of(HASH, kind="GitHub")
    attestations_ = document["attestation_bundles"][0]["attestations"]
    attestations_[0]["envelope"] = envelope
    assert provenance._publishers(document, HASH) == set()
    attestations_ += [5, *provenance_of(HASH)["attestation_bundles"][0]["attestations"]]
    assert provenance._publishers(document, HASH) == {"GitHub"}


def test_without_the_extra_a_file_without_an_attestation_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attestations, "is_available", lambda: False)
    tags = ("cp39-cp39-win_amd64", "cp310-cp310-win_amd64", "cp311-cp311-win_amd64")
    wheels = [values.wheel(tag=tag) for tag in tags]
    files = [file(filename=wheel.filename) for wheel in wheels]
    documents = {str(number): provenance_of(HASH, kind="GitHub", repository=f"r{number}") for number in (1, 2)}
    files[1:] = [file(filename=files[number].filename, provenance=str(number)) for number in (1, 2)]
    found = read(*files, package=values.package(wheels=tuple(wheels)), documents=documents)
    assert found.publishers == ("GitHub r1 (not verified)", "GitHub r2 (not verified)")
    assert found.unattested == (wheels[0].filename,)


def test_an_sdist_counts_only_with_its_hash() -> None:
    """Without one, any file of that name would be the locked one."""
    local = values.package(wheels=(values.wheel(url=None),), sdist_url="https://x/tiny-1.0.tar.gz")
    found = read(file(filename="tiny-1.0.tar.gz"), package=local)
    assert (found.none, found.unattested, found.changed) == (True, (), ())


# Advisories.


def answer(*items: dict[str, Any]) -> tuple[tuple[advisories.Advisory, ...], dict[str, str]]:
    return advisories._parse({"dependencies": list(items)}, [values.package("Foo.Bar"), values.package("dep")])


def test_a_vulnerability_is_of_the_package_whatever_the_service_calls_it() -> None:
    known = {"id": "CVE-1", "aliases": ["GHSA-1", "CVE-1"], "fix_versions": ["2.0"]}
    found, skipped = answer(
        {"name": "foo_bar", "version": "1.0", "vulns": [known]}, {"name": "dep", "version": "1.0"}
    )
    assert [(item.package, item.ids, item.fixed_in) for item in found] == [("foo-bar", ("CVE-1", "GHSA-1"), ("2.0",))]
    assert skipped == {}


def test_a_package_that_the_service_says_nothing_of_was_not_looked_up() -> None:
    found, skipped = answer({"name": "dep", "version": "1.0", "skip_reason": "no such package"})
    assert found == ()
    assert skipped == {"dep": "no such package", "foo-bar": "pip-audit has no result for it"}


def test_an_accepted_advisory_is_one_by_its_own_name(tmp_path: Path) -> None:
    policy = auditor(tmp_path, accepted=(Accepted(id="CVE-1", reason="x"),)).policy
    assert policy.accepts(("CVE-1",), NOW.date()) is not None
    assert policy.accepts(("CVE-2",), NOW.date()) is None


@pytest.mark.parametrize("has_manifest", [True, False])
def test_only_what_is_not_from_an_index_is_private(tmp_path: Path, has_manifest: bool) -> None:
    """Where there is a manifest, it says that, and not the lock."""
    (plugin,) = values.lock().plugins
    git = plugin.replace(source="git", url="https://x/y.git", commit=CommitSha("1" * 40), tree_sha256=HASH)
    lock = values.lock(values.package(), values.package("linked", find_links=True), plugins=(git,))
    found = auditor(tmp_path, lock, values.MANIFEST if has_manifest else None)
    assert found.private == ({"linked"} if has_manifest else {"linked", "tiny"})
    assert set(CHECKS) >= set(index_checks.OF_INDEX)
