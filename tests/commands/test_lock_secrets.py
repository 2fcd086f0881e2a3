"""A password with characters that should have been encoded: the lock, the store, the output and the errors have no
part of it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.git_server import serve_https
from tests.kit.long import long
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.place import Place


@pytest.mark.parametrize("password", ["hunter'2sec]ret", *long("hunter@2secret")])
def test_no_part_of_a_password_leaves_the_manifest(place: Place, tmp_path: Path, password: str) -> None:
    repository = Repository.init(tmp_path / "served" / "tiny")
    projects.project(repository.path, name="tiny", entry_points={"vllm.logits_processors": {"bend": "tiny:Bend"}})
    repository.commit()
    with serve_https(repository.path.parent, tmp_path, user="ada", password=password) as server:
        place.variables["GIT_SSL_CAINFO"] = str(server.authority)
        plugin = {"name": "tiny", "source": "git", "url": f"https://ada:{password}@{server.host}/tiny/.git"}
        place.manifest.write_text(json.dumps({"plugins": [plugin]}), encoding="utf-8")
        output = [place.run("lock", "-v"), place.run("sync", "--no-load-check", "-v"), place.run("status")]
        assert f"https://{server.host}/tiny/.git" in place.lock_text
        failures = [{"ref": "missing"}, {"subdirectory": "missing"}, {"url": plugin["url"].replace("tiny/", "none/")}]
        failures += [{"url": plugin["url"] + "#fragment"}, {"url": plugin["url"].replace("https", "ftp")}]
        failures += [
            {"url": plugin["url"].replace("https://", "")},
            {"url": plugin["url"].replace("ada:", "bob:x"), "ref": "other"},
        ]
        for change in failures:
            place.manifest.write_text(json.dumps({"plugins": [{**plugin, **change}]}), encoding="utf-8")
            failed = place.run("lock", "-v", "--json", check=False)
            assert failed.returncode != 0, change
            output.append(failed)
    texts = [text for done in output for text in (done.stdout, done.stderr)]
    files = [path for path in (place.lock, *place.store.rglob("*")) if path.is_file()]
    texts += [path.read_bytes().decode(errors="replace") for path in files]
    for part in ("hunt", "2sec"):
        assert [text for text in texts if part in text] == []
