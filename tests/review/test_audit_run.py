"""A whole audit in one process, with a real index: which packages are asked about, and what counts as not run."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import advisory, damage, projects, values
from tests.kit.repositories import Repository, git_environment
from vllm_plugins.core.errors import SourceError
from vllm_plugins.core.hashes import Sha256, of_file
from vllm_plugins.core.progress import SILENT, Reporter
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents.lock import BuildRequirement, CommitSha, Lock, Package, Plugin, Wheel
from vllm_plugins.documents.policy import Accepted, Policy
from vllm_plugins.packages.index import Index as Client
from vllm_plugins.packages.pip_config import PipConfig
from vllm_plugins.review import advisories, audit
from vllm_plugins.review._audit import index_checks, ref_checks
from vllm_plugins.review._audit.auditor import Finding
from vllm_plugins.review.advisories import Advisory

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from vllm_plugins.review.audit import Audit
    from vllm_plugins.startup.settings import Settings

# Nothing answers there.
NOWHERE = PipConfig(index_url="http://127.0.0.1:9/simple/", retries=0, timeout=1)
FALSE = Sha256("f" * 64)
NAME = values.NAME


class Service:
    """An advisory service; ``asked`` are the pins that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.known: tuple[Advisory, ...] = ()
        self.skipped: dict[str, str] = {}
        self.error: SourceError | None = None

    def ask(
        self, packages: list[Package], program: Path, *, service: str, cache: Path | None, patience: float
    ) -> tuple[tuple[Advisory, ...], dict[str, str]]:
        assert (program.name, service) == ("pip-audit", "a service")
        assert cache is not None
        assert patience == 3600  # that of the settings
        self.asked.append([f"{item.name}=={item.version}" for item in packages])
        if self.error is not None:
            raise self.error
        return self.known, self.skipped


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Service:
    found = Service()
    monkeypatch.setattr(advisories, "find", lambda: tmp_path / "pip-audit")
    monkeypatch.setattr(advisories, "ask", found.ask)
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return values.settings(tmp_path)


def run(
    settings: Settings,
    lock: Lock,
    index: Index | None,
    *,
    text: str | None = values.MANIFEST,
    required: tuple[str, ...] = (),
    now: datetime | None = None,
    **policy: Any,
) -> Audit:
    # What is not on the index has a URL of a host that does not exist: it is asked once.
    config = PipConfig(index_url=index.url, retries=0) if index is not None else NOWHERE
    asked = None if text is None else manifests.parse(text.encode(), settings.manifest)
    given = Policy(**policy) if policy else asked.policy if asked is not None else Policy()
    return audit.run(
        lock,
        given,
        asked,
        settings,
        index=lambda: Client(config),
        service="a service",
        required=required,
        now=now,
        reporter=SILENT,
    )


def checks(found: Audit) -> list[tuple[str, str, str]]:
    return [(item.check, item.level, item.package) for item in found.findings]


def missed(found: Audit) -> list[tuple[str, str | None]]:
    return [(item.check, item.package) for item in found.not_run]


def on_index(index: Index, name: str = "tiny", **fields: Any) -> Package:
    """A package as ``lock`` writes it, with a wheel of the index."""
    path = index.wheel(name, **{"entry_points": {"vllm.general_plugins": {"tiny": "tiny:register"}}, **fields})
    (file,) = [file for file in index.page(name)["files"] if file["filename"] == path.name]
    url = advisory.index_file(index, name, file["url"])
    wheel = Wheel(filename=path.name, sha256=of_file(path), size=path.stat().st_size, url=url)
    return values.package(name, wheels=(wheel,), index=index.url)


LATER = datetime.now(UTC) + timedelta(days=30)


def test_an_honest_lock_passes(settings: Settings, index: Index, service: Service) -> None:
    found = run(settings, values.lock(on_index(index, license="MIT")), index, now=LATER)
    assert (found.findings, found.not_run, found.fails) == ((), (), False)
    assert service.asked == [["tiny==1.0"]]
    (fact,) = found.facts
    assert (fact.package, fact.license, fact.publishers) == ("tiny", "MIT", ())
    assert fact.uploaded is not None
    assert date.fromisoformat(fact.uploaded) <= datetime.now(UTC).date() + timedelta(days=1)


def test_the_age_of_a_release_is_counted_from_now(settings: Settings, index: Index, service: Service) -> None:
    found = run(settings, values.lock(on_index(index, license="MIT")), index)
    assert (checks(found), found.fails) == ([("young", "warn", "tiny")], False)


def test_a_changed_file_fails_an_audit(settings: Settings, index: Index, service: Service) -> None:
    package = on_index(index, license="MIT")
    other = package.replace(wheels=(package.wheels[0].replace(sha256=FALSE),))
    found = run(settings, values.lock(other), index, now=LATER)
    assert ("changed", "fail", "tiny") in checks(found)
    assert found.fails


def test_failures_come_first_and_an_ignored_finding_is_left_out(
    settings: Settings, index: Index, service: Service
) -> None:
    package = on_index(index, license="MIT")
    other = package.replace(wheels=(package.wheels[0].replace(sha256=FALSE),))
    lock = values.lock(other, values.package("orphan", find_links=True))
    levels = (("orphan", "warn"), ("local-wheel", "ignore"))
    levels_found = checks(run(settings, lock, index, now=LATER, levels=levels))
    assert [level for _, level, _ in levels_found] == sorted(level for _, level, _ in levels_found)
    assert ("orphan", "warn", "orphan") in levels_found
    assert "local-wheel" not in [check for check, _, _ in levels_found]
    again = checks(run(settings, lock, index, now=LATER, levels=levels, required=("local-wheel",)))
    assert ("local-wheel", "fail", "orphan") in again


def test_an_index_that_can_not_be_read_is_not_run(settings: Settings, index: Index, service: Service) -> None:
    lock = values.lock(on_index(index))
    index.clear()
    found = run(settings, lock, None, now=LATER)
    assert set(missed(found)) == {(check, "tiny") for check in (*index_checks.OF_INDEX, "license")}
    assert (checks(found), found.fails) == ([], False)
    assert run(settings, lock, None, now=LATER, required=("changed",)).fails


def test_a_file_that_is_gone_from_its_index_fails(settings: Settings, index: Index, service: Service) -> None:
    package = on_index(index)
    index.clear()
    index.wheel("tiny", "2.0")
    found = run(settings, values.lock(package), index, now=LATER)
    assert ("yanked", "fail", "tiny") in checks(found)
    assert ("license", "tiny") in missed(found)


def test_progress_says_who_is_asked_about_what(settings: Settings, index: Index, service: Service) -> None:
    lines: list[str] = []
    lock = values.lock(on_index(index, license="MIT"))
    for offline in (False, True):
        audit.run(
            lock,
            Policy(),
            None,
            settings.replace(offline=offline),
            index=lambda: Client(PipConfig(index_url=index.url)),
            service="a service",
            now=LATER,
            reporter=Reporter(line=lines.append),
        )
    assert [line.rstrip(".… ") for line in lines if line.strip()] == [
        "Asking the index about 1 package",
        "Asking for advisories about 1 package",
        "Offline: checks that need the network are skipped",
    ]


def test_failures_and_demanded_checks_come_first_in_the_order_of_their_names(
    settings: Settings, index: Index, service: Service
) -> None:
    gone = [values.package(name, find_links=True) for name in ("b", "a")]
    lock = values.lock(on_index(index), *gone)
    found = run(settings, lock, index, now=LATER, levels=(("local-wheel", "warn"),), required=("young",))
    assert checks(found)[:2] == [("orphan", "fail", "a"), ("orphan", "fail", "b")]
    keys = [(item.level != "fail", item.check, item.package) for item in found.findings]
    assert keys == sorted(keys)
    order = [(not item.demanded, item.check, item.package or "") for item in found.not_run]
    assert order == sorted(order)
    assert [item.package for item in found.not_run if item.demanded] == ["a", "b"]
    assert [fact.package for fact in found.facts] == ["a", "b", "tiny"]


def test_offline_each_check_of_the_network_is_not_run(settings: Settings, index: Index, service: Service) -> None:
    away = settings.replace(offline=True)
    found = run(away, values.lock(on_index(index)), index)
    whole = {(check, None) for check in (*index_checks.OF_INDEX, "vulnerabilities")}
    assert set(missed(found)) == whole | {("license", "tiny")}
    assert {item.why for item in found.not_run} == {"offline", "its wheel is not in plugins.wheels/"}
    assert not found.fails
    assert run(away, values.lock(on_index(index)), index, required=("vulnerabilities",)).fails
    assert service.asked == []


def test_offline_the_licence_of_a_wheel_next_to_the_lock_is_read(
    settings: Settings, index: Index, service: Service
) -> None:
    package = on_index(index, license="GPL-3.0-only")
    settings.wheels.mkdir(parents=True)
    (path,) = (index.directory / "tiny").glob("*.whl")
    (settings.wheels / path.name).write_bytes(path.read_bytes())
    away = settings.replace(offline=True)
    found = run(away, values.lock(package), index, denied_licenses=("GPL-3.0-only",))
    assert ("license", "warn", "tiny") in checks(found)
    (step,) = [item.next_step for item in found.findings if item.check == "license"]
    assert step == "review it, then add it to `policy.allowed-licenses` in plugins.yaml, or remove the plugin"
    assert found.facts[0].license == "GPL-3.0-only"


@pytest.mark.parametrize("how", damage.WAYS)
def test_a_wheel_next_to_the_lock_that_can_not_be_read_hides_nothing_else(
    settings: Settings, index: Index, service: Service, how: str
) -> None:
    """The wheel is in the change that is reviewed, and its hash is the lock's: whoever made it can make it so."""
    path = projects.wheel(settings.wheels, "tiny", license="MIT")
    damage.damage(path, "METADATA", how)
    wheel = Wheel(filename=path.name, sha256=of_file(path), size=path.stat().st_size)
    stray = values.package("stray", wheels=(values.wheel("stray", url=None),), find_links=True)
    found = run(settings, values.lock(values.package(wheels=(wheel,)), stray), index, now=LATER)
    assert ("license", "tiny") in missed(found)
    assert ("orphan", "fail", "stray") in checks(found)


def test_a_package_of_a_directory_is_asked_of_nobody(settings: Settings, index: Index, service: Service) -> None:
    path = projects.wheel(settings.wheels, "tiny", license="MIT")
    wheel = Wheel(filename=path.name, sha256=of_file(path), size=path.stat().st_size)
    lock = values.lock(values.package(wheels=(wheel,), find_links=True))
    found = run(settings, lock, index, now=LATER)
    assert set(missed(found)) == {(check, "tiny") for check in (*index_checks.OF_INDEX, "vulnerabilities")}
    assert {item.why for item in found.not_run} == {
        "it comes from a directory of find-links",
        "it comes from a directory, and its name stays here",
    }
    assert service.asked == [[]]
    assert found.facts[0].license == "MIT"


def test_a_package_of_an_index_of_its_own_is_not_named_to_the_service(
    settings: Settings, index: Index, service: Service
) -> None:
    (plugin,) = values.lock().plugins
    own = plugin.replace(index="own", index_url=index.url)
    lock = values.lock(on_index(index), on_index(index, "public"), plugins=(own,))
    found = run(settings, lock, index, text=None, now=LATER)
    assert service.asked == [["public==1.0"]]
    (why,) = [item.why for item in found.not_run if (item.check, item.package) == ("vulnerabilities", "tiny")]
    assert why == "it comes from the index 'own' alone, and its name stays there"


def test_an_editable_directory_is_asked_of_no_index(settings: Settings, index: Index, service: Service) -> None:
    entry = Plugin(
        name="tiny",
        source="local",
        package=NAME("tiny"),
        version="1.0",
        requested="x",
        editable=True,
        project_sha256=FALSE,
        entry_points=(("vllm.general_plugins", "tiny", "tiny:register"),),
    )
    text = "plugins:\n  - {name: tiny, source: local, path: x, editable: true}\n"
    lock = values.lock(values.package(wheels=(), directory="x"), plugins=(entry,), manifest=text)
    found = run(settings, lock, index, text=text, now=LATER)
    assert (checks(found), found.facts) == ([("unhashed", "fail", "tiny")], ())
    assert service.asked == [[]]


def vulnerable(name: str = "tiny", version: str = "1.0", *, fixed: tuple[str, ...] = ("2.0",)) -> Advisory:
    return Advisory(package=NAME(name), version=version, ids=("CVE-1", "GHSA-1"), fixed_in=fixed)


def build_requirement(index: Index) -> tuple[Package, BuildRequirement]:
    """A package of the index, and the same as what another one is built with."""
    tool = on_index(index, "tool")
    return tool, BuildRequirement(name=NAME("tool"), version="1.0", wheels=tool.wheels, index=index.url)


def test_a_vulnerability_fails_until_it_is_accepted(settings: Settings, index: Index, service: Service) -> None:
    lock = values.lock(on_index(index, license="MIT"))
    service.known = (vulnerable(),)
    (finding,) = run(settings, lock, index, now=LATER).findings
    assert finding.what == "is vulnerable: CVE-1 (GHSA-1); fixed in 2.0"
    assert finding.next_step == "vllm-plugins lock --upgrade-package tiny"
    assert (finding.check, finding.level) == ("vulnerabilities", "fail")
    expiring = Accepted(id="GHSA-1", reason="not reachable", until=LATER.date())
    accepted = run(settings, lock, index, now=LATER, accepted=(expiring,)).findings
    assert [item.check for item in accepted] == ["policy-changed"]
    later = run(settings, lock, index, now=LATER + timedelta(days=2), accepted=(expiring,)).findings
    assert "vulnerabilities" in [item.check for item in later]


def test_a_vulnerability_without_a_fix_says_so(settings: Settings, index: Index, service: Service) -> None:
    service.known = (vulnerable(fixed=()),)
    (finding,) = run(settings, values.lock(on_index(index, license="MIT")), index, now=LATER).findings
    assert finding.what.endswith("; no release fixes it")
    assert finding.next_step == "remove the plugin, or add it to `policy.accepted`"


def test_a_vulnerable_build_requirement_is_a_finding_about_what_was_built_with_it(
    settings: Settings, index: Index, service: Service
) -> None:
    _, item = build_requirement(index)
    package = on_index(index, license="MIT").replace(built_with=("tool==1.0",), dependencies=(NAME("more"),))
    lock = values.lock(package, on_index(index, "more", license="MIT"), build_requirements=(item,))
    service.known = (vulnerable("tool"), vulnerable("tool", "9.0"), vulnerable("nobody"))
    found = run(settings, lock, index, now=LATER)
    assert service.asked == [["tiny==1.0", "more==1.0", "tool==1.0"]]
    (finding,) = found.findings
    assert (finding.package, finding.what) == (
        "tool",
        "is vulnerable: CVE-1 (GHSA-1); fixed in 2.0; tiny was built with it",
    )
    assert finding.next_step == "vllm-plugins lock --upgrade-package tiny"


def test_a_build_requirement_that_is_locked_itself_is_asked_about_once(
    settings: Settings, index: Index, service: Service
) -> None:
    tool, item = build_requirement(index)
    package = on_index(index).replace(built_with=("tool==1.0",), dependencies=(NAME("tool"),))
    run(settings, values.lock(package, tool, build_requirements=(item,)), index, now=LATER)
    assert service.asked == [["tiny==1.0", "tool==1.0"]]


def test_a_service_that_fails_or_skips_a_package_is_not_run(
    settings: Settings, index: Index, service: Service
) -> None:
    lock = values.lock(on_index(index))
    service.skipped = {"tiny": "unknown there"}
    assert missed(run(settings, lock, index, now=LATER)) == [("vulnerabilities", "tiny")]
    service.error = SourceError("the advisory service can't be read", found="503")
    found = run(settings, lock, index, now=LATER, required=("vulnerabilities",))
    (item,) = found.not_run
    assert (item.why, item.demanded, found.fails) == ("the advisory service can't be read: 503", True, True)


def test_without_pip_audit_nothing_is_known_of_vulnerabilities(
    settings: Settings, index: Index, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisories, "find", lambda: None)
    (item,) = run(settings, values.lock(on_index(index)), index, now=LATER).not_run
    assert (item.check, item.package) == ("vulnerabilities", None)
    assert item.why == "pip-audit is not installed: pipx install pip-audit"
    assert service.asked == []


def test_an_ignored_check_of_vulnerabilities_asks_nobody(settings: Settings, index: Index, service: Service) -> None:
    service.known = (vulnerable(),)
    lock = values.lock(on_index(index))
    ignored = run(settings, lock, index, now=LATER, levels=(("vulnerabilities", "ignore"),))
    assert "vulnerabilities" not in [check for check, _, _ in checks(ignored)]
    assert service.asked == []


def git(settings: Settings, tmp_path: Path, url: str | None = None) -> tuple[Repository, str, Lock]:
    repository = Repository.init(tmp_path / "repository")
    commit = repository.commit(files={"pyproject.toml": "[project]\nname = 'tiny'\nversion = '1.0'\n"})
    path = projects.wheel(settings.wheels, "tiny", license="MIT")
    wheel = Wheel(filename=path.name, sha256=of_file(path), size=path.stat().st_size)
    text = f"plugins:\n  - {{name: tiny, source: git, url: '{repository.url}', ref: main}}\n"
    entry = Plugin(
        name="tiny",
        source="git",
        package=NAME("tiny"),
        version="1.0",
        requested="main",
        url=url or repository.url,
        commit=CommitSha(commit),
        tree_sha256=FALSE,
        entry_points=(("vllm.general_plugins", "tiny", "tiny:register"),),
    )
    return repository, text, values.lock(values.package(wheels=(wheel,)), plugins=(entry,), manifest=text)


@pytest.fixture
def _git(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in git_environment().items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_git")
def test_a_ref_that_moved_is_a_finding(settings: Settings, index: Index, tmp_path: Path, service: Service) -> None:
    repository, text, lock = git(settings, tmp_path)
    assert run(settings, lock, index, text=text).findings == ()
    assert service.asked == [[]]
    now = repository.commit("later")
    (finding,) = run(settings, lock, index, text=text).findings
    assert isinstance(finding, Finding)
    assert (finding.check, finding.what) == (
        "moved-ref",
        f"main is now commit {now[:12]}; {str(lock.plugins[0].commit)[:12]} is locked",
    )
    assert finding.next_step == "vllm-plugins lock --upgrade-package tiny"
    quiet = run(settings, lock, index, text=text, levels=(("moved-ref", "ignore"),))
    assert "moved-ref" not in [item.check for item in quiet.findings]


@pytest.mark.usefixtures("_git")
def test_a_ref_that_can_not_be_read_is_not_run(
    settings: Settings, index: Index, tmp_path: Path, service: Service
) -> None:
    repository, text, lock = git(settings, tmp_path)
    repository.path.rename(tmp_path / "gone")
    assert ("moved-ref", "tiny") in missed(run(settings, lock, index, text=text))
    assert ("moved-ref", None) in missed(run(settings.replace(offline=True), lock, index, text=text))


def test_a_repository_is_the_locks_where_the_manifest_has_another(settings: Settings) -> None:
    """The manifest may say how to log in, and not which repository is looked at."""
    (plugin,) = values.lock().plugins
    locked = plugin.replace(source="git", url="https://example.org/tiny.git", requested="v1")
    login, other = "https://${TOKEN}@example.org/tiny.git", "https://example.org/another.git"
    for url, expected in ((login, login), (other, locked.url)):
        text = f"plugins:\n  - {{name: tiny, source: git, url: '{url}', ref: main}}\n"
        source = ref_checks._source(locked, manifests.parse(text.encode(), settings.manifest))
        assert (source.url, source.ref) == (expected, "v1")
    for text in (values.MANIFEST, values.MANIFEST.replace("name: tiny", "name: other")):
        assert ref_checks._source(locked, manifests.parse(text.encode(), settings.manifest)).url == locked.url
    assert ref_checks._source(locked, None).url == locked.url
