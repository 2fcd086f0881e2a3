"""What reads bytes that others wrote: each reader with whole documents to begin from, and what may come of any bytes.

A target returns, or raises what is no promise of its reader: that is a finding. Hypothesis and atheris use the same.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_plugins.core import errors, tokens
from vllm_plugins.core.errors import PluginsError
from vllm_plugins.core.printable import printable
from vllm_plugins.core.redact import public_url, redact
from vllm_plugins.documents import base, compatibility, lock_reader, lock_writer, manifest, selection
from vllm_plugins.install import _stage, _store, bundle, generations
from vllm_plugins.locking import _conflicts, _resolution
from vllm_plugins.packages import _reproducible, metadata, simple_api
from vllm_plugins.review import export
from vllm_plugins.startup import integrity, overlay
from vllm_plugins.startup.marker import Failure, Marker
from vllm_plugins.startup.settings import Settings

from .answers import ANSWERS
from .target import Target, scratch

__all__ = ["KEY", "MARKER", "TARGETS", "Target"]

_ROOT = Path(__file__).parents[2]
_SCRATCH = scratch()
KEY = "0" * 32
_SETTINGS = Settings(
    manifest=_SCRATCH / "plugins.yaml",
    lock=_SCRATCH / "plugins.lock",
    store=_SCRATCH / "store",
    cache_home=str(_SCRATCH / "cache"),
    offline=True,
)
_HERE = base.of_here(
    (
        base.distribution(base.VLLM, "0.32.0", ["audio"], ['soundfile; extra == "audio"']),
        base.distribution(canonicalize_name("torch"), "2.13.0+cpu", [], []),
    ),
    fingerprint="f" * 32,
)
MARKER = Marker(
    key=KEY,
    interpreter="cpython-311-x86_64-linux-gnu-x86_64",
    lock_sha256="1" * 64,
    files_sha256="2" * 64,
    registry_sha256="4" * 64,
    manifests=("3" * 64,),
    bases=("f" * 32,),
    points=(("vllm.general_plugins", "tiny", "tiny:register", "tiny", "tiny"),),
    plugins=("tiny 1.0",),
    import_lines=True,
    editable=("mine",),
    checked=("f" * 32,),
    failures=(
        Failure(
            base="f" * 32, group="vllm.general_plugins", name="tiny", what="it does not load", found="ImportError"
        ),
    ),
)


def _manifest(data: bytes) -> None:
    try:
        found = manifest.parse(data, _SETTINGS.manifest)
    except errors.ManifestError as error:
        json.dumps([str(error), error.to_dict()])
        return
    assert len({plugin.name for plugin in found.plugins}) == len(found.plugins)


def _lock(data: bytes) -> None:
    with contextlib.suppress(errors.LockInvalid, errors.HashMismatch):
        lock_reader.parse(data, _SETTINGS.lock)
    try:
        read = lock_reader.parse(data, _SETTINGS.lock, edited=True)
    except errors.LockInvalid as error:
        json.dumps([str(error), error.to_dict()])
        return
    for package in read.packages:
        for wheel in package.wheels:
            assert "/" not in wheel.filename
            assert "\0" not in wheel.filename
    written = lock_writer.render(read)
    again = lock_reader.parse(written, _SETTINGS.lock)
    assert lock_writer.render(again) == written
    # What is checked there is not checked again: these may only say that it does not fit.
    bundle.wanted(again)
    export.dot(again)
    with contextlib.suppress(PluginsError):
        compatibility.check_base(again, _HERE, _SETTINGS.lock)
    with contextlib.suppress(PluginsError):
        selection.select(again, _SETTINGS)
    with contextlib.suppress(PluginsError):
        export.requirements(again)


def _marker(data: bytes) -> None:
    root = overlay.directory(_SETTINGS.store, KEY)
    root.mkdir(parents=True, exist_ok=True)
    (root / overlay.MARKER).write_bytes(data)
    found = overlay.read_marker(_SETTINGS.store, KEY)
    if found is not None:
        assert Marker.from_json(found.to_json()) == found
        found.group("vllm.general_plugins")
        _SETTINGS.refuses(found, "f" * 32)
        assert found.is_up_to_date(None, "f" * 32) in (True, False)


def _files(data: bytes) -> None:
    root = overlay.directory(_SETTINGS.store, KEY)
    root.mkdir(parents=True, exist_ok=True)
    (root / integrity.FILES).write_bytes(data)
    with contextlib.suppress(errors.HashMismatch):
        integrity.listed(root, MARKER.replace(files_sha256=overlay.sha256(data)))


def _notes(data: bytes) -> None:
    """``registry.json`` and ``history.jsonl``: what can't be read says nothing."""
    notes = _SETTINGS.store / "notes"
    target = overlay.directory(notes, KEY)
    (target / overlay.SITE).mkdir(parents=True, exist_ok=True)
    (target / overlay.MARKER).write_text(MARKER.to_json())
    (target / "plugins.lock").touch()
    registry, _, lines = data.partition(b"\x00\x00")
    (notes / overlay.REGISTRY).write_bytes(registry)
    (notes / overlay.HISTORY).write_bytes(lines)
    overlay.registry(notes)
    (generation,) = generations.history(_SETTINGS.replace(store=notes), every=True)
    assert generation.key == KEY
    from vllm_plugins.cli import history as command

    command._date(generation.activated)


def _base(data: bytes) -> None:
    path = _SCRATCH / "base.json"
    path.write_bytes(data)
    try:
        found = base.read_snapshot(path)
    except errors.UsageError:
        return
    assert base.from_json(found.to_json()) == found
    repr(found).encode()
    found.tags()
    assert found.vllm is None or isinstance(found.vllm, str)
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as directory:
        for line in _resolution.constraints(found, Path(directory)).values():
            (pin,) = _resolution.read_pins(line, local=[_resolution._path(line.partition(" @ ")[2])])
            assert pin.url is not None
            _check_stub(Path(directory, pin.url.rpartition("/")[2].replace("%2B", "+").replace("%21", "!")))


def _check_stub(path: Path) -> None:
    """A stub asks for what an extra asks for, and for nothing else."""
    for line in metadata.inspect(path).requires:
        assert "extra" in line


def _pins(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(errors.NoResolution, errors.SourceError):
        for pin in _resolution.read_pins(text):
            Version(pin.version)
    list(_conflicts.parents(text, base.VLLM))


def _words(data: bytes) -> None:
    """The output of pip-compile and uv when they fail."""
    said = errors.CommandFailed("it failed", returncode=1, stderr=data.decode("utf-8", "replace"))
    for resolver, found_none in (("pip-compile", False), ("uv", True)):
        explained = _conflicts.resolver_failed(said, resolver, found_none=found_none)
        assert isinstance(explained, PluginsError)
        assert str(explained)


def _check_file(file: simple_api.File) -> None:
    assert "/" not in file.filename
    simple_api.version(file.filename, canonicalize_name("tiny"))
    assert file.url.startswith(("https://", "http://", "file:"))
    assert file.sha256 is None or len(file.sha256) == 64
    # What a lock, a report or a terminal gets of it.
    f"{file.filename}{file.url}{file.yanked_reason}{file.upload_time}{file.provenance}{file.requires_python}".encode()


def _page_json(data: bytes) -> None:
    with contextlib.suppress(ValueError, RecursionError):
        for file in simple_api.from_json(data, base="https://index.example/simple/tiny/", index=None):
            _check_file(file)


def _page_html(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        for file in simple_api.from_html(text, base="https://index.example/simple/tiny/", index=None):
            _check_file(file)


def _metadata(data: bytes) -> None:
    core, _, points = data.partition(b"\0\0")
    with contextlib.suppress(errors.InstallError):
        found = metadata.parse(core, points, where="tiny.whl")
        assert all(group.startswith("vllm.") for group, _, _ in found.entry_points)


def _installed(data: bytes) -> None:
    """METADATA, entry_points.txt and RECORD of what an installer has put into a stage."""
    core, _, rest = data.partition(b"\0\0")
    points, _, record = rest.partition(b"\0\0")
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as directory:
        info = Path(directory, "site", "tiny-1.0.dist-info")
        info.mkdir(parents=True)
        (info / "METADATA").write_bytes(core)
        (info / "entry_points.txt").write_bytes(points)
        (info / "RECORD").write_bytes(record)
        outside = Path(directory, "outside")
        outside.write_text("mine")
        with contextlib.suppress(errors.InstallError, errors.HashMismatch, errors.StoreError), _store.errors(info):
            _stage.check(info.parent, _stage.clean(info.parent), {canonicalize_name("tiny"): "1.0"})
        assert outside.read_text() == "mine"


def _wheel(data: bytes) -> None:
    path = _SCRATCH / "tiny-1.0-py3-none-any.whl"
    path.write_bytes(data)
    with contextlib.suppress(errors.InstallError):
        metadata.inspect(path)
    with contextlib.suppress(errors.BuildError):
        _reproducible.normalise(path)
        with zipfile.ZipFile(path) as archive:
            assert not [name for name in archive.namelist() if name.startswith("/") or ".." in name.split("/")]


_CORE = b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nProvides-Extra: fast\nRequires-Dist: helper>=1; extra == 'fast'\n"
_POINTS = b"[vllm.general_plugins]\ntiny = tiny:register\n\n[console_scripts]\ntiny = tiny:main\n"
_RECORD = (
    b"tiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/entry_points.txt,sha256=AAAA,10\n"
    b"../../bin/tiny,sha256=AAAA,3\ntiny-1.0.dist-info/RECORD,,\n"
)


def _foreign(data: bytes) -> None:
    """Text of others on its way to a terminal, and a URL of a configuration."""
    text = data.decode("utf-8", "surrogateescape")
    shown = printable(redact(text, ["hunter2secret"]))
    assert all(character.isprintable() or character in "\n\t\xa0\u2009\u202f\u3000" for character in shown)
    assert printable(shown) == shown
    assert "hunter2secret" not in shown
    url = f"https://host/{text}"
    found = (*tokens.in_path(url), *tokens.in_query(url), *tokens.in_path(text), *tokens.in_query(text))
    assert all(found)
    public_url(text)


def _zip(compression: int = zipfile.ZIP_STORED) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr("tiny/__init__.py", "x = 1\n")
        archive.writestr("tiny-1.0.dist-info/METADATA", _CORE)
        archive.writestr("tiny-1.0.dist-info/RECORD", "tiny/__init__.py,,\n")
    return out.getvalue()


_PIPS_WORDS = """\
ERROR: Cannot install tiny==1.0 and other because these package versions have conflicting dependencies.
  ERROR: ResolutionImpossible: [RequirementInformation(requirement=SpecifierRequirement('torch<2'), \
parent=LinkCandidate('https://index.example/tiny-1.0-py3-none-any.whl (from https://index.example/simple/tiny/)'))]
ERROR: Could not find a version that satisfies the requirement tiny>=2 (from versions: 1.0, 1.5)
WARNING: Retrying (Retry(total=0)) after connection broken by 'ReadTimeoutError()': /simple/tiny/
"""
_UVS_WORDS = "  × No solution found when resolving dependencies:\n  ╰─▶ Because tiny==1.0 depends on torch<2\n"
_PINS_TEXT = """\
helper==1.5
    # via tiny
tiny[fast]==1.0+local.1
    # via -r requirements.in
torch @ file:///base/torch-2.13.0%2Bcpu-py3-none-any.whl
    # via
    #   -c constraints.txt
    #   tiny
vllm @ file:///base/vllm-0-py3-none-any.whl
    # via tiny
"""
_PAGE = {
    "meta": {"api-version": "1.1"},
    "name": "tiny",
    "files": [
        {
            "filename": "tiny-1.0-py3-none-any.whl",
            "url": "../../files/tiny-1.0-py3-none-any.whl",
            "hashes": {"sha256": "a" * 64},
            "size": 1000,
            "requires-python": ">=3.9",
            "yanked": "broken",
            "upload-time": "2024-01-01T00:00:00Z",
            "provenance": "https://index.example/provenance",
        }
    ],
}
_HTML = f"""<!DOCTYPE html><html><head><base href="https://files.example/"><!-- x --></head><body>
<a href="tiny-1.0-py3-none-any.whl#sha256={"a" * 64}" data-requires-python="&gt;=3.9" data-yanked="broken">tiny</a>
<a href="/x/tiny-1.0.tar.gz">tiny</a></body></html>"""

TARGETS = {
    target.name: target
    for target in (
        Target(
            name="manifest",
            run=_manifest,
            seeds=((_ROOT / "examples" / "plugins.yaml").read_bytes(),),
            words=(
                "plugins:",
                "- name: ",
                "source: git",
                "url: ",
                "ref: ",
                "&a ",
                "*a",
                "!!",
                "<<: ",
                "policy:",
                "loads: ",
                "replaces: ",
                "min-age-days: ",
                "- {",
                "? ",
            ),
        ),
        Target(
            name="lock",
            run=_lock,
            seeds=((_ROOT / "plugins.lock.example").read_bytes(),),
            words=(
                "[[packages]]",
                "wheels = [",
                "{name = ",
                "0xffffffff",
                "1e999",
                "nan",
                "'''",
                "hashes.",
                "size",
                "accepted-manifests",
                "attestation-identities = [{",
                "loads = [",
            ),
        ),
        Target(name="marker", run=_marker, seeds=(MARKER.to_json().encode(),), words=("null", "1e999", "\\ud800")),
        Target(
            name="files", run=_files, seeds=(b'[["tiny/__init__.py","' + b"a" * 64 + b'",10]]',), words=("[[", '",')
        ),
        Target(
            name="store",
            run=_notes,
            seeds=(
                b'{"version": "1.0", "plugins": {}, "overlay": "' + KEY.encode() + b'"}\0\0'
                b'{"at": 1700000000, "overlay": "' + KEY.encode() + b'"}\n',
            ),
            words=('"at": ', "1e999", "-1e30", "NaN", KEY),
        ),
        Target(
            name="base", run=_base, seeds=(_HERE.to_json().encode(),), words=('"python": "3"', "\\n", "1!0", "null")
        ),
        Target(
            name="pins", run=_pins, seeds=(_PINS_TEXT.encode(),), words=(" @ file:///", "==", "===", ".*", ";", "[")
        ),
        Target(
            name="words",
            run=_words,
            seeds=(_PIPS_WORDS.encode(), _UVS_WORDS.encode()),
            words=("requirement=X('", "parent=None", "parent=L(", ".whl", ".tar.gz", "(from versions: ", "vllm"),
        ),
        Target(
            name="page-json",
            run=_page_json,
            seeds=(json.dumps(_PAGE).encode(),),
            words=('"files"', '"url": "http://[', "\\u0000", '"size": 1e9', "//", "data:"),
        ),
        Target(
            name="page-html",
            run=_page_html,
            seeds=(_HTML.encode(),),
            words=("<a href=", "<![", "<!--", "<!DOCTYPE [", "&#x110000;", "http://[", "#sha256=", "<base href="),
        ),
        Target(
            name="metadata",
            run=_metadata,
            seeds=(_CORE + b"\0\0" + _POINTS,),
            words=("Requires-Dist: ", "Name: ", "Version: ", "=?utf-8?q?", "[vllm.", "DEFAULT", "\n "),
        ),
        Target(
            name="installed",
            run=_installed,
            seeds=(_CORE + b"\0\0" + _POINTS + b"\0\0" + _RECORD,),
            words=("../../", "/etc/passwd", ",sha256=", "bin/", "../outside", '"', ".dist-info/"),
        ),
        Target(
            name="foreign",
            run=_foreign,
            seeds=(
                b"https://ada:hunter2secret@host/x?token=hunter2secret#y",
                "\x1b]0;x\x07 \u202e /t/aBcd1234EfGh5678/simple/".encode(),
            ),
            words=("@", "//", "://", "?sig=", "%40", "\x9b", "http://["),
        ),
        Target(name="wheel", run=_wheel, seeds=(_zip(), _zip(zipfile.ZIP_DEFLATED)), words=("PK\x01\x02",)),
        *ANSWERS,
    )
}
