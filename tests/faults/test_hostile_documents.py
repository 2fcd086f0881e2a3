"""Documents that were made to do harm: only ``PluginsError`` comes of them, in bounded time and memory.

Hypothesis makes them out of whole documents (:mod:`tests.faults.targets`); what it or atheris has found once stands below,
and so do the known ways to keep a parser busy.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .campaign import LONG
from .targets import TARGETS, Target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

EXAMPLES = 20_000 if LONG else 40  # test_fuzz.py tries thousands on the same readers

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=10,
)
NASTY = (
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",  # a surrogate, as no UTF-8 has it
    b"\\ud800",
    b"9" * 5000,
    b"0x" + b"f" * 9999,
    b"1e999999",
    b"[" * 3000,
    b"{" * 3000,
    b"- " * 3000,
    b"a." * 3000,
    b"<![",
    "\u2028\x85\x0b".encode(),
    "ａｄｍｉｎ٣".encode(),
    b"../" * 20,
    b"\r\n\r\n",
)


@st.composite
def mutants(draw: st.DrawFn, target: Target) -> bytes:
    """A whole document in which a few spans are taken out, doubled, or are something else."""
    data = bytearray(draw(st.sampled_from(target.seeds)))
    words = st.sampled_from([word.encode() for word in target.words] or [b""])
    pieces = (
        st.binary(max_size=8) | words | st.sampled_from(NASTY) | JSON.map(lambda value: json.dumps(value).encode())
    )
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        piece = bytes(data[start:end]) * 2 if draw(st.booleans()) and draw(st.booleans()) else draw(pieces)
        data[start:end] = piece
    return bytes(data)


@st.composite
def trees(draw: st.DrawFn, target: Target) -> bytes:
    """A whole JSON document in which some values are others."""
    document = json.loads(target.seeds[0].partition(b"\0\0")[0])
    for _ in range(draw(st.integers(1, 3))):
        here = document
        while isinstance(here, (dict, list)) and here:
            keys = sorted(here) if isinstance(here, dict) else range(len(here))
            key = draw(st.sampled_from(keys))
            if not isinstance(here[key], (dict, list)) or draw(st.booleans()):
                here[key] = draw(JSON)
                break
            here = here[key]
    return json.dumps(document).encode()


def is_json(data: bytes) -> bool:
    try:
        json.loads(data.partition(b"\0\0")[0])
    except ValueError:
        return False
    return True


IS_JSON = [name for name, target in TARGETS.items() if is_json(target.seeds[0])]
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not LONG,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("name", TARGETS)
def test_a_document_with_other_bytes_in_it(name: str) -> None:
    @BOUNDED
    @given(mutants(TARGETS[name]))
    def check(data: bytes) -> None:
        TARGETS[name].run(data)

    check()


@pytest.mark.parametrize("name", IS_JSON)
def test_a_document_with_other_values_in_it(name: str) -> None:
    @BOUNDED
    @given(trees(TARGETS[name]))
    def check(data: bytes) -> None:
        TARGETS[name].run(data)

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_each_byte_of_a_document_changed_in_turn(name: str) -> None:
    """The lowest bit and the highest; and each beginning of it, as a broken copy has it."""
    for seed in TARGETS[name].seeds:
        step = max(1, len(seed) // (4000 if LONG else 50))
        for place in range(0, len(seed), step):
            for bit in (0x01, 0x80):
                data = bytearray(seed)
                data[place] ^= bit
                TARGETS[name].run(bytes(data))
            TARGETS[name].run(seed[:place])


HEAD = b'lock-version = "1.0"\ncreated-by = "x"\n'
FOUND_ONCE = {
    "a version specifier that is none": ("lock", b'specifier = ""', b'specifier = "=>1"'),
    "a Python that is none": ("lock", b'python = "3.11"', b'python = "three"'),
    "a number of ten thousand digits": ("lock", b"size = 1420", b"size = 0x" + b"f" * 9999),
    "a newer format of ten thousand digits": ("lock", b"format = 1", b"format = 0x" + b"f" * 9999),
    "a wheel that leads out of its directory": (
        "lock",
        b'"vllm_entropy_decoder-0.1.0-py3-none-any.whl"',
        b'"vllm_entropy_decoder-0.1.0-py3-none-any/../../evil.whl"',
    ),
    "a wheel for a Python that is no number": ("lock", b"0.1.0-py3-none-any.whl", b"0.1.0-py3x-none-any.whl"),
    "a Python of one digit": ("base", b'"python": "3.11', b'"python": "3", "x": "'),
    "two requirements in one": ("base", b'extra == \\"audio\\"', b'extra == \\"audio\\"\\nRequires-Dist: evil'),
    "a wheel that is called none": ("pins", b"-py3-none-any.whl", b"-py3-none-any"),
    "a pin that is none": ("pins", b"helper==1.5", b"helper>=1.5"),
    "a section that HTML does not know": ("page-html", b"<!--", b"<![x"),
    "a time that no clock knows": ("store", b"1700000000", b"17001e9990"),
    "a time that no number holds": ("store", b"1700000000", b"9" * 400),
    "metadata without a name": ("installed", b"Name: tiny", b"Nome: tiny"),
    "a path with a NUL": ("installed", b"../../bin/tiny", b"bin/ti\0ny"),
    "a specifier that Python does not convert": ("lock", b'specifier = ""', b'specifier = ">' + b"9" * 5001 + b'"'),
    "a version that Python does not convert": ("lock", b'version = "2.0.0"', b'version = "2.' + b"9" * 5001 + b'"'),
    "a Requires-Python that Python does not convert": ("page-json", b">=3.9", b">=3." + b"9" * 5001),
    "a file of a version that Python does not convert": (
        "page-json",
        b"tiny-1.0-py3",
        b"tiny-" + b"9" * 5001 + b"-py3",
    ),
    "a requirement that Python does not convert": ("metadata", b"helper>=1", b"helper>=" + b"9" * 5001),
    "a distribution that Python does not convert": (
        "base",
        b'"version": "2.13.0+cpu"',
        b'"version": "' + b"9" * 5001 + b'"',
    ),
    "a reason that has a lone surrogate": ("page-json", b"broken", b"\\ud800"),
    "a platform that has a lone surrogate": ("base", b'"platform": "', b'"platform": "\\udc00'),
    "a file whose name has a lone surrogate": ("compiled", b"tiny.py", b"\xed\xa0\x80tiny.py"),
}


@pytest.mark.parametrize("what", FOUND_ONCE)
def test_what_was_found_once(what: str) -> None:
    name, old, new = FOUND_ONCE[what]
    (seed, *_) = TARGETS[name].seeds
    assert old in seed
    TARGETS[name].run(seed.replace(old, new))


BOMBS = {
    "aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8)),
    "merged aliases": "a: &a {x: 1}\n" + "".join(f"b{n}: &b{n} {{<<: [*a, *a], y{n}: *a}}\n" for n in range(4000)),
    "an alias of itself": "plugins: &a [*a]\n",
    "depth": "plugins: " + "[" * 100_000,
    "depth of blocks": "".join(f"{' ' * n}- \n" for n in range(1000)),
    "a long number": "plugins: " + "9" * 900_000,
    "a number in base sixty": "plugins: " + ":".join(["59"] * 100_000),
    "many plugins": "plugins:\n" + "  - {name: a}\n" * 60_000,
    "a long key": "? " + "a" * 1_000_000 + "\n: 1\n",
    "NULs": "plugins: \0\0\0",
    "many documents": "---\n" * 200_000,
    "tags": "plugins: !!python/object/apply:os.system ['true']\n",
    "a hundred megabytes": "#" * 100_000_000,
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_manifest_that_keeps_a_parser_busy(place: Place, what: str) -> None:
    place.manifest.write_text(BOMBS[what], encoding="utf-8")
    done = within(place, 60, 400, "lock", "-q")
    assert done.returncode == 2
    assert done.stderr.startswith("vllm-plugins: error: plugins.yaml is invalid: ")
    assert len(done.stderr) < 20_000


LOCKS = {
    "depth": (b"x = " + b"[" * 100_000, "the lock is not valid TOML"),
    "dotted keys": (b"a" + b".a" * 20_000 + b" = 1", "the lock is not valid TOML"),
    "many tables": (b"".join(b"[[packages]]\nname = 'a'\n" for _ in range(20_000)), "the lock is not valid"),
    "a number": (b"x = " + b"9" * 1_000_000, "the lock is not valid TOML"),
    "a number in base sixteen": (HEAD + b"packages = []\nx = 0x" + b"f" * 1_000_000, "the lock is not valid"),
    "NULs": (b"\0" * 1000, "the lock is not valid TOML"),
    "no UTF-8": (b"\xff" * 1000, "the lock is not valid TOML"),
    "a hundred megabytes": (b"#" * 100_000_000, "the lock is too large"),
}  # fmt: skip


@pytest.mark.parametrize("what", LOCKS)
def test_a_lock_that_keeps_a_parser_busy(place: Place, what: str) -> None:
    data, message = LOCKS[what]
    place.lock.write_bytes(data)
    place.pypi("tiny")
    done = within(place, 60, 600, "sync", "-q", "--frozen")
    assert done.returncode == 3
    assert done.stderr.splitlines()[:2] == [
        f"vllm-plugins: error: {message} [lock-invalid]",
        f"  where: {place.lock}",
    ]
    assert len(done.stderr) < 20_000


def within(place: Place, seconds: int, mebibytes: int, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, in so much time of the processor and so much memory."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))

    return subprocess.run(
        [sys.executable, "-m", "vllm_plugins", *words],
        env=place.environment,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("garbage", [b"", b"[" * 100_000, b"null", b"\xff"])
def test_a_store_of_garbage_is_made_anew(place: Place, index: Index, garbage: bytes) -> None:
    """Marker, registry, history and the list of files, all of them."""
    index.wheel("tiny")
    place.pypi("tiny")
    place.run("lock")
    place.run("sync", "--no-load-check")
    registry, notes = (
        place.registry,
        [place.overlay / name for name in ("overlay.json", "files.json", "registry.json")],
    )
    for path in (*notes, place.store / "registry.json", place.store / "history.jsonl"):
        path.write_bytes(garbage)
    for words in (["status"], ["history"], ["doctor"], ["prune", "--keep", "1"]):
        assert place.run(*words, check=False).returncode in (0, 1, 3)
    assert place.run("verify", check=False).returncode == 1
    assert place.run("sync", "--no-load-check", "--json").json["installed"] is True
    assert place.registry == registry
    place.run("verify")


def test_a_base_snapshot_of_garbage(place: Place, tmp_path: Path) -> None:
    place.pypi("tiny")
    for number, garbage in enumerate(
        [b"", b"[" * 100_000, b"\xff", b'{"format": 1, "python": "' + b"9" * 100_000 + b'"}']
    ):
        path = tmp_path / f"{number}.json"
        path.write_bytes(garbage)
        done = replace(place).run("lock", "-q", "--base", path, check=False)
        assert done.returncode == 2
        assert done.stderr.splitlines()[:2] == [
            "vllm-plugins: error: the base snapshot can't be read [usage]",
            f"  where: {path}",
        ]
        assert len(done.stderr) < 2000


def test_a_link_in_place_of_the_manifest_shows_no_secret_of_this_machine(bare_place: Place) -> None:
    """A change under review may have any link. What a check prints is in a log that its author can read."""
    secret = bare_place.home / "token"
    for text in ("ghp_0123456789", "machine host login ada password hunter2", "https://ada:hunter2@host", "31337"):
        secret.write_text(f"{text}\n", encoding="utf-8")
        bare_place.manifest.unlink(missing_ok=True)
        bare_place.manifest.symlink_to(secret)
        for words in ("lock --check", "status", "doctor", "outlook --to vllm==1"):
            done = bare_place.run(*words.split(), check=False)
            assert done.returncode != 0
            assert "expected a mapping with the key plugins, found a single value" in done.stdout + done.stderr
            assert not {*text.split(), text} & {*(done.stdout + done.stderr).replace("'", " ").split()}
