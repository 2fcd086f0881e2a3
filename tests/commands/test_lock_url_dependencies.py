from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest

from tests.kit import projects
from tests.kit.long import long
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
@pytest.mark.parametrize("kind", ["wheel", "git"])
def test_a_dependency_by_url_is_refused(place: Place, index: Index, resolver: str, kind: str) -> None:
    if kind == "wheel":
        index.wheel("dep", "1.0")
        url = urljoin(f"{index.url}dep/", index.page("dep")["files"][0]["url"])
    else:
        repository = Repository.init(projects.project(place.root / "dep", name="dep"))
        repository.git("add", ".")
        repository.git("commit", "--quiet", "-m", "first")
        url = f"git+{repository.url}"
    projects.project(place.config / "plug", name="plug", requires=[f"dep @ {url}"])
    place.write("plugins:\n  - {name: plug, source: local, path: plug}\n")
    done = place.run("lock", "--resolver", resolver, check=False)
    assert done.returncode == 6
    assert "; a lock contains only packages from an index\n" in done.stderr
    assert f"  plugin 'plug': plug 1.0 requires dep by URL: {url.partition(':')[0]}:" in done.stderr
    assert not place.lock.exists()


@pytest.mark.parametrize("resolver", ["uv", *long("pip-compile")])
def test_a_dependency_by_the_path_of_a_wheel_is_refused(place: Place, resolver: str) -> None:
    wheel = projects.wheel(place.root / "away", "dep", "1.0")
    projects.project(place.config / "plug", name="plug", requires=[f"dep @ {wheel.as_uri()}"])
    place.write("plugins:\n  - {name: plug, source: local, path: plug}\n")
    done = place.run("lock", "--resolver", resolver, check=False)
    assert done.returncode == 6
    assert "; a lock contains only packages from an index\n" in done.stderr
    assert not place.lock.exists()
    assert done.stderr.endswith(
        "  next: set `enabled: false` for plugin 'plug' in plugins.yaml; or, if you are the author of plug, require dep "
        "there by its name, without the URL, and make it a plugin of its own in plugins.yaml\n"
    )
    projects.project(place.config / "plug", name="plug", requires=["dep"])
    projects.project(place.config / "dep", name="dep")
    place.write("plugins:\n  - {name: plug, source: local, path: plug}\n  - {name: dep, source: local, path: dep}\n")
    place.run("lock", "--resolver", resolver)


# How a plugin in plugins.yaml is written, and the requirement of another plugin on it by URL, with ``{…}`` for places.
SAME = {
    "a ref": ("source: git, url: {git}, ref: v1.0", "git+{git}@v1.0"),
    "the default branch": ("source: git, url: {git}", "git+{git}"),
    "with .git": ("source: git, url: {git}/", "git+{git}.git#egg=dep"),
    "its commit": ("source: git, url: {git}, ref: v1.0", "git+{git}@{commit}"),
    "a tag of its commit": ("source: git, url: {git}, ref: {commit}", "git+{git}@v1.0"),
    "a subdirectory": ("source: git, url: {git}, subdirectory: inner", "git+{git}@main#subdirectory=./inner"),
    "a directory": ("source: local, path: dep", "{directory}"),
    "an editable directory": ("source: local, path: dep, editable: true", "{directory}"),
    "a wheel": ("source: pypi, package: dep", "{wheel}"),
    "a wheel and its hash": ("source: pypi, package: dep", "{wheel}#sha256={sha256}"),
}
OTHER = {
    "another ref": ("source: git, url: {git}, ref: v1.0", "git+{git}@main"),
    "no such ref": ("source: git, url: {git}", "git+{git}@gone"),
    "another repository": ("source: git, url: {git}", "git+{git}2"),
    "another subdirectory": ("source: git, url: {git}", "git+{git}#subdirectory=inner"),
    "another directory": ("source: local, path: dep", "{directory}2"),
    "another kind": ("source: local, path: dep", "git+{git}"),
    "another wheel": ("source: pypi, package: dep", "{wheel}.other-py3-none-any.whl"),
    "another hash": ("source: pypi, package: dep", "{wheel}#sha256=" + "0" * 64),
}


@pytest.fixture
def places(place: Place, index: Index) -> dict[str, str]:
    """One distribution from everywhere: a repository, a directory and an index."""
    repository = Repository.init(projects.project(place.root / "repository", name="dep"))
    projects.project(repository.path / "inner", name="dep")
    commit = repository.commit()
    repository.tag("v1.0")
    repository.commit("two", {"later.txt": "later"})
    directory = projects.project(place.config / "dep", name="dep")
    wheel = index.wheel("dep", "1.0")
    index.wheel("dep", "2.0")  # pip takes the one that the URL names
    url = next(file["url"] for file in index.page("dep")["files"] if file["filename"] == wheel.name)
    return {
        "git": repository.url,
        "commit": commit,
        "directory": directory.as_uri(),
        "wheel": urljoin(f"{index.url}dep/", url),
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
    }


def write(place: Place, places: dict[str, str], entry: str, url: str, *, marker: str = "") -> None:
    requires = [f"dep @ {url.format(**places)}{marker}"]
    projects.project(place.config / "plug", name="plug", requires=requires)
    place.write(
        f"plugins:\n  - {{name: plug, source: local, path: plug}}\n  - {{name: it, {entry.format(**places)}}}\n"
    )


@pytest.mark.parametrize("case", SAME)
def test_a_dependency_by_the_url_of_a_plugin_is_that_plugin(
    place: Place, places: dict[str, str], case: str, resolver: str
) -> None:
    """pip installs both."""
    write(place, places, *SAME[case])
    place.run("lock")
    assert place.versions == {"plug": "1.0", "dep": "1.0"}
    assert place.package("plug")["dependencies"] == [{"name": "dep"}]
    assert place.run("lock", "--check").returncode == 0
    if case in ("a ref", "a wheel"):
        place.run("sync", "--no-load-check")
        assert sorted(path.name for path in place.site.glob("*.dist-info")) == [
            "dep-1.0.dist-info",
            "plug-1.0.dist-info",
        ]


@pytest.mark.parametrize("case", OTHER)
def test_a_dependency_by_another_url_than_that_of_the_plugin_names_both(
    place: Place, places: dict[str, str], case: str
) -> None:
    entry, url = OTHER[case]
    write(place, places, entry, url)
    done = place.run("lock", check=False)
    assert done.returncode == 6
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("  plugin 'plug': plug 1.0 requires")]
    named, _, its = line.partition("; ")
    assert named == f"  plugin 'plug': plug 1.0 requires dep by URL: {url.format(**places)}"
    source = {"git": "git+{git}", "local": "dep", "pypi": "dep"}[entry.split()[1].rstrip(",")].format(**places)
    assert its.startswith(f"plugin 'it' in plugins.yaml is {source}")
    assert "; or give plugin 'it' that source there; or, if you are the author of plug, require dep" in done.stderr
    assert not place.lock.exists()


@pytest.mark.parametrize("resolver", ["pip-compile", *long("uv")])
@pytest.mark.parametrize("case", ["a ref", "a wheel"])
def test_a_dependency_of_an_index_may_name_a_plugin_by_its_url(
    place: Place, index: Index, places: dict[str, str], case: str, resolver: str
) -> None:
    entry, url = SAME[case]
    index.wheel("middle", requires=[f"dep[more] @ {url.format(**places)}"])
    index.sdist("built", requires=["middle", f"dep @ {url.format(**places)}"])
    write(place, places, entry, url, marker=" ; python_version < '3'")
    projects.project(place.config / "plug", name="plug", requires=["middle", "built"])
    place.run("lock", "--resolver", resolver)
    assert place.versions == {"plug": "1.0", "dep": "1.0", "middle": "1.0", "built": "1.0"}
    assert place.package("middle")["dependencies"] == [{"name": "dep"}]
    assert place.run("lock", "--check").returncode == 0


def test_a_requirement_by_url_that_does_not_apply_here_excludes_no_machine(
    place: Place, places: dict[str, str]
) -> None:
    """The lock satisfies it where it applies."""
    entry, url = SAME["a ref"]
    write(place, places, entry, url, marker=" ; python_full_version < '3.11.0'")
    place.run("lock")
    assert "environments" not in place.locked
    assert place.run("lock", "--check").returncode == 0
    write(place, places, entry, url.replace("v1.0", "main"), marker=" ; python_full_version < '3.11.0'")
    place.run("lock")
    assert place.locked["environments"]
    assert place.run("lock", "--check").returncode == 0


def test_the_next_step_of_another_url_leads_on(place: Place, places: dict[str, str]) -> None:
    entry, url = OTHER["another ref"]
    write(place, places, entry, url)
    place.run("lock", check=False)
    write(place, places, entry.replace("v1.0", "main"), url)
    place.run("lock")
