"""Overlays that are not what was published when the load check has run: damaged ones, and plugins that change themselves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects

if TYPE_CHECKING:
    from tests.kit.place import Place

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
WRITING = {
    "a new file": "open(os.path.join(os.path.dirname(__file__), 'cache.txt'), 'w').write('x')",
    "a file in a new directory": "os.makedirs(os.path.join(os.path.dirname(__file__), 'cache/a'), exist_ok=True); "
    "open(os.path.join(os.path.dirname(__file__), 'cache/a/b'), 'w').write('x')",
    "its own file": "open(__file__, 'a').write('# changed')",
}


def locked(place: Place, body: str) -> Place:
    """A locked plugin whose function does this, next to one that does nothing."""
    source = f"import os\n\n\ndef register():\n    {body}\n"
    for name, modules in (
        ("tiny", {"tiny/__init__.py": source}),
        ("other", {"other/__init__.py": "def register(): pass\n"}),
    ):
        projects.project(place.config / name, name=name, entry_points={"vllm.general_plugins": {name: f"{name}:register"}}, modules=modules)  # fmt: skip
    place.write(
        "plugins:\n  - {name: mine, source: local, path: tiny}\n  - {name: other, source: local, path: other}\n"
    )
    place.run("lock", "--resolver", "uv")
    return place


@pytest.mark.parametrize("how", WRITING)
def test_a_plugin_that_changes_the_overlay_is_named(place: Place, how: str) -> None:
    """Every start with VLLM_PLUGIN_VERIFY=1 would fail, and each new installation would do the same again."""
    there = locked(place, WRITING[how])
    for words in (("sync",), ("sync",), ("sync", "--reinstall")):
        done = there.run(*words, env={"VLLM_PLUGIN_VERIFY": "1"}, check=False)
        assert done.returncode == 7
        assert "error: plugin 'mine' changes files of the overlay while it is loaded" in done.stderr
        assert "'other'" not in done.stderr
    done = there.run("sync", "--reinstall")
    assert "warning: plugin 'mine' changes files of the overlay while it is loaded" in done.stderr
    started = there.python(
        "-m", "tests.kit.loader", "general", env={"VLLM_PLUGIN_VERIFY": "1"}, check=False, traceback=True
    )
    assert (
        "plugin 'mine' changes files of the overlay" in started.stderr
        or "is not as it was installed" in started.stderr
    )


def test_a_damaged_overlay_is_installed_again_and_no_plugin_is_blamed(place: Place) -> None:
    """Blocks of zeros, as a disk may leave them: the sizes are those of before."""
    there = locked(place, "pass")
    there.run("sync")
    for path in (there.site / "tiny").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(os.path.getsize(path)))
    done = there.run("sync", "--load-check", "calls")
    assert "Installing again: 2 files of the overlay changed since it was installed" in done.stderr
    assert there.run("verify").returncode == 0
    assert there.python("-m", "tests.kit.loader", "general", env={"VLLM_PLUGIN_VERIFY": "1"}).returncode == 0
