"""The hashes of what wheels are built with: in the lock, in a bundle, and in a lock of an older version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tomlkit

from tests.kit import projects
from tests.kit.place import Place
from vllm_plugins.documents.lock import TOOL
from vllm_plugins.documents.lock_reader import content_sha256

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index


def test_a_lock_has_the_hashes_and_a_bundle_the_files_of_build_requirements(
    tmp_path: Path, index: Index, cached: Path
) -> None:
    index.wheel("helper", modules={"helper.py": ""})
    world = Place(root=tmp_path, index_url=index.url, resolver="uv", cached=cached)
    backend = projects.project(world.config / "needy", name="needy") / "backend.py"
    backend.write_text(backend.read_text().replace("import base64\n", "import helper\nimport base64\n"))
    world.write("plugins:\n  - {name: needy, source: local, path: needy, build: {requires: [helper]}}\n")
    world.run("lock")
    new = world.lock.read_text()
    document = tomlkit.parse(new)
    (built,) = document["tool"][TOOL].pop("build-requirements")
    assert (built["name"], len(built["wheels"])) == ("helper", 1)
    document["tool"][TOOL]["content-sha256"] = content_sha256(document)
    world.lock.write_text(tomlkit.dumps(document))
    done = world.run("lock", "--check", "--rebuild", check=False)
    assert done.returncode == 3
    assert "  build requirement helper==1.0: added\n" in done.stderr
    for wheel in world.wheels.iterdir():
        wheel.unlink()
    done = world.run("bundle", check=False)
    assert done.returncode == 3
    assert "the lock has no hashes of what 'needy' is built with" in done.stderr
    assert "  found: helper==1.0\n" in done.stderr
    world.run("lock")  # as the message says
    assert world.lock.read_text() == new
    done = world.run("bundle", "--build-requirements")
    assert "downloaded: helper-1.0-py3-none-any.whl\n" in done.stdout
    index.wheel("helper", modules={"helper.py": "A = 1\n"})
    for wheel in world.wheels.iterdir():
        wheel.unlink()
    done = world.run("bundle", check=False, env={"VLLM_PLUGIN_INSTALLER": "pip"})  # uv still has the locked file
    assert done.returncode == 4
    assert "a build requirement is not the file that the lock names [hash-mismatch]\n" in done.stderr
    world.run("lock", "--upgrade-package", "needy")  # as the message says
    world.run("bundle", "--build-requirements")
    index.clear()
    world.run("lock", "--check", "--rebuild", env={"VLLM_PLUGIN_OFFLINE": "1"})
