"""What a build sees of a git repository or a directory: Git LFS files, ignored files, line ends."""

from __future__ import annotations

import base64
import hashlib
import random
import shutil
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.repositories import Repository, git_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

CONTENT = "the weights, of which the repository has only a pointer\n"
ATTRIBUTES = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
GIT_LFS = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")


def _pointer(content: str) -> str:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"


def _project(path: Path, data: str, *, name: str = "tiny") -> Repository:
    """A repository whose plugin has a file of data next to its module."""
    projects.project(path, name=name, modules={f"{name}/__init__.py": "", f"{name}/model.bin": data})
    repository = Repository.init(path)
    repository.write({".gitattributes": ATTRIBUTES})
    return repository


def _with_content(repository: Repository, content: str) -> None:
    """Commit a project whose data is in Git LFS, with the content in the store of the repository."""
    env = {**git_environment(), "HOME": str(repository.path)}
    for words in (["lfs", "install", "--local"], ["add", "--all"], ["commit", "--quiet", "--message", "with lfs"]):
        subprocess.run(["git", *words], cwd=repository.path, env=env, check=True, capture_output=True)
    assert repository.git("show", "HEAD:src/tiny/model.bin") == _pointer(content).strip()


def _in_wheel(place: Place, name: str) -> str:
    (wheel,) = place.wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name).decode()


def _without_lfs(place: Place) -> dict[str, str]:
    """PATH with git and nothing else."""
    directory = place.root / "only-git"
    directory.mkdir()
    (directory / "git").symlink_to(str(shutil.which("git")))
    return {
        "PATH": str(directory),
        "GIT_EXEC_PATH": subprocess.check_output(["git", "--exec-path"], text=True).strip(),
    }


def test_a_pointer_in_a_built_wheel_is_an_error_that_names_git_lfs(place: Place, tmp_path: Path) -> None:
    repository = _project(tmp_path / "tiny", _pointer(CONTENT))
    repository.commit()
    env = _without_lfs(place)
    for source in (f"source: git, url: '{repository.url}'", f"source: local, path: '{repository.path}'"):
        place.write(f"plugins:\n  - {{name: tiny, {source}}}\n")
        done = place.run("lock", "-q", env=env, check=False)
        assert done.returncode == 1
        assert "Git LFS pointers" in done.stderr
        assert "found: tiny/model.bin" in done.stderr
        assert "required by: plugin 'tiny'" in done.stderr
    assert not place.lock.exists()


def test_a_pointer_that_no_wheel_contains_does_no_harm(place: Place, tmp_path: Path) -> None:
    repository = _project(tmp_path / "tiny", "no pointer")
    repository.commit(files={"docs/picture.bin": _pointer("a picture")})
    place.write(f"plugins:\n  - {{name: tiny, source: git, url: '{repository.url}'}}\n")
    place.run("lock", env=_without_lfs(place))
    assert _in_wheel(place, "tiny/model.bin") == "no pointer"


@GIT_LFS
def test_the_content_of_a_pointer_is_fetched_where_git_lfs_is_installed(place: Place, tmp_path: Path) -> None:
    repository = _project(tmp_path / "tiny", CONTENT)
    _with_content(repository, CONTENT)
    place.write(f"plugins:\n  - {{name: tiny, source: git, url: '{repository.url}'}}\n")
    place.run("lock")
    assert _in_wheel(place, "tiny/model.bin") == CONTENT
    place.run("lock", "--check")


@GIT_LFS
def test_content_that_no_server_has_is_an_error_of_the_repository(place: Place, tmp_path: Path) -> None:
    repository = _project(tmp_path / "tiny", CONTENT)
    _with_content(repository, CONTENT)
    shutil.rmtree(repository.path / ".git/lfs")
    place.write(f"plugins:\n  - {{name: tiny, source: git, url: '{repository.url}'}}\n")
    done = place.run("lock", "-q", check=False)
    assert done.returncode == 1
    assert "Git LFS" in done.stderr
    assert not place.lock.exists()


def test_files_that_git_ignores_are_named_because_the_build_does_not_see_them(place: Place, tmp_path: Path) -> None:
    project = projects.project(tmp_path / "tiny", name="tiny")
    Repository.init(project).commit(files={".gitignore": "generated.py\nnative/\n*.pyc\nbuild/\n.env\n"})
    (project / "src/tiny/generated.py").write_text("VERSION = 1\n")
    (project / "native").mkdir()
    for name in ("native/x.so", "x.pyc", ".env"):
        (project / name).touch()
    (project / "build").mkdir()
    (project / "build/old.py").touch()
    place.write(f"plugins:\n  - {{name: tiny, source: local, path: '{project}'}}\n")
    done = place.run("lock")
    (line,) = [line for line in done.stderr.splitlines() if "ignores: " in line]
    assert line.endswith("ignores: native, src/tiny/generated.py")


def test_line_ends_are_those_of_the_repository_whatever_the_user_prefers(place: Place, tmp_path: Path) -> None:
    project = projects.project(
        tmp_path / "tiny", name="tiny", modules={"tiny/__init__.py": "", "tiny/lf.txt": "a\nb\n"}
    )
    repository = Repository.init(project)
    repository.commit(files={".gitattributes": "crlf.txt text eol=crlf\n", "src/tiny/crlf.txt": "a\nb\n"})
    place.write(f"plugins:\n  - {{name: tiny, source: git, url: '{repository.url}'}}\n")
    found = set()
    for number, value in enumerate(("false", "true", "input")):
        config = place.root / "gitconfig"
        config.write_text(f"[core]\n\tautocrlf = {value}\n\tattributesFile = {place.root}/attributes\n")
        (place.root / "attributes").write_text("*.txt text eol=crlf\n" if number else "")
        place.lock.unlink(missing_ok=True)
        shutil.rmtree(place.wheels, ignore_errors=True)
        place.run("lock", env={"GIT_CONFIG_GLOBAL": str(config)})
        found.add((_in_wheel(place, "tiny/lf.txt"), _in_wheel(place, "tiny/crlf.txt"), place.lock_text))
    assert {item[:2] for item in found} == {("a\nb\n", "a\r\nb\r\n")}
    assert len(found) == 1


def test_a_pointer_in_a_wheel_of_an_index_is_reported(place: Place, index: Index) -> None:
    for name, size in (("tiny", 0), ("large", 400_000)):  # a large wheel is read in ranges
        pad = {f"{name}/pad.bin": base64.b64encode(random.Random(size).randbytes(size)).decode()}
        modules = {f"{name}/__init__.py": "", f"{name}/model.bin": _pointer(CONTENT), **pad}
        index.wheel(name, requires=["large"] if name == "tiny" else [], modules=modules)
    place.pypi("tiny")
    for _ in range(2):  # the second time from the cache
        done = place.run("lock", "-q")
        for name in ("tiny", "large"):
            wheel = f"{name}-1.0-py3-none-any.whl"
            assert f"note: {wheel} contains Git LFS pointers in place of files: {name}/model.bin" in done.stdout
        place.lock.unlink()
