"""Publishers: locked at the first lock, compared at the next, verified with the library's own trust root.

The attestations are real: ``tests/golden/attestations`` has those of four kinds of publishers, as an index has them, and
the tests marked ``network`` take the file, too, from the library's sdist, which contains it for its own tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.utils import canonicalize_name

from tests.faults.test_hostile_lock import forge, package
from tests.kit import values
from vllm_plugins.core.errors import AttestationMismatch
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.packages import archives, attestations, pip_config
from vllm_plugins.packages.index import Index as Reader
from vllm_plugins.packages.pip_config import PipConfig
from vllm_plugins.packages.simple_api import File

if TYPE_CHECKING:
    from tests.kit.advisory import Teller
    from tests.kit.index import Index
    from tests.kit.place import Completed, Place
    from vllm_plugins.documents.lock import Identity

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pypi_attestations") is None, reason="the extra attestations is not installed"
)
ADA: Identity = (("kind", "GitHub"), ("repository", "ada/tiny"), ("workflow", "release.yml"))
EVE: Identity = (("kind", "GitHub"), ("repository", "eve/tiny"), ("workflow", "release.yml"))
OLD = values.package(identities=(ADA,))
NEW = File(
    filename="tiny-2.0-py3-none-any.whl", url="https://example.org/t", sha256=Sha256("b" * 64), provenance="https://p"
)


def publishers(
    monkeypatch: pytest.MonkeyPatch, *found: Identity, file: File = NEW, accepted: tuple[str, ...] = ()
) -> tuple[Identity, ...]:
    """The publishers to lock of a file that ``found`` have attested."""
    monkeypatch.setattr(attestations, "verify", lambda *_, **__: found)
    with Reader(PipConfig.without_index()) as reader:
        monkeypatch.setattr(reader, "document", lambda url: {})
        return attestations.of_release(file, reader, OLD, accepted=accepted)


def test_the_same_publisher_is_locked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert publishers(monkeypatch, ADA) == (ADA,)


@pytest.mark.parametrize("found", [(), (EVE,), (ADA, EVE)], ids=["none", "another", "one more"])
def test_a_changed_or_vanished_publisher_is_refused_until_it_is_accepted_by_name(
    monkeypatch: pytest.MonkeyPatch, found: tuple[Identity, ...]
) -> None:
    with pytest.raises(AttestationMismatch) as caught:
        publishers(monkeypatch, *found)
    assert caught.value.what == "the publisher of tiny has changed"
    assert (caught.value.where, caught.value.expected) == (NEW.filename, "GitHub ada/tiny release.yml")
    assert caught.value.found == attestations.listed(found)
    with pytest.raises(AttestationMismatch):
        publishers(monkeypatch, *found, accepted=("other",))
    assert str(caught.value.next_step).endswith("vllm-plugins lock --accept-publisher tiny")
    assert publishers(monkeypatch, *found, accepted=("tiny",)) == found


def test_a_file_without_an_attestation_has_no_publisher(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = File(filename=NEW.filename, url=NEW.url, sha256=NEW.sha256)
    with pytest.raises(AttestationMismatch):
        publishers(monkeypatch, ADA, file=bare)


def test_a_locked_file_keeps_its_publisher_without_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    same = File(filename="tiny-1.0-py3-none-any.whl", url="https://example.org/t", sha256=Sha256("a" * 64))
    assert publishers(monkeypatch, EVE, file=same) == (ADA,)


def test_a_locked_file_without_a_publisher_gets_its_publisher(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was locked without the library, or its publisher was taken out of the lock."""
    same = File(filename=NEW.filename, url=NEW.url, sha256=Sha256("a" * 64), provenance="https://p")
    monkeypatch.setattr(attestations, "verify", lambda *_, **__: (ADA,))
    with Reader(PipConfig.without_index()) as reader:
        monkeypatch.setattr(reader, "document", lambda url: {})
        assert attestations.of_release(same, reader, values.package(), accepted=()) == (ADA,)
        monkeypatch.setattr(attestations, "is_available", lambda: False)
        assert attestations.of_release(same, reader, values.package(), accepted=()) == ()


def test_without_the_library_a_locked_publisher_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attestations, "is_available", lambda: False)
    with pytest.raises(AttestationMismatch) as caught:
        publishers(monkeypatch)
    assert caught.value.next_step == (
        "pip install 'vllm-plugin-manager[attestations]'; or accept the file without it: "
        "vllm-plugins lock --accept-publisher tiny"
    )
    assert caught.value.what.startswith("the publisher of tiny is locked, and pypi-attestations, ")
    assert (caught.value.where, caught.value.expected) == (NEW.filename, "GitHub ada/tiny release.yml")
    assert publishers(monkeypatch, accepted=("tiny",)) == ()


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        [],
        {"version": 2},
        {"attestation_bundles": 1},
        {"version": 1, "attestation_bundles": [{"publisher": 1}]},
    ],
)
def test_a_document_that_is_not_a_provenance_object_does_not_verify(document: Any) -> None:
    with pytest.raises(AttestationMismatch):
        attestations.verify(document, filename=NEW.filename, sha256="b" * 64)


# Real attestations, without a network: the hash of a file is enough.
GOLDEN = Path(__file__).parents[1] / "golden" / "attestations"
GITHUB = "pypi_attestations-0.0.19.tar.gz"
CIRCLECI = "circleci_sign_publish_example-0.0.1.dev137-py3-none-any.whl"
HASHES = {
    GITHUB: "9bb1add04b1b4e182be6b0b80931593f7a291eb49d69b4fd728a5d4cbcdc4bd3",
    CIRCLECI: "8cb34da1e27336f11a2c43f3f9c7433bd76f24f470c904724f06ad7f131d9e9f",
    "gitlab_oidc_project-0.0.3.tar.gz": "c1ca9b0d85df1606451098233018534497bf584362e10e4a8c21dfaea92c02a8",
    "gcb_attestation_test-0.0.0.tar.gz": "461317362419124b6012e855423a9078d6de8aed3e74fa78cc74d669b23dc6cf",
}
TRAIL_OF_BITS: Identity = (
    ("kind", "GitHub"), ("repository", "trailofbits/pypi-attestations"), ("workflow", "release.yml"),
)  # fmt: skip
ORB: Identity = (
    ("kind", "CircleCI"),
    ("pipeline_definition_id", "8e4f8ab2-8d7c-4827-9f15-de076d6d647f"),
    ("project_id", "fdd9283f-e619-46af-8f9c-851f7d3e8b2b"),
    ("vcs_origin", "github.com/CircleCI-Public/sign-and-publish-examples"),
)
IDENTITIES: dict[str, Identity] = {
    GITHUB: TRAIL_OF_BITS,
    CIRCLECI: ORB,
    "gitlab_oidc_project-0.0.3.tar.gz": (
        ("kind", "GitLab"),
        ("repository", "facutuesca/gitlab-oidc-project"),
        ("workflow_filepath", ".gitlab-ci.yml"),
    ),
    "gcb_attestation_test-0.0.0.tar.gz": (
        ("kind", "Google"),
        ("email", "919436158236-compute@developer.gserviceaccount.com"),
    ),
}


def provenance(filename: str) -> Any:
    return json.loads((GOLDEN / f"{filename}.provenance.json").read_text())


@pytest.fixture
def _unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something is fetched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("_unplugged")
@pytest.mark.parametrize("filename", sorted(HASHES))
def test_each_kind_of_publisher_is_verified_and_nothing_is_fetched_for_it(
    filename: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library warns that it fetches nothing. Other messages are still shown."""
    library, root = logging.getLogger("sigstore"), logging.getLogger()
    monkeypatch.setattr(library, "level", logging.NOTSET)
    level = root.level
    found = attestations.verify(provenance(filename), filename=filename, sha256=HASHES[filename])
    assert sorted(found[0]) == sorted(IDENTITIES[filename])
    assert len(found) == 1
    assert (caplog.messages, library.level, root.level) == ([], logging.ERROR, level)


@pytest.mark.parametrize("filename", sorted(HASHES))
def test_an_attestation_is_of_one_name_and_one_hash(filename: str) -> None:
    renamed = filename.replace("0.0", "0.1", 1)
    for name, sha256 in ((filename, "b" * 64), (renamed, HASHES[filename])):
        with pytest.raises(AttestationMismatch) as caught:
            attestations.verify(provenance(filename), filename=name, sha256=sha256)
        assert caught.value.what == f"an attestation of {name} does not verify"
        assert str(caught.value.found).startswith("VerificationError: ")
        assert "report it to the index" in str(caught.value.next_step)


@pytest.mark.parametrize("filename", sorted(HASHES))
def test_a_publisher_that_the_certificate_does_not_name_is_refused(filename: str) -> None:
    for field, _ in IDENTITIES[filename]:
        document = provenance(filename)
        publisher = document["attestation_bundles"][0]["publisher"]
        publisher[field] = "GitHub" if publisher[field] == "GitLab" else f"{publisher[field][:-1]}0"
        with pytest.raises(AttestationMismatch):
            attestations.verify(document, filename=filename, sha256=HASHES[filename])


@pytest.mark.parametrize("what", ["attestation", "bundle"])
@pytest.mark.parametrize("place", [0, 1])
def test_each_attestation_of_a_file_must_verify(what: str, place: int) -> None:
    """One that does not is not covered by another that does, before or after it."""
    document, other = provenance(GITHUB), provenance(CIRCLECI)
    bundles = document["attestation_bundles"]
    if what == "bundle":
        bundles.insert(place, other["attestation_bundles"][0])
    else:
        bundles[0]["attestations"].insert(place, other["attestation_bundles"][0]["attestations"][0])
    with pytest.raises(AttestationMismatch):
        attestations.verify(document, filename=GITHUB, sha256=HASHES[GITHUB])


def test_two_attestations_of_one_publisher_are_one_publisher() -> None:
    document = provenance(GITHUB)
    bundle = document["attestation_bundles"][0]
    bundle["attestations"] *= 2
    document["attestation_bundles"] *= 2
    assert attestations.verify(document, filename=GITHUB, sha256=HASHES[GITHUB]) == (TRAIL_OF_BITS,)
    bundle["attestations"] = []
    with contextlib.suppress(AttestationMismatch):  # a publisher who has attested nothing is none
        assert attestations.verify(document, filename=GITHUB, sha256=HASHES[GITHUB]) == ()


def test_what_is_not_verified_is_no_part_of_a_publisher() -> None:
    """The index could change it at will, and each change would look like one of the publisher."""
    document = provenance(GITHUB)
    document["attestation_bundles"][0]["publisher"]["environment"] = "release"
    assert attestations.verify(document, filename=GITHUB, sha256=HASHES[GITHUB]) == (TRAIL_OF_BITS,)


def test_why_an_attestation_does_not_verify_is_short() -> None:
    document = {"version": 1, "attestation_bundles": [{"x" * 9999: 1, "publisher": {"kind": "y" * 9999}}] * 9}
    with pytest.raises(AttestationMismatch) as caught:
        attestations.verify(document, filename=GITHUB, sha256=HASHES[GITHUB])
    assert len(str(caught.value.found)) == 500


def test_the_publishers_of_a_file_are_read_at_the_address_that_its_index_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    documents = {"https://p": provenance(GITHUB)}
    of_it = File(filename=GITHUB, url="https://f", sha256=Sha256(HASHES[GITHUB]), provenance="https://p")
    for file, expected in (
        (of_it, (TRAIL_OF_BITS,)),
        (dataclasses.replace(of_it, provenance=None), ()),
        (dataclasses.replace(of_it, sha256=None), ()),
    ):
        with Reader(PipConfig.without_index()) as reader:
            monkeypatch.setattr(reader, "document", documents.__getitem__)
            assert attestations.of_file(file, reader) == expected
            assert attestations.of_release(file, reader, None, accepted=()) == expected


def test_publishers_for_people_are_in_one_line_with_their_kind_first() -> None:
    strange = (("email", "a\n  b"), ("kind", "Google"))
    assert attestations.words(strange) == "Google a b"
    assert attestations.listed([ADA, EVE]) == "GitHub ada/tiny release.yml, GitHub eve/tiny release.yml"
    assert attestations.listed([]) == "no attestation"


# From here on, with the real file.
NAME = "circleci-sign-publish-example"
VERSION = "0.0.1.dev137"


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the library's own tests, in the newest of its sdists."""
    into = tmp_path_factory.mktemp("assets")
    with Reader(pip_config.read()) as reader:
        files = reader.files(canonicalize_name("pypi-attestations"))
        sdists = sorted(
            (file for file in files if file.filename.endswith(".tar.gz")), key=lambda f: f.upload_time or ""
        )
        archive = reader.download(sdists[-1], into)
    archives.unpack(archive, into)
    (found,) = into.glob("*/test/assets")
    return found


@pytest.fixture
def attested(place: Place, index: Index, teller: Teller, assets: Path) -> Place:
    """A plugin with a real attestation at an index."""
    (wheel,) = assets.glob("circleci*.whl")
    index.add(wheel)
    teller.provenance[wheel.name] = json.loads((assets / f"{wheel.name}.provenance").read_text())
    teller.files[wheel.name] = {"provenance": f"{teller.address}/provenance/{wheel.name}"}
    place.write(f"""
        plugins:
          - {{name: example, source: pypi, package: {NAME}, version: "=={VERSION}"}}
        policy: {{license: ignore, no-entry-point: ignore, young: ignore}}
        """)
    return place


def run(place: Place, teller: Teller, *words: str, check: bool = True) -> Completed:
    env = {"PIP_INDEX_URL": teller.index_url}
    if words[0] == "audit":
        words = (*words, "--service", teller.service)
    return place.run(*words, env=env, check=check)


def checks(done: Completed) -> set[tuple[str, str]]:
    return {(item["level"], item["check"]) for item in done.json["findings"]}


@pytest.mark.network
def test_a_real_attestation_is_verified_and_its_publisher_locked(attested: Place, teller: Teller) -> None:
    run(attested, teller, "lock")
    (identity,) = attested.package(NAME)["attestation-identities"]
    assert identity["kind"] == "CircleCI"
    assert identity["vcs_origin"] == "github.com/CircleCI-Public/sign-and-publish-examples"
    assert run(attested, teller, "lock", "--check").stdout == "plugins.lock is up to date\n"
    done = run(attested, teller, "audit", "--json")
    assert checks(done) == set()
    (publisher,) = done.json["facts"][0]["publishers"]
    assert publisher == f"CircleCI {' '.join(identity[key] for key in sorted(identity) if key != 'kind')}"
    attested.run("sync", "--no-load-check")


@pytest.mark.network
@pytest.mark.parametrize("what", ["publisher", "signature", "statement", "certificate", "log", "file"])
def test_a_real_attestation_that_was_changed_does_not_verify(
    attested: Place, teller: Teller, index: Index, what: str
) -> None:
    run(attested, teller, "lock")
    (name,) = teller.provenance
    document = teller.provenance[name]
    bundle = document["attestation_bundles"][0]
    attestation = bundle["attestations"][0]
    if what == "publisher":
        bundle["publisher"] |= {"project_id": "00000000-0000-0000-0000-000000000000"}
    elif what == "log":
        attestation["verification_material"]["transparency_entries"][0]["integratedTime"] = "1"
    elif what == "file":
        with pytest.raises(AttestationMismatch):
            attestations.verify(document, filename=name, sha256="0" * 64)
        return
    else:
        table = attestation["verification_material" if what == "certificate" else "envelope"]
        text = table[what]
        middle = len(text) // 2
        table[what] = f"{text[:middle]}{'A' if text[middle] != 'A' else 'B'}{text[middle + 1 :]}"
    done = run(attested, teller, "audit", "--json", check=False)
    assert (done.returncode, ("fail", "attestation") in checks(done)) == (1, True), done
    attested.lock.unlink()
    refused = run(attested, teller, "lock", check=False)
    assert (refused.returncode, "[attestation-mismatch]" in refused.stderr) == (4, True), refused


@pytest.mark.network
def test_a_locked_publisher_that_is_not_the_file_s_is_found(attested: Place, teller: Teller) -> None:
    run(attested, teller, "lock")
    identity = {"kind": "GitHub", "repository": "ada/tiny", "workflow": "release.yml"}
    forge(attested, lambda document: package(document, NAME).update({"attestation-identities": [identity]}))
    assert "its publisher is CircleCI" in run(attested, teller, "lock", "--check", check=False).stderr
    done = run(attested, teller, "audit", "--json", check=False)
    assert (done.returncode, checks(done)) == (1, {("fail", "publisher")})


@pytest.mark.network
def test_a_publisher_that_was_taken_out_of_the_lock_is_missed(attested: Place, teller: Teller) -> None:
    """So that the next release may come from anybody."""
    run(attested, teller, "lock")
    honest = attested.lock_text
    forge(attested, lambda document: package(document, NAME).pop("attestation-identities"))
    done = run(attested, teller, "lock", "--check", check=False)
    assert (done.returncode, "its publisher is CircleCI" in done.stderr) == (3, True), done
    assert "the lock says no attestation" in done.stderr
    audited = run(attested, teller, "audit", "--json", check=False)
    assert (audited.returncode, checks(audited)) == (1, {("fail", "publisher")})
    (step,) = [line for line in done.stderr.splitlines() if line.startswith("  next: ")]
    run(attested, teller, *step.rpartition("vllm-plugins ")[2].split())
    assert attested.lock_text == honest
    run(attested, teller, "lock", "--check")


@pytest.mark.network
def test_an_upgrade_to_another_publisher_is_refused_until_it_is_accepted(
    attested: Place, teller: Teller, index: Index
) -> None:
    older = index.wheel(NAME, "0.0.1.dev1")
    identity = {"kind": "GitHub", "repository": "ada/tiny", "workflow": "release.yml"}
    text = attested.manifest.read_text()
    attested.manifest.write_text(text.replace(f"=={VERSION}", "==0.0.1.dev1"))
    run(attested, teller, "lock")
    assert older.name == attested.package(NAME)["wheels"][0]["name"]
    forge(attested, lambda document: package(document, NAME).update({"attestation-identities": [identity]}))
    attested.manifest.write_text(text)
    before = attested.files()
    done = run(attested, teller, "lock", "--upgrade", check=False)
    assert (done.returncode, f"the publisher of {NAME} has changed" in done.stderr) == (4, True), done
    assert attested.files() == before
    run(attested, teller, "lock", "--upgrade", "--accept-publisher", "example")
    assert attested.package(NAME)["attestation-identities"][0]["kind"] == "CircleCI"
