"""Pages of an index that pip and uv read differently: a lock is made and installed with both."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import loopback, projects
from tests.kit.long import long

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.place import Place

KINDS = ("egg first", "egg last", "not UTF-8")


@contextmanager
def served(root: Path) -> Iterator[str]:
    argv = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(root), "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().split("port ")[1].split()[0]
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()


class Odd(http.server.SimpleHTTPRequestHandler):
    """A server of static files that adds something to pages, or compresses wheels that nobody asked it to compress."""

    kind = ""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            return self.send_error(404)
        body, is_wheel = path.read_bytes(), path.suffix == ".whl"
        self.send_response(200)
        charset = "; charset=nonsense" if self.kind == "unknown charset" else ""
        self.send_header("Content-Type", "application/octet-stream" if is_wheel else f"text/html{charset}")
        if is_wheel and self.kind == "compressed wheels":
            self.send_header("Content-Encoding", "gzip")
            body = gzip.compress(body)
        if self.kind == "relative base":
            body = body.replace(b"<html>", b'<html><head><base href="/"></head>')
            body = body.replace(b'href="p', b'href="/plugin/p').replace(b'href="h', b'href="/helper/h')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        return None

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served_oddly(root: Path, kind: str) -> Iterator[str]:
    handler = functools.partial(type("Handler", (Odd,), {"kind": kind}), directory=str(root))
    with loopback.serving(handler) as address:
        yield f"http://{address}/"


def pages(root: Path, kind: str) -> None:
    """An index of static files, with such links or such a byte on each page."""
    for directory in root.iterdir():
        lines = [b"<!DOCTYPE html><html><body>"]
        for file in sorted(directory.iterdir()):
            sha256, name = hashlib.sha256(file.read_bytes()).hexdigest(), directory.name
            fragment = {
                "egg first": f"egg={name}&amp;sha256={sha256}",
                "egg last": f"sha256={sha256}&amp;egg={name}",
            }.get(kind, f"sha256={sha256}")
            lines.append(f'<a href="{file.name}#{fragment}">{file.name}</a>'.encode())
        if kind == "not UTF-8":
            lines.append(b"<!-- caf\xe9 -->")
        (directory / "index.html").write_bytes(b"\n".join(lines))


def with_helper(tmp_path: Path) -> Path:
    """The wheels of a plugin and of what it requires, without pages."""
    root = tmp_path / "static"
    projects.wheel(root / "plugin", "plugin", requires=["helper"])
    projects.wheel(root / "helper", "helper", "1.0")
    return root


def assert_both_are_installed(place: Place) -> None:
    assert sorted(path.name for path in place.site.glob("*.dist-info")) == [
        "helper-1.0.dist-info",
        "plugin-1.0.dist-info",
    ]


@pytest.mark.parametrize("kind", [KINDS[0], *long(*KINDS[1:])])
@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_each_resolver_and_installer_takes_the_files_of_odd_pages(
    place: Place, tmp_path: Path, kind: str, installer: str
) -> None:
    root = with_helper(tmp_path)
    pages(root, kind)
    place.pypi("plugin")
    with served(root) as url:
        there = replace(place, index_url=url)
        there.run("lock", "--resolver", "pip-compile" if installer == "pip" else "uv")
        done = there.run("sync", "--no-load-check", "--installer", installer)
        assert ("fetched without pip" in done.stderr) == (installer == "pip")
        assert there.run("status").returncode == 0
        assert there.run("lock", "--check").returncode == 0
    assert_both_are_installed(place)


@pytest.mark.parametrize("kind", [KINDS[0], *long(*KINDS[1:])])
def test_a_lock_that_a_resolver_has_to_ask_the_index_for_is_made_or_says_why_not(
    place: Place, tmp_path: Path, kind: str
) -> None:
    """Its pins are kept, so the walk alone does not decide."""
    root = with_helper(tmp_path)
    projects.wheel(root / "more", "more", "1.0", requires=["helper"])
    pages(root, kind)
    place.pypi("plugin")
    with served(root) as url:
        there = replace(place, index_url=url)
        there.run("lock", "--resolver", "pip-compile")
        place.pypi("plugin", "more")
        done = there.run("lock", "--resolver", "pip-compile", check=False)
        if kind == "not UTF-8":
            assert done.returncode == 1
            assert (
                "error: pip can't read a page of the index, which is not valid UTF-8 [source-unavailable]"
                in done.stderr
            )
            assert "or use the other resolver" in done.stderr or "--resolver uv" in done.stderr
            done = there.run("lock", "--resolver", "uv")
        assert done.returncode == 0, done.stderr
    assert place.versions == {"plugin": "1.0", "helper": "1.0", "more": "1.0"}


def test_another_file_than_the_locked_one_is_not_fetched(place: Place, tmp_path: Path) -> None:
    root = tmp_path / "static"
    projects.wheel(root / "plugin", "plugin")
    pages(root, "egg first")
    place.pypi("plugin")
    with served(root) as url:
        there = replace(place, index_url=url)
        there.run("lock")
        (root / "plugin" / "index.html").unlink()
        projects.wheel(root / "plugin", "plugin", modules={"plugin.py": "OTHER = 1\n"})
        pages(root, "egg first")
        done = there.run("sync", "--installer", "pip", check=False)
    assert done.returncode == 1
    assert "no index gave the locked release of plugin" in done.stderr
    assert not place.store.exists() or not place.overlays


@pytest.mark.parametrize("kind", ["relative base", "unknown charset", "compressed wheels"])
@pytest.mark.parametrize("installer", ["pip", *long("uv")])
def test_what_is_locked_can_be_installed_whatever_the_installer_says_of_the_index(
    place: Place, tmp_path: Path, kind: str, installer: str
) -> None:
    root = with_helper(tmp_path)
    pages(root, kind)
    place.pypi("plugin")
    with served_oddly(root, kind) as url:
        there = replace(place, index_url=url)
        there.run("lock")
        done = there.run("sync", "--no-load-check", "--installer", installer)
        assert installer == "uv" or "fetched without pip, because it failed: " in done.stderr
        assert there.run("status").returncode == 0
    assert_both_are_installed(place)


def test_a_wheel_with_another_content_is_fetched_neither_by_the_installer_nor_for_it(
    place: Place, tmp_path: Path
) -> None:
    root = tmp_path / "static"
    wheel = projects.wheel(root / "plugin", "plugin")
    pages(root, "plain")
    place.pypi("plugin")
    with served_oddly(root, "plain") as url:
        there = replace(place, index_url=url)
        there.run("lock")
        page = (root / "plugin" / "index.html").read_bytes()
        wheel.write_bytes(projects.wheel(tmp_path, "plugin", modules={"plugin.py": "OTHER = 1\n"}).read_bytes())
        assert (root / "plugin" / "index.html").read_bytes() == page
        for installer in ("pip", "uv"):
            done = there.run("sync", "--installer", installer, check=False)
            assert done.returncode == 4, done.stderr
            assert "fetched without" not in done.stderr
    assert not place.store.exists() or not place.overlays


def test_a_first_lock_blames_the_index_for_a_build_requirement_with_another_content(
    place: Place, tmp_path: Path
) -> None:
    """No lock names a file yet. pip compares with the hash of the page."""
    root = with_helper(tmp_path)
    pages(root, "compressed wheels")
    project = projects.project(place.config / "tiny", name="tiny")
    file = project / "pyproject.toml"
    file.write_text(file.read_text().replace("requires = []", 'requires = ["helper"]'))
    place.write("plugins: [{name: tiny, source: local, path: tiny}]")
    with served_oddly(root, "compressed wheels") as url:
        there = replace(place, index_url=url)
        done = there.run("lock", "-q", env={"VLLM_PLUGIN_INSTALLER": "pip"}, check=False)
    assert done.returncode == 4
    assert "error: a build requirement does not match the hash that its index names [hash-mismatch]" in done.stderr
    assert "  required by: the build of plugin 'tiny'\n" in done.stderr
    assert done.stderr.endswith("  next: try again; if it fails again, report it to the operator of the index\n")
