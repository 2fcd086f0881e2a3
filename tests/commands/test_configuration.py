"""Configuration of pip and uv: where packages come from counts, and what is installed is the lock's business alone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.kit import faulty, projects
from tests.kit.long import long

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index, Server
    from tests.kit.place import Place

INSTALLERS = pytest.mark.parametrize("installer", ["pip", "uv"])
RESOLVERS = pytest.mark.parametrize("resolver", ["pip-compile", "uv"])


@pytest.fixture
def locked(place: Place, index: Index) -> Place:
    """A lock of a plugin and of what it needs, of which the index has an older release."""
    index.wheel("tiny", requires=["helper"])
    index.wheel("helper", "1.0")
    index.wheel("helper", "2.0")
    place.pypi("tiny")
    place.run("lock")
    assert place.versions == {"tiny": "1.0", "helper": "2.0"}
    return place


def _sync(place: Place, installer: str, **variables: str) -> None:
    shutil.rmtree(place.store, ignore_errors=True)
    place.run("sync", "--installer", installer, env=variables)
    assert (place.site / "helper-2.0.dist-info").is_dir()


def _configure(place: Place, program: str, text: str) -> None:
    path = place.home / ".config" / program / {"pip": "pip.conf", "uv": "uv.toml"}[program]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


PIP_KEYS = (
    "user = true",
    "prefix = {root}/prefix",
    "root = {root}/root",
    "target = {root}/target",
    "constraint = {root}/constraints.txt",
    "build-constraint = {root}/constraints.txt",
    "requirement = {root}/requirements.txt",
    "editable = {root}",
    "dry-run = true",
    "no-binary = :all:",
    "only-binary = :none:",
    "no-deps = true",
    "require-hashes = false",
    "uploaded-prior-to = 2020-01-01T00:00:00Z",
    "platform = win_amd64",
    "python-version = 3.8",
    "python = /nowhere/python",
    "require-virtualenv = true",
    "ignore-installed = false",
    "report = {root}/report.json",
    "quiet = 3",
    "isolated = true",
    "verbose = 3",
    "log = {root}/pip.log",
)


def test_no_key_of_pip_changes_what_is_installed_or_where(locked: Place) -> None:
    (locked.root / "constraints.txt").write_text("helper<2\n")
    (locked.root / "requirements.txt").write_text("missing\n")
    lines = [line.format(root=locked.root) for line in PIP_KEYS]
    _configure(locked, "pip", "\n".join(["[global]", f"index-url = {locked.index_url}", "[install]", *lines]))
    _sync(locked, "pip", PIP_INDEX_URL="")
    _configure(locked, "pip", "")
    pairs = (line.split(" = ") for line in lines)
    _sync(locked, "pip", **{f"PIP_{key.upper().replace('-', '_')}": value for key, value in pairs})
    assert not any((locked.root / name).exists() for name in ("prefix", "target", "report.json"))


UV_TABLES = (
    'exclude-newer = "2020-01-01T00:00:00Z"',
    'override-dependencies = ["helper==1.0"]',
    'constraint-dependencies = ["helper<2"]',
    'required-version = "<0.5"',
    'no-binary-package = ["tiny"]',
    "no-build = true",
    "compile-bytecode = true",
    'link-mode = "symlink"',
    "offline = true",
    'python-preference = "only-managed"',
    'cache-dir = "/nowhere"',
    'resolution = "lowest"',
)


@INSTALLERS
def test_no_project_in_the_working_directory_configures_uv(locked: Place, installer: str) -> None:
    lines = "\n".join(UV_TABLES)
    index = 'name = "intern"\nurl = "http://127.0.0.1:9/simple"\n'
    (locked.root / "pyproject.toml").write_text(f"[tool.uv]\n{lines}\n[[tool.uv.index]]\n{index}")
    _sync(locked, installer)
    (locked.root / "pyproject.toml").unlink()
    (locked.root / "uv.toml").write_text(f"{lines}\n[[index]]\n{index}")
    _sync(locked, installer)


def test_no_key_of_a_users_uv_toml_changes_what_is_installed(locked: Place) -> None:
    _configure(locked, "uv", "\n".join(UV_TABLES))
    _sync(locked, "uv")


UV_VARIABLES = {
    "UV_COMPILE_BYTECODE": "1",
    "UV_LINK_MODE": "symlink",
    "UV_SYSTEM_PYTHON": "1",
    "UV_NO_CACHE": "1",
    "UV_CACHE_DIR": "/nowhere",
    "UV_EXCLUDE_NEWER": "2020-01-01T00:00:00Z",
    "UV_OVERRIDE": "/nowhere.txt",
    "UV_CONSTRAINT": "/nowhere.txt",
    "UV_BUILD_CONSTRAINT": "/nowhere.txt",
    "UV_EXCLUDE": "/nowhere.txt",
    "UV_CONFIG_FILE": "{root}/exclude.toml",
    "UV_WORKING_DIR": "/nowhere",
    "UV_WORKING_DIRECTORY": "/nowhere",
    "UV_PROJECT": "/nowhere",
    "UV_OFFLINE": "1",
    "UV_NO_BINARY": "1",
    "UV_REQUIRE_HASHES": "0",
    "UV_NO_VERIFY_HASHES": "1",
    "UV_PYTHON": "/nowhere",
    "UV_TORCH_BACKEND": "cpu",
    "UV_INDEX_STRATEGY": "first-index",
    "UV_RESOLUTION": "lowest",
    "UV_PRERELEASE": "allow",
    "UV_ENV_FILE": "/nowhere",
    "VIRTUAL_ENV": "/nowhere",
}


def test_no_variable_of_uv_changes_what_is_installed(locked: Place) -> None:
    (locked.root / "exclude.toml").write_text('exclude-newer = "2020-01-01T00:00:00Z"\n')
    _sync(locked, "uv", **{name: value.format(root=locked.root) for name, value in UV_VARIABLES.items()})


@RESOLVERS
def test_a_lock_names_the_keys_that_it_does_not_follow(place: Place, index: Index, resolver: str) -> None:
    index.wheel("tiny", "1.0")
    index.wheel("tiny", "2.0")
    place.pypi("tiny")
    (place.root / "constraints.txt").write_text("tiny<2\n")
    _configure(place, "pip", f"[global]\nconstraint = {place.root}/constraints.txt\n")
    env = {"UV_CONSTRAINT": f"{place.root}/constraints.txt", "UV_EXCLUDE_NEWER": "2020-01-01T00:00:00Z"}
    done = place.run("lock", "--resolver", resolver, env=env)
    assert place.versions == {"tiny": "2.0"}
    assert (
        "Ignoring options of pip and uv that choose versions: constraint of pip.conf, UV_CONSTRAINT, UV_EXCLUDE_NEWER"
        in done.stderr
    )


@pytest.mark.parametrize(("resolver", "installer"), [("pip-compile", "uv"), *long(("uv", "pip"))])
def test_an_index_that_only_uv_is_configured_with_counts_for_everything(
    place: Place, index: Index, index_server: Server, tmp_path: Path, resolver: str, installer: str
) -> None:
    index.wheel("tiny", requires=["private"])
    other = index_server.index(f"private-{tmp_path.parent.name}-{tmp_path.name}")
    other.wheel("private")
    place.pypi("tiny")
    for number, variables in enumerate(
        (
            {"UV_INDEX": f"inner={other.url}"},
            {"UV_EXTRA_INDEX_URL": other.url},
            {"UV_FIND_LINKS": str(other.directory / "private")},
            {"PIP_INDEX_URL": other.url, "UV_INDEX": index.url},
        )
    ):
        place.lock.unlink(missing_ok=True)
        place.run("lock", "--resolver", resolver, env=variables)
        assert set(place.versions) == {"tiny", "private"}
        if number % 2 == (installer == "uv"):  # each is installed with by one of the two
            shutil.rmtree(place.store, ignore_errors=True)
            place.run("sync", "--installer", installer, env=variables)


def test_programs_of_the_working_directory_are_not_run(place: Place, index: Index) -> None:
    """pip.py, piptools.py and what they import, wherever an interpreter looks in its working directory.

    ``tests/faults/test_hostile_modules.py`` runs every command there.
    """
    index.wheel("tiny", requires=["built"])
    index.wheel("helper")
    index.sdist("built")
    work = place.root / "started-here"
    projects.project(work / "mine", name="mine", requires=["helper"])
    for name in (
        "pip",
        "piptools",
        "uv",
        "build",
        "packaging",
        "requests",
        "yaml",
        "tomlkit",
        "keyring",
        "pip_audit",
    ):
        (work / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the working directory was run')\n")
    (work / "sitecustomize.py").write_text("raise SystemExit('sitecustomize.py was run')\n")
    place.write(
        """
        plugins:
          - {name: tiny, source: pypi, package: tiny}
          - {name: mine, source: local, path: ../started-here/mine}
        """
    )
    for installer in ("pip", "uv"):
        env = {"VLLM_PLUGIN_INSTALLER": installer, "PIP_KEYRING_PROVIDER": "import"}
        for words in [["lock"], ["sync"], *([["audit"]] if installer == "pip" else [])]:
            done = place.python("-m", "vllm_plugins", *words, env=env, cwd=work, check=False)
            assert "working directory" not in done.stdout + done.stderr
            assert done.returncode == 0, done.stderr
        shutil.rmtree(place.store)
        place.lock.unlink()


@pytest.mark.parametrize(
    ("resolver", "code"), [("pip-compile", 401), ("uv", 403), *long(("pip-compile", 410), ("uv", 410))]
)
def test_an_index_that_denies_what_it_does_not_have_is_passed_over(
    place: Place, index: Index, resolver: str, code: int
) -> None:
    index.wheel("tiny", requires=["helper"])
    index.wheel("helper")
    index.wheel("other")
    place.pypi("tiny")
    parts = urlsplit(index.url)
    with faulty.serve(f"http://{parts.netloc}") as bucket:
        bucket.plan = lambda path: None if "/other" in path else faulty.status(code)
        env = {"PIP_EXTRA_INDEX_URL": f"{bucket.address}{parts.path}"}
        place.run("lock", "--resolver", resolver, env=env)
        place.run("sync", "--installer", "uv" if resolver == "uv" else "pip", env=env)
        place.run("bundle", env=env)


def test_an_index_that_uv_can_not_read_is_left_to_pip_compile(place: Place, index: Index) -> None:
    """The newest release does not fit every requirement, so the resolver has to choose one from the index."""
    index.wheel("tiny", requires=["library<2", "library"])
    index.wheel("library", "1.0")
    index.wheel("library", "2.0")
    place.pypi("tiny")
    parts = urlsplit(index.url)

    def shouting(reply: faulty.Reply) -> None:
        reply.head(200, Content_Type=reply.kind.upper(), Content_Length=str(len(reply.body)))
        reply.send(reply.body)

    with faulty.serve(f"http://{parts.netloc}") as bucket:
        bucket.plan = lambda path: None if path.endswith(".whl") else shouting
        env = {"PIP_INDEX_URL": f"{bucket.address}{parts.path}"}
        done = place.run("lock", "--resolver", "uv", env=env)
    assert "): pip-compile resolves instead" in done.stderr
    assert place.versions == {"library": "1.0", "tiny": "1.0"}


@pytest.mark.parametrize("how", ["variable", "pip.conf", "uv"])
def test_what_forbids_all_indexes_is_named_where_a_plugin_is_not_found(place: Place, index: Index, how: str) -> None:
    index.wheel("tiny")
    place.pypi("tiny")
    allowed = {"PIP_INDEX_URL": index.url if how != "uv" else ""}
    env = dict(allowed)
    if how == "variable":
        env["PIP_NO_INDEX"] = "1"
    elif how == "pip.conf":
        (place.root / "pip.conf").write_text("[global]\nno-index = true\n", encoding="utf-8")
        env["PIP_CONFIG_FILE"] = str(place.root / "pip.conf")
    else:
        (place.root / "uv.toml").write_text("no-index = true\n", encoding="utf-8")
        env["UV_CONFIG_FILE"] = str(place.root / "uv.toml")
    done = place.run("lock", env=env, check=False)
    names = {
        "variable": "PIP_NO_INDEX",
        "pip.conf": "no-index of pip's configuration",
        "uv": "no-index of uv's configuration",
    }
    assert done.returncode == 6, done
    assert f"  index: none: {names[how]} forbids all indexes\n" in done.stderr
    steps = {
        "variable": "unset PIP_NO_INDEX",
        "pip.conf": "remove `no-index` from the file that `pip config debug` names for it",
        "uv": "remove `no-index` from uv.toml",
    }
    assert f"\n  next: {steps[how]}, or put its wheel into a directory of PIP_FIND_LINKS; or, correct " in done.stderr
    done = place.run("lock", "--base", "vllm==9.9.9", env=env, check=False)
    step = f"{steps[how]}, or name a snapshot that `vllm-plugins base` wrote in the image"
    assert f"\n  next: {step}\n" in done.stderr
    projects.wheel(place.root / "links", "tiny")
    place.run("lock", env={**env, "PIP_FIND_LINKS": str(place.root / "links")})
    place.lock.unlink()
    if how == "uv":
        (place.root / "uv.toml").write_text(f'index-url = "{index.url}"\n', encoding="utf-8")
    elif how == "pip.conf":
        (place.root / "pip.conf").write_text("[global]\n", encoding="utf-8")
    env.pop("PIP_NO_INDEX", None)
    place.run("lock", env=env)
