"""The workflow of update pull requests: its shell steps are run, in their order, as GitHub's runner does.

Real are bash, git, the remote and ``vllm-plugins``. A stand-in for ``gh`` hands over the artifact and notes its words.
Not run are the actions, and the step that installs the tools.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.kit import projects
from tests.kit.repositories import Repository, git_environment

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

EXAMPLES = Path(__file__).parents[2] / "examples/github-actions"
WORKFLOW = yaml.safe_load((EXAMPLES / "upgrade.yml").read_text(encoding="utf-8"))
POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
TINY = {"tiny.py": "from vllm import old\ndef register(): ...\n"}
GH = """\
#!/usr/bin/env python3
import json, os, shutil, sys
with open(os.environ["GH_NOTES"], "a") as notes:
    print(json.dumps(sys.argv[1:]), file=notes)
if sys.argv[1:3] == ["run", "download"]:
    name, into = (sys.argv[sys.argv.index(option) + 1] for option in ("--name", "--dir"))
    shutil.copytree(os.environ["GH_ARTIFACTS"] + "/" + name, into, symlinks=True)
sys.exit(sys.argv[1:3] == ["pr", "edit"] and "GH_HAS_REQUEST" not in os.environ)
"""


@dataclass(kw_only=True)
class Runner:
    """One runner of GitHub Actions, for a repository with a remote."""

    place: Place
    root: Path
    remote: Repository
    variables: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    def job(self, name: str) -> None:
        """Run the shell steps of a job in a fresh clone, and keep what it uploads."""
        clone = self.root / f"clone-{name}"
        subprocess.run(["git", "clone", "--quiet", self.remote.path, clone], env=git_environment(), check=True)
        temporary = self.root / f"temp-{name}"
        temporary.mkdir()
        for part in WORKFLOW["jobs"][name]["steps"]:
            condition = part.get("if", "")
            assert condition in ("", "steps.upgrade.outputs.changed == 'true'")
            if condition and self.outputs.get("changed") != "true":
                continue
            if part.get("uses", "").startswith("actions/upload-artifact@"):
                self.upload(clone, part["with"])
            if "run" in part and part.get("working-directory") != "tools":
                self.step(part, clone, temporary)

    def step(self, part: dict[str, Any], clone: Path, temporary: Path) -> None:
        output = temporary / "output"
        output.touch()
        env = {
            **self.place.environment,
            **git_environment(),
            **{name: self.expanded(value) for name, value in part.get("env", {}).items()},
            "PATH": f"{self.root / 'bin'}:{self.place.environment['PATH']}",
            "HOME": str(self.place.home),
            "https_proxy": "http://127.0.0.1:9",  # the advisory service is not asked
            "GITHUB_OUTPUT": str(output),
            "GITHUB_RUN_ID": "42",
            "RUNNER_TEMP": str(temporary),
            "GH_NOTES": str(self.root / "notes"),
            "GH_ARTIFACTS": str(self.root / "artifacts"),
            **self.variables,
        }
        del env["VLLM_PLUGIN_CONFIG"]
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", part["run"]]
        done = subprocess.run(words, cwd=clone, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{part['name']}\n{done.stdout}\n{done.stderr}"
        self.outputs |= dict(line.split("=", 1) for line in output.read_text().splitlines())

    def artifact(self, name: str) -> Path:
        return self.root / "artifacts" / name

    def upload(self, clone: Path, artifact: dict[str, str]) -> None:
        self.artifact(artifact["name"]).mkdir(parents=True)  # one that is there is an error, as at GitHub
        for name in artifact["path"].split():
            source, target = clone / name, self.artifact(artifact["name"]) / name
            if source.is_dir():
                shutil.copytree(source, target)
            elif source.exists():
                shutil.copyfile(source, target)

    def expanded(self, value: str) -> str:
        known = {"vars.NEXT_VLLM": self.variables.get("NEXT_VLLM", ""), "github.token": "a-token"}
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda match: known[match[1]], value)

    @property
    def notes(self) -> list[list[str]]:
        """The calls of ``gh``."""
        return [json.loads(line) for line in (self.root / "notes").read_text().splitlines()]


@pytest.fixture
def runner(place: Place, index: Index, tmp_path: Path) -> Runner:
    """A repository with a locked plugin from the index and one that is built, and a newer release of the first."""
    index.wheel("vllm", "9.9.9", modules={"vllm/__init__.py": "old = 1\n"})
    index.wheel("tiny", "1.0", entry_points=POINTS, modules=TINY)
    projects.project(place.config / "mine", name="mine", modules={"mine.py": "X = 1\n"})
    place.write("""
        plugins:
          - {name: tiny, source: pypi, package: tiny}
          - {name: mine, source: local, path: mine}
    """)
    place.run("base", "-o", place.config / "base.json")
    place.run("lock", "--base", place.config / "base.json")
    repository = Repository.init(place.config)
    repository.commit("locked")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gh").write_text(GH)
    (tmp_path / "bin/gh").chmod(0o755)
    repository.git("config", "receive.denyCurrentBranch", "ignore")
    return Runner(place=place, root=tmp_path, remote=repository)


def test_an_update_becomes_a_branch_and_a_pull_request_with_what_a_reviewer_must_know(
    runner: Runner, index: Index
) -> None:
    index.wheel("tiny", "2.0", entry_points=POINTS, modules=TINY)
    runner.variables["NEXT_VLLM"] = "vllm==9.9.9"
    runner.job("upgrade")
    assert runner.outputs == {"changed": "true"}
    runner.job("describe")
    runner.job("propose")
    changed = runner.remote.git("diff", "--name-only", "main", "upgrade-plugins").split()
    assert changed == ["plugins.lock"]
    upgrade, proposal, edit, create = runner.notes
    assert [note[:2] for note in (upgrade, proposal)] == [["run", "download"]] * 2
    assert edit[:3] == ["pr", "edit", "upgrade-plugins"]
    assert create[:4] == ["pr", "create", "--head", "upgrade-plugins"]
    text = Path(create[create.index("--body-file") + 1]).read_text(encoding="utf-8")
    table, audit, outlook = re.split(r"\n\n\*\*(?:Audit|Outlook)\*\*\n\n", text)
    assert "| `tiny` | `1.0` | `2.0` | `tiny` |" in table
    assert all(line.startswith("    ") for report in (audit, outlook) for line in report.splitlines())
    assert "    not run: vulnerabilities: " in audit
    assert re.search(r"^    tiny +1\.0 → 2\.0|^    tiny +2\.0|^    tiny +1\.0", outlook, re.MULTILINE)


def test_an_open_pull_request_is_updated(runner: Runner, index: Index) -> None:
    index.wheel("tiny", "2.0", entry_points=POINTS, modules=TINY)
    runner.remote.git("branch", "upgrade-plugins")
    runner.variables["GH_HAS_REQUEST"] = "1"
    for name in WORKFLOW["jobs"]:
        runner.job(name)
    assert [note[:2] for note in runner.notes] == [["run", "download"], ["run", "download"], ["pr", "edit"]]
    assert "Outlook" not in (runner.artifact("proposal") / "description.md").read_text()


def test_a_build_puts_nothing_into_the_branch_but_a_lock_and_wheels(runner: Runner, index: Index) -> None:
    """It runs in the other job, and may change the artifact: a repository in it would have a configuration of its own."""
    index.wheel("tiny", "2.0", entry_points=POINTS, modules=TINY)
    runner.job("upgrade")
    wheels = runner.artifact("upgrade") / "plugins.wheels"
    nested = Repository.init(wheels / "nested")
    (wheels / "nested" / "a").touch()
    nested.commit("hostile")
    for name in (".gitattributes", "run.sh", "-o.whl", "nested/inner-1.0-py3-none-any.whl"):
        (wheels / name).write_text("hostile")
    for name in ("plugins.yaml", "description.md"):
        (runner.artifact("upgrade") / name).write_text("hostile")
    runner.job("describe")
    runner.job("propose")
    assert runner.remote.git("diff", "--name-only", "main", "upgrade-plugins").split() == ["plugins.lock"]
    assert "hostile" not in (runner.artifact("proposal") / "description.md").read_text()


def test_a_link_in_an_artifact_leads_to_no_file_of_the_runner(runner: Runner, index: Index) -> None:
    index.wheel("tiny", "2.0", entry_points=POINTS, modules=TINY)
    runner.job("upgrade")
    path = runner.artifact("upgrade") / "plugins.lock"
    path.unlink()
    path.symlink_to("/proc/self/environ")
    with pytest.raises(AssertionError, match="and nothing else"):
        runner.job("describe")


def test_where_nothing_is_newer_nothing_is_proposed(runner: Runner) -> None:
    runner.job("upgrade")
    assert runner.outputs == {}
    assert not runner.artifact("upgrade").exists()


BUILDS = ("upgrade", "lock", "bundle", "sync", "push", "--rebuild", "docker")  # these run code of plugins, or may
REPORTS = ("audit", "export", "upload-artifact")


def words(job: dict[str, Any]) -> set[str]:
    return {word for part in job["steps"] for word in part.get("run", "").split()}


def test_only_the_job_that_runs_no_code_of_plugins_may_write() -> None:
    jobs = WORKFLOW["jobs"]
    assert WORKFLOW["permissions"] == {}
    assert jobs["upgrade"]["permissions"] == {"contents": "read"}
    assert jobs["describe"]["permissions"] == {"actions": "read", "contents": "read"}
    assert jobs["describe"]["if"] == "needs.upgrade.outputs.changed == 'true'"
    assert (jobs["describe"]["needs"], jobs["propose"]["needs"]) == ("upgrade", "describe")
    assert "vllm-plugins" not in words(jobs["propose"])
    assert not words(jobs["describe"]) & {*BUILDS} - {"upgrade"}  # the name of an artifact
    for name in ("upgrade", "describe"):
        (checkout,) = (part for part in jobs[name]["steps"] if "checkout" in part.get("uses", ""))
        assert checkout["with"]["persist-credentials"] is False


def test_nothing_that_reports_to_a_reviewer_follows_a_build() -> None:
    """A build runs code of the change under review, which could forge what its job says afterwards."""
    review = (EXAMPLES / "plugins.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(review)["jobs"]
    commands = [" ".join((part.get("run") or part["uses"]).split()) for part in jobs["review"]["steps"]]
    reports = [at for at, text in enumerate(commands) if any(word in text for word in REPORTS)]
    builds = [at for at, text in enumerate(commands) if {*BUILDS} & {*text.split()}]
    assert len(reports) == 3
    assert builds == [len(commands) - 1]
    assert "vllm-plugins audit" not in " ".join(words(jobs["build"]))


@pytest.mark.parametrize("name", ["plugins.yml", "upgrade.yml"])
def test_no_expression_stands_in_a_script(name: str) -> None:
    """GitHub puts the value into the script before a shell reads it. A variable of the environment is only a value."""
    jobs = yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))["jobs"]
    scripts = [part["run"] for job in jobs.values() for part in job["steps"] if "run" in part]
    assert len(scripts) > 5
    assert not [script for script in scripts if "${{" in script]
