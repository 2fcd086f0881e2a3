from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.long import long
from vllm_plugins.packages import requirement_lines

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place


@pytest.mark.parametrize(
    ("line", "normal"),
    [
        ("helper", "helper"),
        ("Helper (>=1.0)", "Helper (>=1.0)"),
        ("helper; python_version == '3.11'", "helper; python_version == '3.11'"),
        ("helper; python_version === '3.11'", 'helper; python_version == "3.11"'),
        (
            "helper>=1; '3.11' === python_version or extra == 'x'",
            'helper>=1; "3.11" == python_version or extra == "x"',
        ),
    ],
)
def test_a_requirement_is_read_by_pip_and_uv_in_its_normal_form(line: str, normal: str) -> None:
    assert requirement_lines.normal(line) == normal


@pytest.mark.parametrize(
    "line", ["helper>=1.0.*", "helper (>=1", "helper; nothing == 'x'", "helper; sys_platform === 'linux'"]
)
def test_a_requirement_that_pip_can_not_read_is_not_valid(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several classes
        requirement_lines.normal(line)
    assert list(requirement_lines.valid(["first", line, "last"])) == ["first", "last"]


@pytest.mark.parametrize("kind", ["sdist", *long("index", "local")])
def test_a_marker_that_uv_can_not_read_is_locked_with_both_resolvers(place: Place, index: Index, kind: str) -> None:
    requires = ["helper; python_version === '3.11' or python_version >= '3'", "missing; python_version === '2.7'"]
    index.wheel("helper")
    place.pypi("tiny")
    if kind == "index":
        index.wheel("tiny", requires=requires)
    elif kind == "sdist":
        index.sdist("tiny", requires=requires)
    else:
        projects.project(place.config / "tiny", name="tiny", requires=requires)
        place.write("plugins:\n  - {name: tiny, source: local, path: tiny}\n")
    locks = []
    for resolver in ("pip-compile", "uv"):
        place.lock.unlink(missing_ok=True)
        place.run("lock", "--resolver", resolver)
        locks.append(place.lock_text)
    assert locks[0] == locks[1]
    assert set(place.versions) == {"tiny", "helper"}
    for installer in ("pip", "uv"):
        place.run("sync", "--reinstall", "--installer", installer)


@pytest.mark.parametrize("line", ["helper>=1.0.*", "helper; sys_platform === 'linux'"])
def test_a_release_that_pip_could_not_install_is_passed_over_by_both_resolvers(
    place: Place, index: Index, line: str
) -> None:
    index.wheel("helper")
    index.wheel("tiny", requires=["middle"])
    index.wheel("middle", "1.0")
    index.wheel("middle", "2.0", requires=[line])
    place.pypi("tiny")
    for resolver in ("pip-compile", "uv"):
        place.lock.unlink(missing_ok=True)
        place.run("lock", "--resolver", resolver)
        assert place.versions == {"tiny": "1.0", "middle": "1.0"}
    place.pypi("middle>1")
    for resolver in ("pip-compile", "uv"):
        done = place.run("lock", "--resolver", resolver, check=False)
        assert done.returncode == 6
        assert (
            "plugin 'middle': middle 2.0 can't be used: the metadata of a distribution has a requirement"
            in done.stderr
        )
