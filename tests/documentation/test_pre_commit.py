"""The pre-commit hook that we offer, run by the real pre-commit at a real commit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.kit.repositories import Repository, git_environment

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

ROOT = Path(__file__).parents[2]
HOOKS = ROOT / ".pre-commit-hooks.yaml"


def test_the_hook_is_valid() -> None:
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-manifest", HOOKS], check=True)


def commit(place: Place, repository: Repository, message: str) -> tuple[int, str]:
    repository.git("add", "--all")
    env = {**place.environment, **git_environment(), "PATH": place.environment["PATH"], "HOME": str(place.home)}
    del env["VLLM_PLUGIN_CONFIG"]
    done = subprocess.run(
        ["git", "commit", "--quiet", "--message", message],
        cwd=repository.path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_commit_with_a_lock_that_is_out_of_date_is_refused(place: Place, index: Index) -> None:
    """With the programs of this environment: a network test in tests/faults lets pre-commit install the hook."""
    index.wheel("tiny")
    index.wheel("more")
    repository = Repository.init(place.config)
    (hook,) = yaml.safe_load(HOOKS.read_text(encoding="utf-8"))
    here: dict[str, Any] = {
        **hook,
        "language": "system",
        "entry": f"{sys.executable} -m {hook['entry'].replace('-', '_', 1)}",
    }
    here.pop("additional_dependencies")
    repository.write({".pre-commit-config.yaml": yaml.safe_dump({"repos": [{"repo": "local", "hooks": [here]}]})})
    place.pypi("tiny")
    place.run("lock")
    assert commit(place, repository, "before there is a hook")[0] == 0
    place.python("-m", "pre_commit", "install", cwd=repository.path, env=git_environment())
    place.pypi("tiny", "more")
    code, output = commit(place, repository, "without a new lock")
    assert code == 1, output
    assert "exit code: 3" in output
    assert "[lock-out-of-date]" in output
    place.run("lock")
    assert commit(place, repository, "with it")[0] == 0
    repository.write({"README": "another file"})
    code, output = commit(place, repository, "of another file")
    assert code == 0
    assert "Skipped" in output
