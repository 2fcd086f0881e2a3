from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest

from tests.kit import projects
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


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
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
