"""Readers of what servers, programs and projects answer, and of what was kept of that."""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest import mock

from vllm_plugins.core import errors, lfs
from vllm_plugins.core.errors import PluginsError
from vllm_plugins.documents import merge_conflicts
from vllm_plugins.install import oci, pull
from vllm_plugins.locking import old_lock, request
from vllm_plugins.locking._preparation import sdists
from vllm_plugins.packages import attestations, metadata, pip_config
from vllm_plugins.packages._configuration import pip_files, pip_program, uv_files
from vllm_plugins.packages._net import keyring, session
from vllm_plugins.packages.images import _docker_logins, layout
from vllm_plugins.review import advisories
from vllm_plugins.review._audit import provenance
from vllm_plugins.sources import _git, _listing, git_refs, pyproject
from vllm_plugins.sources.git_url import Remote
from vllm_plugins.startup import _vllm_cache, last_failure, overlay
from vllm_plugins.startup.settings import Settings

from .target import Target, scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ANSWERS"]

_ROOT = Path(__file__).parents[2]
_SCRATCH = scratch()
_SETTINGS = Settings(
    manifest=_SCRATCH / "plugins.yaml",
    lock=_SCRATCH / "plugins.lock",
    store=_SCRATCH / "store",
    cache_home=str(_SCRATCH / "cache"),
)
_SHA256 = "a" * 64


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as name:
        yield Path(name)


def _json(data: bytes) -> None:
    """A keyring, pip-audit, an index with attestations, a child process that installs, and our cache of metadata."""
    text = data.decode("utf-8", "replace")
    pair = keyring._pair(text)
    assert pair is None or len(pair) == 2
    with contextlib.suppress(ValueError, KeyError, TypeError):
        metadata.from_json(text)
    note = overlay.failure_note(_SETTINGS.store, _SETTINGS.lock)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_bytes(data)
    found = last_failure.read(_SETTINGS)
    assert found is None or str(found.error)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    with contextlib.suppress(KeyError, TypeError):
        assert str(PluginsError.from_dict(document))
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        advisories._parse(document, [])
    assert all(isinstance(name, str) for name in provenance._publishers(document, _SHA256))
    if attestations.is_available():
        with contextlib.suppress(errors.AttestationMismatch):
            attestations.verify(document, filename="tiny-1.0-py3-none-any.whl", sha256=_SHA256)


def _configuration(data: bytes) -> None:
    """``uv.toml``, ``pip.conf``, and what pip says of its configuration."""
    toml, _, report = data.partition(b"\0\0")
    path = _SCRATCH / "uv.toml"
    path.write_bytes(toml)
    variables = {"UV_CONFIG_FILE": str(path), "UV_INDEX_A_USERNAME": "ada", "UV_INDEX_A_PASSWORD": "x"}
    with contextlib.suppress(errors.UsageError):
        found = uv_files.from_file(variables)
        assert all(isinstance(url, str) for url in (*found.extra_index_urls, *found.find_links))
    text = report.decode("utf-8", "replace")
    uv_files.from_variables({**variables, "UV_INDEX": text, "UV_DEFAULT_INDEX": text})
    place = _SCRATCH / "pip.conf"
    place.write_bytes(report)
    pip_files.read({"PIP_CONFIG_FILE": str(place), "PIP_INDEX_URL": text})
    with contextlib.suppress(errors.UsageError):
        values, _ = pip_config._values(pip_program.parse(text))
        assert all(isinstance(value, str) for value in values.values())


def _image(data: bytes) -> None:
    """The manifest and the configuration of an image, the index of a directory of images, and logins for registries."""
    digest = "sha256:" + _SHA256
    with contextlib.suppress(errors.RegistryError):
        image = pull._read(data, digest)
        f"{image.annotations}{image.layers}".encode()
        pull._check_config(data, image)
    with _directory() as directory:
        (directory / "index.json").write_bytes(data)
        (directory / "config.json").write_bytes(data)
        with contextlib.suppress(errors.RegistryError):
            layout.Layout(directory, tag="a").manifest()
        with contextlib.suppress(errors.RegistryError):
            login = _docker_logins.find("ghcr.io", {"DOCKER_CONFIG": str(directory), "HOME": str(directory)})
            assert login is None or session.basic(login.user, login.password)


def _pyproject(data: bytes) -> None:
    with _directory() as project:
        (project / "pyproject.toml").write_bytes(data)
        assert len(pyproject.sha256(project)) == 64
        assert pyproject.reads_history(project) in (True, False)
        for requirement in sdists._build_requirements(project):
            assert str(requirement)


def _conflict(data: bytes) -> None:
    """A lock as a merge left it."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(RecursionError):
        assert merge_conflicts.sides(text)
    _SETTINGS.lock.write_bytes(data)
    with contextlib.suppress(errors.LockInvalid):
        found = old_lock.read(_SETTINGS, request.Upgrade())
        assert found.lock is None or found.lock.packages is not None


def _git_words(data: bytes) -> None:
    """References of a server, names of files as git quotes them, and pointers of Git LFS."""
    text = data.decode("utf-8", "replace")
    done = SimpleNamespace(returncode=0, stdout=text, stderr=text)
    with mock.patch.object(_git, "run", return_value=done):
        remote = Remote(url="https://x/", shown="https://x/", scheme="https")
        with contextlib.suppress(errors.SourceError):
            access = _git.Access(remote=remote, env={}, plugin="tiny")
            assert all(len(sha) == 40 for sha in git_refs.advertised(access).values())
        assert all("/.git/" not in name for name in _listing.ignored(_SCRATCH, environ={}))
    for line in data.splitlines():
        assert isinstance(_listing._unquote(line), bytes)
    lfs.is_pointer(data)


def _compiled(data: bytes) -> None:
    """The list of an overlay's files, and RECORD of a plugin, as a factor of vLLM's compile cache."""
    files, _, record = data.partition(b"\0\0")
    from .targets import KEY, MARKER

    root = overlay.directory(_SETTINGS.store, KEY)
    info = root / overlay.SITE / "tiny-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (root / overlay.MARKER).write_text(MARKER.replace(files_sha256=overlay.sha256(files)).to_json())
    (root / "files.json").write_bytes(files)
    (info / "METADATA").write_text("Name: tiny\nVersion: 1.0\n")
    (info / "RECORD").write_bytes(record)
    factor, covered = _vllm_cache._compute(info.parent)
    assert factor is None or factor.isalnum()
    assert all(isinstance(path, str) for path in covered)


_STATEMENT = base64.b64encode(json.dumps({"subject": [{"digest": {"sha256": _SHA256}}]}).encode()).decode()
_PROVENANCE = {
    "version": 1,
    "attestation_bundles": [
        {
            "publisher": {"kind": "GitHub", "repository": "a/b", "workflow": "c.yml"},
            "attestations": [
                {
                    "version": 1,
                    "verification_material": {"certificate": "AAAA", "transparency_entries": [{}]},
                    "envelope": {"statement": _STATEMENT, "signature": "AAAA"},
                }
            ],
        }
    ],
}
_AUDIT = {
    "dependencies": [
        {"name": "tiny", "version": "1.0", "vulns": [{"id": "X-1", "aliases": ["Y"], "fix_versions": ["2"]}]}
    ]
}
_FAILURE = {"at": 1, "on-error": "fail", "error": errors.LockStale("it is old", details=["why"]).to_dict()}
_METADATA = {
    "name": "tiny",
    "version": "1.0",
    "extras": [],
    "requires": [],
    "entry_points": [["a", "b", "c"]],
    "requires_python": None,
    "pointers": [],
}
_DOCUMENTS = (_PROVENANCE, _AUDIT, _FAILURE, _METADATA, {"username": "a", "password": "b"})
_BLOB = {"mediaType": oci.LAYER, "digest": f"sha256:{_SHA256}", "size": 10}
_MANIFEST = {"schemaVersion": 2, "config": _BLOB, "layers": [_BLOB], "annotations": {"a": "b"}}
_CONFIG = {"rootfs": {"diff_ids": [f"sha256:{_SHA256}"]}}
_INDEX = {"manifests": [{**_BLOB, "annotations": {"org.opencontainers.image.ref.name": "a"}}]}
_LOGINS = {"auths": {"ghcr.io": {"auth": "YTpi"}, "https://ghcr.io": {"username": "a", "password": "b"}}}
_UV = b"""\
index-url = "https://x/simple"
extra-index-url = ["https://y/simple"]
[[index]]
name = "a"
url = "https://z/simple"
default = true
[pip]
no-index = true
"""
_PIP = b"global.index-url='https://x/simple'\n:env:.quiet='0'\ninstall.trusted-host='a\\nb'\n"
_PROJECT = b"""\
[build-system]
requires = ["setuptools>=61; python_version >= '3.8'", "setuptools-scm"]
[tool.setuptools.dynamic]
version = {file = "VERSION"}
optional-dependencies.a = {file = ["a.txt", "b.txt"]}
[tool.hatch.version]
path = "x.py"
"""  # fmt: skip
_REFS = b"""\
%(sha)s\tHEAD
%(sha)s\trefs/tags/v1^{}
? "a\\303\\244\\"b"
version https://git-lfs.github.com/spec/v1
oid sha256:aa
size 3
""".replace(b"%(sha)s", b"0" * 40)
_LOCK = (_ROOT / "plugins.lock.example").read_bytes()

ANSWERS = (
    Target(
        name="json",
        run=_json,
        seeds=(*(json.dumps(item).encode() for item in _DOCUMENTS), b"[" * 4000),
        words=("null", "1e999", "[[", '"error": ', '"statement": ', '"details": ', "\\ud800"),
    ),
    Target(name="configuration", run=_configuration, seeds=(_UV + b"\0\0" + _PIP, _UV + b"\0\0[global]\nindex-url = https://x/simple\nfind-links =\n  a\n  b\n", b"a = " + b"[" * 1500 + b"\0\0global.index-url=" + b"(" * 1500), words=("[[", "{", "http://[", "'a' 'b'", "((((", "\\N{", "a=https://")),
    Target(name="pyproject", run=_pyproject, seeds=(_PROJECT, b"a = " + b"[" * 3000), words=("file = ", "requires = [", "[[", "../", "/dev/zero", "\\u0000", "; extra == ", " === ")),
    Target(
        name="conflict",
        run=_conflict,
        seeds=(b"<<<<<<< ours\n" + _LOCK[:1500] + b"=======\n" + _LOCK[:1500] + b">>>>>>> theirs\n", _LOCK),
        words=("<<<<<<< a\n", "=======\n", "||||||| a\n", ">>>>>>> a\n", "%%%%%%%\n", "[[packages]]", "[[["),
    ),
    Target(
        name="image",
        run=_image,
        seeds=tuple(json.dumps(item).encode() for item in (_MANIFEST, _CONFIG, _INDEX, _LOGINS)),
        words=("null", "1e999", "[[", '"digest": ', "\\ud800", '"auth": '),
    ),
    Target(name="git", run=_git_words, seeds=(_REFS,), words=("\trefs/", "^{}", '"', "\\303", "? ")),
    Target(
        name="compiled",
        run=_compiled,
        seeds=(b'[["tiny.py","' + _SHA256.encode() + b'",10]]\0\0tiny.py,,\n',),
        words=("[[", "null", '",', "\r", ",,"),
    ),
)  # fmt: skip
