"""``min-age-days`` keeps resolvers from releases that are too young."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from tests.kit import projects
from tests.kit.long import long
from vllm_plugins.core.errors import SourceError
from vllm_plugins.packages import programs
from vllm_plugins.packages.cooldown import Cooldown, upload_time
from vllm_plugins.packages.pip_config import PipConfig
from vllm_plugins.packages.simple_api import File

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.advisory import Teller
    from tests.kit.index import Index
    from tests.kit.place import Completed, Place

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
OLD = "2020-01-01T00:00:00Z"


def release(
    index: Index, teller: Teller, name: str, version: str, *, days: float, requires: tuple[str, ...] = ()
) -> None:
    wheel = index.wheel(name, version, requires=requires)
    when = datetime.now(UTC) - timedelta(days=days)
    teller.files[wheel.name] = {"upload-time": when.isoformat()}


def lock(place: Place, teller: Teller, *words: str, check: bool = True) -> Completed:
    return place.run("lock", *words, env={"PIP_INDEX_URL": teller.index_url}, check=check)


def write(place: Place, policy: str, version: str = "") -> None:
    place.write(
        f"plugins:\n  - {{name: tiny, source: pypi, package: tiny, version: '{version}'}}\npolicy: {policy}\n"
    )


@pytest.mark.parametrize("resolver", ["pip-compile", *long("uv")])
def test_an_older_release_is_taken_of_a_plugin_and_of_what_it_requires(
    place: Place, index: Index, teller: Teller, resolver: str
) -> None:
    release(index, teller, "tiny", "1.0", days=30, requires=("helper",))
    release(index, teller, "tiny", "2.0", days=2, requires=("helper",))
    release(index, teller, "helper", "1.0", days=30)
    release(index, teller, "helper", "1.5", days=6.9)
    write(place, "{min-age-days: 7}", ">=1")
    lock(place, teller, "--resolver", resolver)
    assert place.versions == {"tiny": "1.0", "helper": "1.0"}
    write(place, "{min-age-days: 7, min-age-exempt: [Helper]}", ">=1")
    lock(place, teller, "--upgrade", "--resolver", resolver)
    assert place.versions == {"tiny": "1.0", "helper": "1.5"}
    write(place, "{young: warn}", ">=1")  # without a number, nothing waits
    lock(place, teller, "--upgrade", "--resolver", resolver)
    assert place.versions == {"tiny": "2.0", "helper": "1.5"}
    write(place, "{min-age-days: 7}", ">0")
    lock(place, teller, "--resolver", resolver)  # not even what was locked
    assert place.versions == {"tiny": "1.0", "helper": "1.0"}


def test_the_error_says_which_release_was_too_young_and_until_when(
    place: Place, index: Index, teller: Teller
) -> None:
    release(index, teller, "tiny", "2.0", days=2)
    when = upload_time(teller.files["tiny-2.0-py3-none-any.whl"]["upload-time"])
    assert when is not None
    write(place, "{min-age-days: 7}", ">=2")
    done = lock(place, teller, check=False)
    assert done.returncode == 6
    enough = when + timedelta(days=7)
    assert f"tiny 2.0 is too young: it was uploaded on {when:%Y-%m-%d %H:%M} UTC" in done.stderr
    assert f"and is 7 days old on {enough:%Y-%m-%d %H:%M} UTC" in done.stderr
    step = "wait, or, after a review, add tiny to `min-age-exempt` of `policy:` in plugins.yaml"
    assert step in done.stderr
    write(place, "{min-age-days: 7, min-age-exempt: [tiny]}", ">=2")
    lock(place, teller)


def test_a_release_without_an_upload_time_is_refused_unless_it_is_exempt(
    place: Place, index: Index, teller: Teller
) -> None:
    teller.files[index.wheel("tiny").name] = {"upload-time": None}
    write(place, "{min-age-days: 7}", ">=1")
    done = lock(place, teller, check=False)
    assert done.returncode == 6
    assert "tiny 1.0 has no upload time at its index, and the policy requires an age of 7 days" in done.stderr
    write(place, "{min-age-days: 7, min-age-exempt: [tiny]}", ">=1")
    lock(place, teller)


def test_a_young_file_of_an_old_release_is_not_locked(
    place: Place, index: Index, teller: Teller, tmp_path: Path
) -> None:
    release(index, teller, "tiny", "1.0", days=30)
    added = projects.wheel(tmp_path / "added", "tiny", "1.0", tag="py2.py3-none-any", modules={"evil.py": ""})
    index.add(added)
    teller.files[added.name] = {"upload-time": datetime.now(UTC).isoformat()}
    write(place, "{min-age-days: 7}", ">=1")
    lock(place, teller)
    assert [wheel["name"] for wheel in place.package("tiny")["wheels"]] == ["tiny-1.0-py3-none-any.whl"]


def test_the_exempt_are_not_young_in_an_audit(place: Place, index: Index, teller: Teller) -> None:
    release(index, teller, "tiny", "1.0", days=2)
    for exempt, found in (("", {"young"}), (", min-age-exempt: [tiny]", set())):
        write(place, "{license: ignore, no-entry-point: ignore}", ">=1")
        lock(place, teller)
        write(place, f"{{license: ignore, no-entry-point: ignore, min-age-days: 7{exempt}}}", ">=1")
        env = {"PIP_INDEX_URL": teller.index_url}
        done = place.run("audit", "--json", "--service", teller.service, env=env)
        assert {item["check"] for item in done.json["findings"]} == found


def test_pip_and_uv_wait_for_build_requirements() -> None:
    config = PipConfig(index_url="https://example.org/simple/", uploaded_before="2026-03-03T12:00:00+00:00")
    assert programs.pip_environment(config, {})["PIP_UPLOADED_PRIOR_TO"] == "2026-03-03T12:00:00+00:00"
    assert "PIP_UPLOADED_PRIOR_TO" not in programs.pip_environment(PipConfig(index_url=None), {})


@pytest.mark.parametrize(
    ("time", "too_young"),
    [
        ("2026-03-03T12:00:00Z", False),
        ("2026-03-03T12:00:01Z", True),
        ("2026-03-03T13:00:00+02:00", False),
        ("2026-03-03T12:00:00", False),  # without a zone: UTC
        ("2999-01-01T00:00:00Z", True),
        ("yesterday", True),
        (None, True),
    ],
)
def test_the_age_of_a_file_is_that_of_its_upload(time: str | None, too_young: bool) -> None:
    file = File(filename="tiny-1.0-py3-none-any.whl", url="https://example.org/x", upload_time=time)
    tiny = canonicalize_name("tiny")
    (found,) = Cooldown(days=7, exempt=frozenset(), now=NOW).mark(tiny, [file])
    assert bool(found.too_young) is too_young
    (found,) = Cooldown(days=7, exempt=frozenset({tiny}), now=NOW).mark(tiny, [file])
    assert found == file


@pytest.mark.parametrize(
    ("headers", "is_ahead"),
    [
        ({"Date": "Tue, 10 Mar 2026 12:00:00 GMT"}, False),
        ({"Date": "Tue, 10 Mar 2026 00:00:00 GMT"}, False),
        ({"Date": "Mon, 09 Mar 2026 23:59:59 GMT"}, True),
        ({"Date": "Mon, 09 Mar 2026 23:59:59 GMT", "Age": "60"}, False),  # it was in a cache for a minute
        ({"Date": "Mon, 09 Mar 2026 23:59:59 -0000"}, True),
        ({"Date": "Thu, 10 Mar 2050 12:00:00 GMT"}, False),  # behind: all releases are too young
        ({"Date": "Mon, 09 Mar 1000 23:59:59 GMT"}, True),
        ({"Date": "Fri, 31 Dec 9999 23:59:59 GMT", "Age": "9" * 30}, False),
        ({"Date": "yesterday"}, False),
        ({}, False),
    ],
)
def test_a_clock_that_is_ahead_of_the_indexs_is_refused(headers: dict[str, str], is_ahead: bool) -> None:
    cooldown = Cooldown(days=7, exempt=frozenset(), now=NOW)
    if not is_ahead:
        cooldown.check_clock(headers, "https://index.example/simple/tiny/")
        return
    with pytest.raises(SourceError, match="the clock of this machine is ahead of the index's") as caught:
        cooldown.check_clock(headers, "https://index.example/simple/tiny/")
    assert caught.value.found == "2026-03-10 12:00 UTC"


def test_a_release_of_the_future_is_reported_with_the_clock() -> None:
    file = File(filename="tiny-1.0-py3-none-any.whl", url="https://x/", upload_time="2030-01-01T00:00:00Z")
    (marked,) = Cooldown(days=7, exempt=frozenset(), now=NOW).mark(canonicalize_name("tiny"), [file])
    assert marked.too_young.endswith("; the clock of this machine says 2026-03-10 12:00 UTC")
