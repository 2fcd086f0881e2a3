from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from tests.kit import projects
from tests.kit.long import long
from tests.kit.projects import Backend
from tests.kit.repositories import Repository
from vllm_plugins.core.errors import BuildError
from vllm_plugins.packages import _reproducible

if TYPE_CHECKING:
    from tests.kit.place import Place

HEADER = Path(sysconfig.get_path("include"), "Python.h")
_BUILD = """\
import sys
from pathlib import Path
from vllm_plugins.packages import installers, pip_config
from vllm_plugins.packages.builder import Builder, BuildInputs
installer = installers.choose("auto", config=pip_config.read(), cache=Path(sys.argv[1]))
with Builder(installer=installer) as builder:
    for project in sys.argv[3:]:
        built = builder.wheel(Path(project), Path(project, "out"), plugin="tiny", inputs=BuildInputs())
        print(built.sha256, built.path)
"""


@pytest.mark.network
@pytest.mark.parametrize("backend", [name for name in get_args(Backend) if name != "inline"])
def test_a_wheel_is_the_same_at_any_time_in_any_directory_under_any_umask(
    network_place: Place, tmp_path: Path, backend: Backend
) -> None:
    digests = set()
    for directory, umask, when in (("one", 0o022, 1_600_000_000), ("another/and/longer", 0o077, 1_700_000_000)):
        project = tmp_path / directory
        modules = {
            "tiny/__init__.py": "WORD = 'tiny'\n",
            "tiny/deep/__init__.py": "",
            "tiny/deep/data.py": "ONE = 1\n",
        }
        projects.project(project, name="tiny", backend=backend, modules=modules)
        for path in project.rglob("*"):
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
            os.utime(path, (when, when))
        done = network_place.python("-c", _BUILD, tmp_path / "cache", "--", project, umask=umask)
        digest, path_text = done.stdout.split()
        digests.add(digest)
        with zipfile.ZipFile(path_text) as archive:
            assert {"tiny/__init__.py", "tiny/deep/data.py"} <= set(archive.namelist())
    assert len(digests) == 1


def test_a_normalised_wheel_installs_and_has_the_same_content(tmp_path: Path) -> None:
    wheel = projects.wheel(tmp_path, "tiny", entry_points={"vllm.general_plugins": {"tiny": "tiny:run"}})
    with zipfile.ZipFile(wheel) as archive:
        before = {name: archive.read(name) for name in archive.namelist()}
    _reproducible.normalise(wheel)
    once = wheel.read_bytes()
    _reproducible.normalise(wheel)
    assert wheel.read_bytes() == once
    with zipfile.ZipFile(wheel) as archive:
        after = {name: archive.read(name) for name in archive.namelist()}
        assert archive.namelist()[-1] == "tiny-1.0.dist-info/RECORD"
        assert {item.date_time for item in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {stat.S_IMODE(item.external_attr >> 16) for item in archive.infolist()} == {0o644}
    record = "tiny-1.0.dist-info/RECORD"
    assert sorted(before.pop(record).split()) == sorted(after.pop(record).split())
    assert before == after
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--target",
            tmp_path / "t",
            wheel,
        ],
        check=True,
    )
    assert (tmp_path / "t/tiny/__init__.py").is_file()


def test_vendored_metadata_is_not_that_of_the_wheel(place: Place, tmp_path: Path) -> None:
    modules = {
        "tiny/__init__.py": "",
        "a_vendor/other-9.9.dist-info/METADATA": "Metadata-Version: 2.1\nName: other\nVersion: 9.9\nLicense: GPL\n",
        "a_vendor/other-9.9.dist-info/RECORD": "",
    }
    projects.project(tmp_path / "tiny", name="tiny", modules=modules)
    place.write("plugins:\n  - {name: tiny, source: local, path: ../tiny}\n")
    place.run("lock")
    assert place.versions == {"tiny": "1.0"}
    (wheel,) = place.wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist()[-1] == "tiny-1.0.dist-info/RECORD"
        rows = archive.read("tiny-1.0.dist-info/RECORD").decode().splitlines()
    assert len(rows) == len(modules) + 3
    place.run("sync")
    place.run("verify")
    assert "GPL" not in place.run("audit", "--offline", "--json", check=False).stdout
    shutil.rmtree(place.wheels)
    place.run("sync", "--reinstall")


@pytest.mark.parametrize("name", ["../escaped.py", "/absolute.py", "tiny/../../escaped.py", "..\\escaped.py"])
def test_a_wheel_with_a_path_that_leads_out_of_it_is_refused(tmp_path: Path, name: str) -> None:
    wheel = projects.wheel(tmp_path, "tiny")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(name, "")
    before = wheel.read_bytes()
    with pytest.raises(BuildError) as caught:
        _reproducible.normalise(wheel)
    assert str(caught.value) == (
        "the build backend made an invalid wheel [build-failed]\n"
        "  where: tiny-1.0-py3-none-any.whl\n"
        f"  found: it contains {name!r}, which leads out of it or is a link\n"
        "  next: report it to the author of the plugin"
    )
    assert wheel.read_bytes() == before


@pytest.mark.network
@pytest.mark.skipif(shutil.which("cc") is None or not HEADER.exists(), reason="no C compiler, or no Python.h")
def test_an_extension_module_is_the_same_in_another_directory(network_place: Place, tmp_path: Path) -> None:
    digests = set()
    for directory in ("one", "another/and/longer"):
        project = tmp_path / directory
        project.mkdir(parents=True)
        (project / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
            '[project]\nname = "native"\nversion = "1.0"\n'
        )
        # As in builds with ninja, the compiler meets a file by its whole path, which assertions contain.
        (project / "setup.py").write_text(
            "import os\nfrom setuptools import Extension, setup\n"
            "setup(packages=[], ext_modules=[Extension('native', ['native.c'], include_dirs=[os.path.abspath('include')])])\n"
        )
        (project / "include").mkdir()
        (project / "include/where.h").write_text("const char *where(void) { return __FILE__; }\n")
        (project / "native.c").write_text(
            "#include <Python.h>\n"
            "#include <where.h>\n"
            'static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "native", NULL, -1, NULL};\n'
            "PyMODINIT_FUNC PyInit_native(void) { return PyModule_Create(&module); }\n"
        )
        done = network_place.python("-c", _BUILD, tmp_path / "cache", "--", project)
        digest, path = done.stdout.split()
        digests.add(digest)
        assert "linux" in Path(path).name
    assert len(digests) == 1


def test_a_failed_build_names_its_plugin_and_the_reason(place: Place, tmp_path: Path) -> None:
    project = projects.project(tmp_path / "mine", name="tiny")
    (project / "backend.py").write_text("def build_wheel(*_, **__):\n    raise RuntimeError('the reason')\n")
    place.write("plugins:\n  - {name: mine, source: local, path: ../mine}\n")
    done = place.run("lock", "-q", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("vllm-plugins: error: the build failed [build-failed]\n")
    assert "RuntimeError: the reason" in done.stderr
    assert done.stderr.endswith(
        "  next: read the output above; `python -m build` in the project of 'mine' must work\n"
    )
    assert "required by: plugin 'mine'" in done.stderr
    assert place.files() == {"config/plugins.yaml": place.files()["config/plugins.yaml"]}


_ASKS_GIT = """

def _asking(*words):
    import subprocess

    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


_build = build_wheel


def build_wheel(*words):
    Path("src", "asked.py").write_text(repr([_asking("rev-parse", "HEAD"), _asking("status", "--porcelain", "-uno")]))
    return _build(*words)
"""


def test_a_build_that_asks_git_is_told_of_its_own_repository_in_a_hook_of_another(
    place: Place, tmp_path: Path
) -> None:
    """git sets these variables for a hook, and users of several repositories export some of them."""
    repository, other = Repository.init(tmp_path / "mine"), Repository.init(tmp_path / "other")
    other.commit(files={"file": "another"})
    projects.project(repository.path, name="tiny", modules={"tiny.py": ""})
    with (repository.path / "backend.py").open("a") as backend:
        backend.write(_ASKS_GIT)
    commit = repository.commit()
    place.write(f"plugins:\n  - {{name: mine, source: git, url: '{repository.url}'}}\n")
    inside = other.path / ".git"
    places = {"GIT_DIR": inside, "GIT_WORK_TREE": other.path, "GIT_INDEX_FILE": inside / "index"}
    places |= {"GIT_OBJECT_DIRECTORY": inside / "objects", "GIT_COMMON_DIR": inside}
    place.run("lock", env={name: str(path) for name, path in places.items()})
    (wheel,) = place.wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("asked.py").decode() == repr([commit, ""])


@pytest.mark.parametrize("editable", ["false", *long("true")])
def test_the_warnings_of_a_backend_are_shown_with_verbose_only(place: Place, tmp_path: Path, editable: str) -> None:
    project = projects.project(tmp_path / "mine", name="tiny")
    warning = "import warnings\nwarnings.warn('a package would be ignored')\n"
    backend = (project / "backend.py").read_text()
    (project / "backend.py").write_text(backend.replace("\n_WHEEL", f"\n{warning}_WHEEL", 1))
    place.write(f"plugins:\n  - {{name: mine, source: local, path: ../mine, editable: {editable}}}\n")
    assert "ignored" not in place.run("lock").stderr
    place.lock.unlink()
    assert "  a package would be ignored\n" in place.run("-v", "lock", "--upgrade").stderr
