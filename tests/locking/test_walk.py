from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.kit.raw_wheel import RawWheel
from tests.locking.links import BASE, Links, root
from vllm_plugins.core.errors import SourceError
from vllm_plugins.documents import base
from vllm_plugins.locking._search.findings import Root
from vllm_plugins.packages.metadata import Metadata
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from pathlib import Path

NAME = canonicalize_name
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
HERE = f"the base is Python {PYTHON} on {BASE.platform}"
LIBRARY = f"{HERE}, up to {next(tag for tag in BASE.platforms if tag.startswith('manylinux_'))}"


def built(name: str, version: str = "1.0", *requires: str) -> Root:
    """A plugin that was built from its source."""
    content = Metadata(name=NAME(name), version=Version(version), requires=requires)
    return Root(plugin=name, name=NAME(name), metadata=content)


def test_a_plugin_whose_requirements_are_met_has_no_finding(links: Links) -> None:
    links.wheel("demo", requires=["torch>=2", "vllm", "helper>=1"])
    links.wheel("helper", "1.5", requires=["demo"])  # a cycle
    assert links.findings("demo") == {}
    assert links.reported == ["Reading demo", "Reading helper"]


def test_a_conflict_with_the_base_is_reported_with_the_path_to_it(links: Links) -> None:
    links.wheel("near", requires=["torch<2"])
    links.wheel("far", requires=["middle>=1"])
    links.wheel("middle", "1.2", requires=["deep"])
    links.wheel("deep", requires=["torch<2"])
    assert links.lines("near", "far") == {
        "near": "near 1.0 requires torch<2; the base has torch 2.13.0+cpu",
        "far": "far 1.0 → middle 1.2 → deep 1.0 requires torch<2; the base has torch 2.13.0+cpu",
    }


def test_the_newest_release_is_reported_first_and_the_others_are_counted(links: Links) -> None:
    for version in ("1.0", "2.0", "3.0"):
        links.wheel("demo", version, requires=[f"torch<{version}"])
    links.wheel("demo", "0.9", requires=["torch<1"])
    assert links.lines("demo<3") == {
        "demo": "demo 2.0 requires torch<2.0; the base has torch 2.13.0+cpu "
        "(the same or another reason rules out 2 other releases)"
    }
    assert links.lines("demo") == {}  # the newest fits


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"requires_python": ">=3.99"}, f"requires Python >=3.99; the base has Python {BASE.python}"),
        ({"tag": "cp312-cp312-macosx_11_0_arm64"}, f"has only wheels for cp312 macosx_11_0_arm64; {HERE}"),
        ({"tag": "cp39-cp39-manylinux_2_28_x86_64"}, f"has only wheels for cp39 manylinux_2_28_x86_64; {LIBRARY}"),
        ({"tag": "cp311-cp311t-any"}, f"has only wheels for cp311-cp311t any; {HERE}"),
    ],
)
def test_a_release_that_this_python_or_machine_can_not_use(links: Links, fields: dict[str, str], reason: str) -> None:
    links.wheel("demo", **fields)
    links.wheel("needy", requires=["demo"])
    assert links.lines("demo", "needy") == {
        "demo": f"demo 1.0 {reason}",
        "needy": f"needy 1.0 → demo 1.0 {reason}",
    }


def test_a_wheel_whose_name_and_metadata_disagree_is_reported(links: Links) -> None:
    RawWheel(name="demo", version="1.0", says_version="1.0+cu12").write(links.directory)
    assert links.lines("demo")["demo"] == (
        "demo 1.0 can't be used: the file name of the wheel demo-1.0-py3-none-any.whl does not agree with its "
        "metadata; it has demo 1.0+cu12 (its METADATA)"
    )


def test_unknown_names_and_versions_are_distinguished(links: Links) -> None:
    links.wheel("demo", "1.0")
    links.wheel("demo", "1.5")
    links.wheel("needy", requires=["absent==9.9"])
    links.wheel("choosy", requires=["demo>=2"])
    assert links.lines("nowhere", "demo>=2", "needy", "choosy") == {
        "nowhere": "no index has a distribution of this name",
        "demo": "no release satisfies >=2; there is 1.5 and 1 other release",
        "needy": "needy 1.0 requires absent==9.9; no index has a distribution of this name",
        "choosy": "choosy 1.0 requires demo>=2; no release satisfies >=2; there is 1.5 and 1 other release",
    }


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ((), "the index has this name without any file, as after a deletion or in quarantine"),
        (
            ("demo-1.0_1-py3-none-any.whl",),
            "the index has no file with the name of a wheel or an sdist of it: demo-1.0_1-py3-none-any.whl",
        ),
        (("demo-1.0.exe",), "the index has no file with the name of a wheel or an sdist of it: demo-1.0.exe"),
        (
            ("demo-1.egg", "demo-2.egg", "demo-2004d.zip", "demo-3.egg"),
            "the index has no file with the name of a wheel or an sdist of it: demo-1.egg, demo-2.egg, demo-2004d.zip and 1 more",
        ),
    ],
)
def test_a_name_that_an_index_has_without_a_release_is_told_from_an_unknown_one(
    tmp_path: Path, listed: tuple[str, ...], reason: str
) -> None:
    (tmp_path / "demo").mkdir()
    page = "".join(f'<a href="{name}">{name}</a>' for name in listed)
    (tmp_path / "demo" / "index.html").write_text(f"<!DOCTYPE html><html><body>{page}</body></html>")
    links = Links(directory=tmp_path)
    with links.walk("demo", config=PipConfig(index_url=tmp_path.as_uri())) as walk:
        assert {name: str(found) for name, found in walk.run().items()} == {"demo": reason}


def test_a_prerelease_is_taken_only_where_there_is_nothing_else(links: Links) -> None:
    links.wheel("demo", "1.0")
    links.wheel("demo", "2.0rc1", requires=["torch<2"])
    assert links.findings("demo") == {}
    assert set(links.findings("demo>=2.0rc1")) == {"demo"}
    links.wheel("early", "1.0a1")
    assert links.findings("early") == {}


@pytest.mark.parametrize("url", ["git+https://example.org/x.git", "https://ada:secret@example.org/x.whl"])
def test_a_dependency_by_url_is_found_before_anything_of_it_is_read(links: Links, url: str) -> None:
    links.wheel("demo", requires=[f"other @ {url}"])
    (line,) = links.lines("demo").values()
    assert line.startswith("demo 1.0 requires other by URL: ")
    assert "secret" not in line
    built_plugin = links.findings(built("mine", "1.0", f"other @ {url}"))
    assert built_plugin["mine"].kind == "url"


def test_a_dependency_must_agree_with_a_plugin_that_was_built(links: Links) -> None:
    links.wheel("demo", requires=["mine>=2"])
    assert links.lines("demo", built("mine", "1.0")) == {
        "demo": "demo 1.0 requires mine>=2; the plugin in plugins.yaml is mine 1.0"
    }
    assert links.lines("demo", built("mine", "2.0")) == {}


def test_without_vllm_an_older_release_that_does_not_mention_it_is_not_an_answer(links: Links) -> None:
    links.wheel("demo", "1.0")
    links.wheel("demo", "2.0", requires=["vllm>=0.30"])
    assert links.findings("demo", base=base.of_here(()))["demo"].kind == "vllm"


def test_extras_of_plugins_and_of_the_base_are_followed(links: Links) -> None:
    links.wheel("demo", extras={"fast": ["torch<2"]}, requires=["ray[default]"])
    links.wheel("aiohttp", "2.0")
    assert links.lines("demo[fast]")["demo"].startswith("demo 1.0 requires ")
    assert "aiohttp>=3" in links.lines("demo")["demo"]
    links.wheel("aiohttp", "3.0")
    assert links.lines("demo") == {}
    assert links.lines("demo[Fast]")["demo"] == (
        'demo 1.0 requires torch<2; extra == "fast"; the base has torch 2.13.0+cpu'
    )


def test_requirements_of_another_machine_are_not_followed(links: Links) -> None:
    links.wheel("demo", requires=["absent; sys_platform == 'win32'", "torch<2; python_version < '3'"])
    assert links.findings("demo") == {}


def test_only_a_newest_sdist_of_a_plugin_is_to_be_built(links: Links) -> None:
    links.sdist("demo", "2.0")
    links.wheel("demo", "1.0")
    with links.walk("demo") as walk:
        assert walk.run() == {}
        assert {name: str(found.version) for name, found in walk.to_build.items()} == {"demo": "2.0"}
    links.wheel("demo", "3.0", requires=["torch<2"])
    with links.walk("demo") as walk:  # behind a release that does not fit, it is not
        assert walk.run() == {}
        assert walk.to_build == {}
    links.wheel("demo", "1.0", requires=["torch<2"])
    assert links.lines("demo") == {
        "demo": "demo 3.0 requires torch<2; the base has torch 2.13.0+cpu "
        "(the same or another reason rules out 2 other releases)"
    }


def test_a_dependency_has_a_wheel_before_it_has_a_newer_sdist(links: Links) -> None:
    links.wheel("demo", requires=["helper"])
    links.sdist("helper", "2.0")
    links.wheel("helper", "1.0")
    with links.walk("demo") as walk:
        assert walk.run() == {}
        assert walk.to_build == {}
    links.wheel("other", requires=["helper>=2"])
    with links.walk("demo", "other") as walk:
        assert walk.run() == {}
        assert [str(found) for found in walk.to_build.values()] == ["helper 2.0"]
        assert [(need.plugin, need.path) for need in walk.choices.reached()[NAME("helper")]][1] == (
            "other",
            ("other 1.0",),
        )


def test_sdists_of_a_dependency_are_not_built_one_after_the_other(links: Links) -> None:
    links.wheel("demo", requires=["helper"])
    links.sdist("helper", "2.0")
    links.sdist("helper", "1.0")
    with links.walk("demo") as walk:
        walk.run()
        (helper,) = walk.to_build.values()
        content = Metadata(name=NAME("helper"), version=helper.version, requires=("torch<2",))
        walk.candidates.built[helper.name, helper.version] = content
        findings = walk.run()
        assert walk.to_build == {}
    assert findings["demo"].path == ("demo 1.0", "helper 2.0")


def test_an_sdist_that_only_a_passed_over_release_needs_is_not_built(links: Links) -> None:
    links.wheel("demo", "2.0", requires=["helper", "torch<2"])
    links.wheel("demo", "1.0")
    links.sdist("helper", "1.0")
    with links.walk("demo") as walk:
        assert walk.run() == {}
        assert walk.to_build == {}


def test_a_passed_over_release_that_requires_a_url_is_kept_from_the_resolver(links: Links) -> None:
    links.wheel("demo", requires=["helper"])
    links.wheel("helper", "1.0")
    links.wheel("helper", "2.0", requires=["other @ git+https://example.org/other"])
    with links.walk("demo") as walk:
        assert walk.run() == {}
        assert [str(found) for found in walk.refused] == ["helper 2.0"]


def test_a_wheel_whose_metadata_is_known_and_that_is_damaged_since_is_an_error(links: Links) -> None:
    links.wheel("demo")
    with links.walk("demo") as walk:
        assert walk.run() == {}
        walk.choices.check_files()
        next(links.directory.glob("demo-*.whl")).write_bytes(b"log in")
        with pytest.raises(SourceError):
            walk.choices.check_files()


def test_the_old_pin_is_tried_first(links: Links) -> None:
    links.wheel("demo", "1.0")
    links.wheel("demo", "2.0", requires=["helper"])
    links.wheel("helper")
    with links.walk("demo", preferred={NAME("demo"): "1.0"}) as walk:
        assert walk.run() == {}
        assert set(walk.choices.reached()) == {"demo"}
    with links.walk("demo") as walk:
        walk.run()
        assert set(walk.choices.reached()) == {"demo", "helper"}


def test_requirements_that_exclude_one_another_are_named_with_their_plugins(links: Links) -> None:
    links.wheel("helper", "1.0")
    links.wheel("helper", "2.0")
    links.wheel("one", requires=["middle"])
    links.wheel("middle", requires=["helper<2"])
    links.wheel("two", requires=["helper>=2"])
    with links.walk("one", "two") as walk:
        assert walk.run() == {}
        assert walk.choices.clashes() == [
            "plugin 'two': two 1.0 requires helper>=2",
            "plugin 'one': one 1.0 → middle 1.0 requires helper<2",
        ]
    with links.walk(root("helper<2", "mine"), "two") as walk:
        walk.run()
        assert walk.choices.clashes() == [
            "plugin 'mine': plugins.yaml requires helper<2",
            "plugin 'two': two 1.0 requires helper>=2",
        ]


def test_many_releases_that_do_not_fit_leave_the_verdict_to_the_resolver(links: Links) -> None:
    links.wheel("demo", requires=["helper"])
    for number in range(15):
        links.wheel("helper", f"{number}.0", requires=["torch<2"])
    found = links.findings("demo")["demo"]
    assert not found.is_certain
    assert replace(found, is_certain=True).path == ("demo 1.0", "helper 14.0")


@pytest.mark.parametrize("ahead", [False, True])
def test_what_can_not_be_read_is_named_with_the_plugin_that_requires_it(links: Links, ahead: bool) -> None:
    links.wheel("fine")
    links.wheel("needy", requires=["broken"])
    (links.directory / "broken-1.0-py3-none-any.whl").write_bytes(b"<html>not a zip</html>")
    with pytest.raises(SourceError, match="a file of the index is not a valid wheel") as caught:
        links.findings(*(["fine", "broken"] if ahead else ["needy"]))
    assert caught.value.required_by == ("plugin 'broken'" if ahead else "plugin 'needy'")
