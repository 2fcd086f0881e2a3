"""What a build lacks, from what compilers and Python say."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_plugins.packages._build import missing

ABSENT = "which is not on this machine"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("src/x.c:9:10: fatal error: portaudio.h: No such file or directory", f"its build requires the header portaudio.h, {ABSENT}"),
        ("x.cpp:1:10: fatal error: 'openssl/ssl.h' file not found", f"its build requires the header openssl/ssl.h, {ABSENT}"),
        ("/usr/bin/ld: cannot find -lportaudio: No such file or directory", f"its build requires the library portaudio, {ABSENT}"),
        ("error: command 'gcc' failed: No such file or directory", f"its build requires the program gcc, {ABSENT}"),
        ("error: command '/opt/bin/swig' failed: No such file or directory", f"its build requires the program swig, {ABSENT}"),
        ("x.cpp:1:10: fatal error: cuda_runtime.h: No such file or directory", f"its build requires the CUDA toolkit (cuda_runtime.h), {ABSENT}"),
        ("error: [Errno 2] No such file or directory: 'x86_64-linux-gnu-gcc'", f"its build requires the program x86_64-linux-gnu-gcc, {ABSENT}"),
        ("error: [Errno 2] No such file or directory: 'c++'", f"its build requires the program c++, {ABSENT}"),
        ("CMake Error at M.cmake:48 (message):\n  Could not find the compiler specified in the environment variable CC:\n  x86_64-linux-gnu-gcc.\nCall Stack", f"its build requires the program x86_64-linux-gnu-gcc, {ABSENT}"),
        ("  No CMAKE_CXX_COMPILER could be found.", f"its build requires the program c++, {ABSENT}"),
        ("  No CMAKE_CUDA_COMPILER could be found.", f"its build requires the CUDA toolkit (nvcc), {ABSENT}"),
        ("../meson.build:1:0: ERROR: Unknown compiler(s): [['cc'], ['gcc']]", f"its build requires the program cc, {ABSENT}"),
        ("error: can't find Rust compiler", f"its build requires the program cargo, {ABSENT}"),
        ("Caused by: Cargo metadata failed. Do you have cargo in your PATH?", f"its build requires the program cargo, {ABSENT}"),
        ("OSError: CUDA_HOME environment variable is not set. Please set it", f"its build requires the CUDA toolkit (CUDA_HOME), {ABSENT}"),
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_something_of_the_operating_system_is_named(line: str, what: str) -> None:
    found = missing.find(["building", line, "error"], "tiny", base_has=lambda _: False)
    assert found is not None
    assert found.what == what
    assert missing.is_of_system(found.what)
    assert "author" not in found.next_step


def test_what_a_build_says_long_before_its_end_counts_for_rust_alone() -> None:
    """A backend that lacks Rust tries to download it. A compiler that a build has only looked for does not count."""
    found = missing.find(
        ["httpx.ConnectError: Name or service not known"], "tiny", base_has=lambda _: False,
        output="Rust not found, installing into a temporary directory\n" + 99 * "frame\n",
    )  # fmt: skip
    assert found is not None
    assert found.what == f"its build requires the program cargo, {ABSENT}"
    assert missing.find(["error"], "tiny", base_has=lambda _: False, output="fatal error: a.h: No such file") is None
    assert (
        missing.find(["error: [Errno 2] No such file or directory: 'README.md'"], "tiny", base_has=lambda _: False)
        is None
    )


def test_a_module_is_of_the_base_or_of_an_index() -> None:
    lines = ["ModuleNotFoundError: No module named 'torch.utils'"]
    given = missing.find(lines, "tiny", base_has=lambda name: name == "torch")
    assert given is not None
    assert given.next_step == "write `build: {with-base: [torch]}` for plugin 'tiny' in plugins.yaml"
    fetched = missing.find(lines, "tiny", base_has=lambda _: False)
    assert fetched is not None
    assert fetched.next_step.startswith("write `build: {requires: [torch]}` for plugin 'tiny'")
    assert not missing.is_of_system(fetched.what)


def test_the_package_of_a_module_with_another_name_is_named() -> None:
    """A package of the name of the module would be somebody else's."""
    lines = ["ModuleNotFoundError: No module named 'pkg_resources'"]
    found = missing.find(lines, "tiny", base_has=lambda _: False)
    assert found is not None
    assert found.next_step == "write `build: {requires: ['setuptools<82']}` for plugin 'tiny' in plugins.yaml"


def test_another_failure_is_not_explained() -> None:
    assert missing.find(["error: expected ';'"], "tiny", base_has=lambda _: True) is None
    assert not missing.is_of_system(None)


@pytest.mark.parametrize(
    ("path", "away"),
    [
        ("/tmp/vllm-plugins-1-x/local/plug/../README.md", "../README.md"),
        ("/tmp/vllm-plugins-1-x/common.json", "../../common.json"),
        ("../words.txt", "../words.txt"),
        ("../../../words.txt", None),
        ("/tmp/vllm-plugins-1-x/local/plug/missing.txt", None),
        ("/tmp/elsewhere/common.json", None),
        ("/etc/none", None),
    ],
)
@pytest.mark.parametrize(
    "line", ["FileNotFoundError: [Errno 2] No such file or directory: {!r}", "Forced include not found: {}"]
)
def test_a_file_outside_of_the_project_is_named(line: str, path: str, away: str | None) -> None:
    project = Path("/tmp/vllm-plugins-1-x/local/plug")
    found = missing.find([line.format(path)], "tiny", base_has=lambda _: False, project=project)
    assert (found and found.what) == (away and f"its build reads {away}, and gets the project's directory alone")


@pytest.mark.parametrize("is_whole", [True, False], ids=["checkout", "copy of a directory"])
def test_a_file_that_a_repository_lacks_is_not_looked_for_next_to_it(tmp_path: Path, is_whole: bool) -> None:
    top = tmp_path / "vllm-plugins-1-x"
    (top / ".git" / "info").mkdir(parents=True)
    if not is_whole:
        (top / ".git" / "info" / "sparse-checkout").touch()
    line = "FileNotFoundError: [Errno 2] No such file or directory: '../VERSION'"
    found = missing.find([line], "tiny", base_has=lambda _: False, project=top / "python")
    assert found is not None
    assert found.what.startswith("its build reads ../VERSION, ")
    assert ("`source: git`" in found.next_step) != is_whole
