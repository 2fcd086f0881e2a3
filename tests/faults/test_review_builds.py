"""A change under review runs no code: ``lock --check`` builds nothing of it, however the change asks for a build."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.kit import inline_backend, projects
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

NOT_BUILT = "the lock can't be compared without a build, and a check builds nothing [lock-out-of-date]"
GOOD = {"name": "good", "source": "pypi", "package": "good"}


def hostile(into: Path, witness: Path, name: str = "evil") -> Path:
    """A project whose build backend leaves a file behind as soon as it is imported."""
    project = projects.project(into, name=name)
    backend = project / "backend.py"
    code = f"import pathlib\npathlib.Path({str(witness)!r}).touch()\n"
    backend.write_text(backend.read_text(encoding="utf-8").replace("import base64\n", f"import base64\n{code}"))
    return project


def write(place: Place, *plugins: dict[str, object], **more: object) -> None:
    place.manifest.write_text(json.dumps({"plugins": [GOOD, *plugins], **more}), encoding="utf-8")


def a_local_plugin(place: Place, index: Index, witness: Path) -> None:
    hostile(place.config / "evil", witness)
    write(place, {"name": "evil", "source": "local", "path": "evil"})


def an_editable_plugin(place: Place, index: Index, witness: Path) -> None:
    hostile(place.config / "evil", witness)
    write(place, {"name": "evil", "source": "local", "path": "evil", "editable": True})


def a_git_plugin(place: Place, index: Index, witness: Path) -> None:
    repository = Repository.init(hostile(place.root / "evil", witness))
    repository.commit()
    write(place, {"name": "evil", "source": "git", "url": repository.url, "ref": "main"})


def an_sdist(place: Place, index: Index, witness: Path) -> None:
    index.add(inline_backend.write_sdist(place.root, hostile(place.root / "evil", witness)))
    write(place, {"name": "evil", "source": "pypi", "package": "evil"})


def an_sdist_that_a_new_release_requires(place: Place, index: Index, witness: Path) -> None:
    index.wheel("good", "2.0", requires=["evil"])
    index.add(inline_backend.write_sdist(place.root, hostile(place.root / "evil", witness)))
    place.write("plugins: [{name: good, source: pypi, package: good, version: '>=2'}]\n")


CHANGES = (a_local_plugin, an_editable_plugin, a_git_plugin, an_sdist, an_sdist_that_a_new_release_requires)


@pytest.fixture
def locked(place: Place, index: Index) -> Place:
    index.wheel("good")
    write(place)
    place.run("lock")
    return place


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_check_builds_nothing_of_a_change(
    locked: Place, index: Index, change: Callable[[Place, Index, Path], None]
) -> None:
    witness = locked.root / "it-ran"
    change(locked, index, witness)
    before = locked.files()
    done = locked.run("lock", "--check", check=False)
    assert (done.returncode, NOT_BUILT in done.stderr, witness.exists()) == (3, True, False), done
    assert "evil" in done.stderr
    assert locked.files() == before
    allowed = locked.run("lock", "--check", "--rebuild", check=False)
    assert (allowed.returncode, "the lock would change" in allowed.stderr, witness.exists()) == (3, True, True), (
        allowed
    )
    locked.run("lock")
    witness.unlink()
    locked.run("lock", "--check")
    assert not witness.exists()


def test_every_plugin_that_would_be_built_is_named_with_the_reason(locked: Place) -> None:
    witness = locked.root / "it-ran"
    for name in ("one", "two"):
        hostile(locked.config / name, witness, name=name)
    plugins: list[dict[str, object]] = [{"name": name, "source": "local", "path": name} for name in ("one", "two")]
    write(locked, plugins[0])
    locked.run("lock")
    witness.unlink()
    (locked.config / "one" / "new.txt").touch()
    write(locked, *plugins)
    done = locked.run("lock", "--check", "-q", check=False)
    by = "" if locked.resolver == "auto" else f" --resolver {locked.resolver}"
    assert done.stderr == (
        f"vllm-plugins: error: {NOT_BUILT}\n"
        f"  where: {locked.lock}\n"
        "  the source of plugin 'one' has changed, how it is built, or its locked wheel is missing\n"
        "  plugin 'two' is not in the lock\n"
        f"  next: vllm-plugins lock{by}, where code of these plugins may run; a check builds only with --rebuild\n"
    )
    assert not witness.exists()
    locked.run("lock")
    locked.run("lock", "--check")


def test_a_check_builds_no_wheel_that_is_missing(locked: Place, index: Index) -> None:
    witness = locked.root / "it-ran"
    a_local_plugin(locked, index, witness)
    locked.run("lock")
    witness.unlink()
    for wheel in locked.wheels.iterdir():
        wheel.unlink()
    done = locked.run("lock", "--check", check=False)
    assert (done.returncode, NOT_BUILT in done.stderr, witness.exists()) == (3, True, False), done


def test_a_check_builds_nothing_to_read_the_base_that_a_change_names(locked: Place, index: Index) -> None:
    """A target's base may be any distribution of the index whose name begins with vllm."""
    witness = locked.root / "it-ran"
    index.add(_bare_sdist(hostile(locked.root / "evil", witness, name="vllm-evil"), locked.root))
    write(locked, targets=[{"name": "dev", "base": "vllm-evil==1.0"}])
    done = locked.run("lock", "--check", check=False)
    assert (done.returncode, witness.exists()) == (6, False), done
    assert "only wheels count: a check builds nothing" in done.stderr
    locked.run("lock")
    assert witness.exists()


def _bare_sdist(project: Path, into: Path) -> Path:
    """The sdist of a project whose metadata only a build tells: it has no PKG-INFO."""
    path = into / "vllm_evil-1.0.tar.gz"
    file = project / "pyproject.toml"
    file.write_text(file.read_text().replace("[project]\n", '[project]\ndynamic = ["dependencies"]\n'))
    with tarfile.open(path, "w:gz") as archive:
        archive.add(project, "vllm_evil-1.0")
    return path
