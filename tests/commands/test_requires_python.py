from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.kit import faulty, projects
from tests.kit.long import long
from vllm_plugins.packages import simple_api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kit.index import Index
    from tests.kit.place import Place

URL = "https://example.org/simple/tiny/"
NAME = "tiny-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("value", "read"),
    [(">=3.9", ">=3.9"), (">=3.6.*", None), ("three", None), (">=3.9,<4.0.*", None), (">=3.9, !=3.10.*", "!=3.10.*,>=3.9")],
)  # fmt: skip
def test_an_invalid_requires_python_of_an_index_counts_as_none(value: str, read: str | None) -> None:
    page = f'<a href="{NAME}#sha256={"0" * 64}" data-requires-python="{value.replace(">", "&gt;")}">{NAME}</a>'
    item = {"filename": NAME, "url": NAME, "hashes": {"sha256": "0" * 64}, "requires-python": value}
    data = json.dumps({"files": [item]}).encode()
    (from_html,) = simple_api.from_html(page, base=URL, index=None)
    (from_json,) = simple_api.from_json(data, base=URL, index=None)
    assert from_html.requires_python == from_json.requires_python == read
    assert from_html.odd_python == from_json.odd_python == (read is None)


@pytest.mark.parametrize("value", ["", " ", ","])
def test_an_empty_requires_python_is_none_and_valid(value: str) -> None:
    page = f'<a href="{NAME}" data-requires-python="{value}">{NAME}</a>'
    (from_html,) = simple_api.from_html(page, base=URL, index=None)
    item = {"filename": NAME, "url": NAME, "hashes": {}, "requires-python": value}
    (from_json,) = simple_api.from_json(json.dumps({"files": [item]}).encode(), base=URL, index=None)
    assert (from_html.requires_python, from_html.odd_python) == (None, False)
    assert (from_json.requires_python, from_json.odd_python) == (None, False)


@pytest.fixture
def odd(place: Place, index: Index) -> Iterator[Callable[[str], Place]]:
    """A place whose index gives every file that begins with ``odd`` a Requires-Python, which METADATA has, too."""
    parts = urlsplit(str(place.index_url))
    with faulty.serve(f"http://{parts.netloc}") as server:

        def make(value: str) -> Place:
            server.plan = lambda path: faulty.saying("requires-python", value) if "/simple/odd" in path else None
            place.variables["PIP_INDEX_URL"] = f"{server.address}{parts.path}"
            for name in ("odd", "odd-words"):
                index.wheel(name, requires_python=value)
            return place

        yield make


@pytest.mark.parametrize("value", [">=3.6.*,!=x", ">=3.99.*", *long("three", "~=3")])
def test_a_requires_python_that_is_not_valid_counts_as_none_for_every_program(
    odd: Callable[[str], Place], index: Index, value: str
) -> None:
    place = odd(value)
    index.wheel("tiny", requires=["odd"])
    place.pypi("tiny")
    found = {}
    for resolver in ("pip-compile", "uv"):
        place.lock.unlink(missing_ok=True)
        place.run("lock", "--resolver", resolver)
        found[resolver] = place.lock_text
    assert found["uv"] == found["pip-compile"]
    for installer in ("pip", "uv"):
        place.run("sync", "--reinstall", "--installer", installer)
        assert (place.site / "odd").is_dir()
    place.run("lock", "--check", "--resolver", "uv")


@pytest.mark.parametrize("value", [">=3.99.*", *long(">=3.6.*,!=x")])
def test_build_requirements_are_installed_whatever_python_they_name(odd: Callable[[str], Place], value: str) -> None:
    place = odd(value)
    project = projects.project(place.config / "mine", name="mine")
    path = project / "pyproject.toml"
    path.write_text(path.read_text().replace("requires = []", 'requires = ["odd-words"]'))
    place.write("plugins:\n  - {name: mine, source: local, path: mine}\n")
    built_with = []
    for installer in ("pip", "uv"):
        place.run("lock", "--upgrade", env={"VLLM_PLUGIN_INSTALLER": installer})
        built_with.append(place.package("mine")["tool"]["vllm-plugins"]["built-with"])
    assert built_with == [["odd-words==1.0"]] * 2
