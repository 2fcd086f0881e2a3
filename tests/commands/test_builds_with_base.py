"""``build:`` of plugins.yaml: builds that import what they don't declare, such as the torch of the vLLM environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import projects, vllm
from tests.kit.place import Place
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index

POINTS = {"vllm.general_plugins": {"needy": "needy:register"}}
MODULES = {"needy.py": "def register():\n    pass\n"}
TORCH = "import torch\nassert torch.OURS\n"
WITH = "build: {with-base: [torch]}"


@pytest.fixture
def world(tmp_path: Path, index: Index, base: Path, cached: Path) -> Place:
    """A base with a torch that can be imported, and an index with another one."""
    (base / "torch").mkdir(exist_ok=True)
    (base / "torch/__init__.py").write_text("OURS = True\n")
    index.wheel("torch", "9.9", modules={"torch/__init__.py": "OURS = False\n"})
    index.wheel("helper", "1.0", modules={"helper.py": ""})
    index.wheel("helper", "2.0", modules={"helper.py": ""})
    return Place(root=tmp_path, index_url=index.url, paths=(base,), resolver="uv", cached=cached)


def project(path: Path, text: str = TORCH, declared: str = "") -> Path:
    """A project whose build runs this text first."""
    projects.project(path, name="needy", entry_points=POINTS, modules=MODULES)
    backend = path / "backend.py"
    backend.write_text(backend.read_text().replace("import base64\n", f"{text}import base64\n"))
    if declared:
        file = path / "pyproject.toml"
        file.write_text(file.read_text().replace("requires = []", f"requires = [{declared!r}]"))
    return path


def write(place: Place, source: str, build: str = WITH) -> None:
    place.write(f"plugins:\n  - {{name: needy, {source}, {build}}}\n")


def built_with(place: Place) -> list[str]:
    (package,) = place.locked["packages"]
    found: list[str] = package.get("tool", {}).get("vllm-plugins", {}).get("built-with", [])
    return [pin.partition("==")[0] for pin in found]


def test_a_build_from_git_a_directory_and_an_editable_one_import_the_torch_of_the_base(
    world: Place, tmp_path: Path
) -> None:
    path = project(tmp_path / "needy")
    repository = Repository.init(path)
    repository.commit()
    for source in (f"source: git, url: '{repository.url}'", f"source: local, path: '{path}'"):
        write(world, source)
        world.run("lock")
        assert built_with(world) == ["torch"]
        (plugin,) = world.locked["tool"]["vllm-plugins"]["plugins"]
        assert plugin["with-base"] == ["torch"]
        world.run("lock", "--check", "--rebuild")
        for wheel in world.wheels.iterdir():
            wheel.unlink()
        world.run("sync", "--no-load-check")
    write(world, f"source: local, path: '{path}', editable: true")
    world.run("lock")
    world.run("sync", "--no-load-check")


def test_an_sdist_of_an_index_imports_the_torch_of_the_base(world: Place, index: Index, tmp_path: Path) -> None:
    from tests.kit import inline_backend

    (index.directory / "needy").mkdir()
    inline_backend.write_sdist(index.directory / "needy", project(tmp_path / "needy", declared="torch==9.9"))
    write(world, "source: pypi, package: needy", "enabled: true")
    done = world.run("lock", "-q", check=False)
    assert done.returncode == 1
    assert "requires another torch than the base has" in done.stderr
    write(world, "source: pypi, package: needy")
    world.run("lock")
    assert built_with(world) == ["torch"]
    for wheel in world.wheels.iterdir():
        wheel.unlink()
    world.run("sync", "--no-load-check")


def test_a_build_sees_what_it_was_given_of_the_base_and_what_that_requires_and_nothing_else(
    world: Place, base: Path, tmp_path: Path
) -> None:
    (base / "torch-2.13.0+cpu.dist-info").rename(base / "~torch-2.13.0+cpu.dist-info")
    vllm.distribution(base, "torch", "2.13.0+cpu", requires=["sym-math[fast]>=1"])
    vllm.distribution(
        base,
        "sym-math",
        "1.5",
        requires=["quick; extra == 'fast'"],
        modules={"symmath/__init__.py": "", "one.py": ""},
    )
    vllm.distribution(base, "quick", "3.0", modules={"quick/sub/__init__.py": "X = 1\n"})
    vllm.distribution(base, "unrelated", "1.0", modules={"unrelated.py": ""})
    text = (
        "import importlib.metadata, importlib.util, one, symmath, torch\n"
        "from quick.sub import X\n"
        f"assert torch.__file__ == {str(base / 'torch/__init__.py')!r}\n"
        "assert importlib.metadata.version('Sym_Math') == '1.5'\n"
        "assert importlib.util.find_spec('unrelated') is None\n"
        "assert 'unrelated' not in [item.name for item in importlib.metadata.distributions()]\n"
    )
    write(world, f"source: local, path: '{project(tmp_path / 'needy', text)}'")
    world.run("lock")
    assert built_with(world) == ["torch"]
    other = project(tmp_path / "other", "import torch, unrelated\n")
    write(world, f"source: local, path: '{other}'")
    refused = world.run("lock", "-q", check=False)
    assert "  found: its build imports unrelated, which is not there\n" in refused.stderr
    assert "  next: write `build: {with-base: [unrelated]}` for plugin 'needy' in plugins.yaml\n" in refused.stderr
    write(world, f"source: local, path: '{other}'", "build: {with-base: [torch, unrelated]}")
    world.run("lock")


def test_further_requirements_of_a_build_are_pinned_in_the_lock(world: Place, tmp_path: Path) -> None:
    path = project(tmp_path / "needy", "import helper\n")
    write(world, f"source: local, path: '{path}'", "build: {requires: ['helper<2']}")
    world.run("lock")
    (package,) = world.locked["packages"]
    assert package["tool"]["vllm-plugins"]["built-with"] == ["helper==1.0"]
    write(world, f"source: local, path: '{path}'", "build: {requires: [helper]}")
    assert "`build: requires`" not in world.run("lock").stderr
    (package,) = world.locked["packages"]
    assert package["tool"]["vllm-plugins"]["built-with"] == ["helper==2.0"]


def test_the_next_steps_of_refusals_lead_on(world: Place, index: Index, tmp_path: Path) -> None:
    path = project(tmp_path / "needy")
    source = f"source: local, path: '{path}'"

    def refused(build: str) -> str:
        write(world, source, build)
        done = world.run("lock", "-q", check=False)
        assert done.returncode == 1
        return done.stderr

    text = refused("enabled: true")
    assert "  found: its build imports torch, which is not there\n" in text
    assert "  next: write `build: {with-base: [torch]}` for plugin 'needy' in plugins.yaml\n" in text
    text = refused("build: {with-base: [torsh]}")
    assert "the vLLM environment has no torsh, which `build: with-base` names" in text
    assert "  next: remove torsh from `with-base` in plugins.yaml, or correct its name\n" in text
    write(world, source)
    world.run("lock")
    header = tmp_path / "odd.h"
    text = f"import os\nassert os.path.exists({str(header)!r}), 'x.c:1:2: fatal error: odd.h: No such file or directory'\n"
    project(tmp_path / "needy", text)
    text = refused("enabled: true")
    assert "  found: its build requires the header odd.h, which is not on this machine\n" in text
    assert "  next: install the system package that has odd.h, and run the command again\n" in text
    header.touch()
    world.run("lock")
    project(tmp_path / "needy", "import helper\n")
    step = "write `build: {requires: [helper]}` for plugin 'needy' in plugins.yaml, with the package that has this module"
    assert f"  next: {step}\n" in refused("enabled: true")
    write(world, source, "build: {requires: [helper]}")
    world.run("lock")
    project(tmp_path / "needy", "import pkg_resources\n")
    assert "  next: write `build: {requires: ['setuptools<82']}` for plugin 'needy' in" in refused("enabled: true")
    index.wheel("setuptools", "81.0", modules={"pkg_resources.py": ""})
    index.wheel("setuptools", "82.0", modules={"setuptools.py": ""})
    write(world, source, "build: {requires: ['setuptools<82']}")
    world.run("lock")
