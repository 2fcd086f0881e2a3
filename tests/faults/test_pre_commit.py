"""The pre-commit hook as users have it: pre-commit installs it from this repository, with the real package registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.kit.repositories import Repository

ROOT = Path(__file__).parents[2]


@pytest.mark.network
def test_the_hook_is_installed_and_finds_a_lock_that_is_out_of_date(tmp_path: Path) -> None:
    ours = Repository.init(tmp_path / "ours")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if name.startswith("vllm_plugins/") or "/" not in name:
            (ours.path / name).parent.mkdir(parents=True, exist_ok=True)
            (ours.path / name).write_bytes((ROOT / name).read_bytes())
    theirs = Repository.init(tmp_path / "theirs")
    hook = {"id": "vllm-plugins-lock", "args": ["--base", "base.json"]}
    theirs.write(
        {
            ".pre-commit-config.yaml": yaml.safe_dump(
                {"repos": [{"repo": str(ours.path), "rev": ours.commit(), "hooks": [hook]}]}
            ),
            "plugins.yaml": json.dumps({"plugins": [{"name": "it", "source": "pypi", "package": "iniconfig"}]}),
        }
    )
    env = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "pre-commit"), "HOME": str(tmp_path)}
    env = {name: value for name, value in env.items() if not name.startswith("VLLM_")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *words], cwd=theirs.path, env=env, capture_output=True, text=True, check=False
        )

    assert run("vllm_plugins", "base", "-o", "base.json").returncode == 0
    theirs.git("add", "--all")
    done = run("pre_commit", "run")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "exit code: 3" in done.stdout
    assert run("vllm_plugins", "lock", "--base", "base.json").returncode == 0
    theirs.git("add", "--all")
    done = run("pre_commit", "run")
    assert done.returncode == 0, done.stdout + done.stderr
