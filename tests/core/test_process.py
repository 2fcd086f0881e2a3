from __future__ import annotations

import os
import signal
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core import process
from vllm_plugins.core.errors import CommandFailed

if TYPE_CHECKING:
    from pathlib import Path


def run(code: str, **words: object) -> process.Completed:
    return process.run([sys.executable, "-c", code], **words)  # type: ignore[arg-type]


def test_both_streams_and_the_exit_status_are_returned() -> None:
    done = run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", check=False)
    assert done == process.Completed(returncode=3, stdout="out\n", stderr="err\n")


def test_large_output_on_both_streams_does_not_block() -> None:
    done = run("import sys\nfor _ in range(2000):\n    print('o' * 100); print('e' * 100, file=sys.stderr)")
    assert (len(done.stdout), len(done.stderr)) == (202000, 202000)


def test_the_hook_does_nothing_in_a_program_and_what_processes_pass_on_stays_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("_VLLM_PLUGINS_OVERLAY", "x")
    code = "import os; print(sorted(name for name in os.environ if 'VLLM_PLUGIN' in name), os.environ['VLLM_PLUGIN_DISABLE'])"
    assert run(code).stdout == "['VLLM_PLUGIN_DISABLE'] 1\n"


def test_a_failure_shows_the_command_and_the_last_lines_without_secrets() -> None:
    code = "import sys; print('at https://ada:hidden@host with swordfish', file=sys.stderr); sys.exit(2)  # swordfish"
    with pytest.raises(CommandFailed) as caught:
        run(code, secrets=["swordfish"])
    assert caught.value.returncode == 2
    assert caught.value.details[1:] == ("at https://****@host with ****",)
    assert "swordfish" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_each_line_is_passed_on_redacted() -> None:
    lines: list[str] = []
    run("import sys; print('https://t0ken@host\\nlast', file=sys.stderr)", on_line=lines.append)
    assert lines == ["https://****@host", "last"]


def test_bytes_that_are_not_text_are_escaped() -> None:
    assert run("import os; os.write(1, bytes([65, 255]))").stdout == "A\\xff"


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "child"
    code = (
        "import subprocess, time\n"
        f"child = subprocess.Popen(['sleep', '600'])\nopen({str(note)!r}, 'w').write(str(child.pid))\ntime.sleep(600)"
    )
    with pytest.raises(CommandFailed, match="SIGTERM") as caught:
        run(code, timeout=3)
    assert "it did not end within 3 seconds (VLLM_PLUGIN_TIMEOUT), and was ended" in caught.value.details
    assert not _is_running(int(note.read_text()))


def test_a_missing_program_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="can't be started: No such file or directory") as caught:
        process.run([tmp_path / "missing"])
    assert caught.value.returncode == process.NOT_STARTED


@pytest.mark.parametrize(
    ("code", "text"), [(0, "exit status 0"), (-signal.SIGTERM, "signal SIGTERM"), (-200, "signal 200")]
)
def test_an_exit_status_has_a_text(code: int, text: str) -> None:
    assert process.status(code) == text


def test_the_program_next_to_the_interpreter_comes_before_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in ("scripts", "path"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "tool").touch(mode=0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda _name, _scheme="": str(tmp_path / "scripts"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert process.find("tool") == tmp_path / "scripts" / "tool"
    (tmp_path / "scripts" / "tool").unlink()
    assert process.find("tool") == tmp_path / "path" / "tool"
    assert process.find("missing") is None


def test_a_program_of_pip_install_user_is_found_where_the_path_does_not_name_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sysconfig.get_config_vars(), "userbase", str(tmp_path))
    monkeypatch.setattr("site.ENABLE_USER_SITE", True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tool-of-a-user").touch(mode=0o755)
    assert process.find("tool-of-a-user") == tmp_path / "bin" / "tool-of-a-user"
    monkeypatch.setattr("site.ENABLE_USER_SITE", False)  # of an interpreter that imports nothing from there
    assert process.find("tool-of-a-user") is None


def test_a_program_has_a_home_directory_where_nothing_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container, a user may have a number and no name. pip 26.3 stops without a home directory."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    code = "import os; print(os.environ.get('HOME'))"
    assert run(code).stdout == "/\n"
    assert run(code, env={"HOME": "/home/ada"}).stdout == "/home/ada\n"


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_program_sees_no_search_path_that_depends_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("PATH", ":.:/usr/bin:bin:/bin:"),
        ("LD_LIBRARY_PATH", ":lib:"),
        ("PYTHONPATH", str(tmp_path)),
    ):
        monkeypatch.setenv(name, value)
    code = "import os; print(os.getcwd(), *map(os.environ.get, ('PATH', 'LD_LIBRARY_PATH', 'PYTHONPATH')))"
    assert run(code).stdout == "/ /usr/bin:/bin None None\n"
    assert run(code, pythonpath="/opt/ours").stdout == "/ /usr/bin:/bin None /opt/ours\n"
    monkeypatch.setenv("PATH", ".")
    assert run(code).stdout == "/ None None None\n"


def test_a_program_is_not_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somewhere").mkdir()
    for directory in (tmp_path, tmp_path / "somewhere"):
        (directory / "prog-of-nobody").write_text("#!/bin/sh\n")
        (directory / "prog-of-nobody").chmod(0o755)
    monkeypatch.setenv("PATH", ":.:somewhere")
    assert process.find("prog-of-nobody") is None
    monkeypatch.setenv("PATH", f":.:somewhere:{tmp_path}/somewhere")
    assert process.find("prog-of-nobody") == tmp_path / "somewhere/prog-of-nobody"


def test_a_module_of_ours_runs_where_this_process_does_and_imports_nothing_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemExit('hostile')")
    (tmp_path / "vllm_plugins.py").write_text("raise SystemExit('hostile')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:")
    done = process.run_module("vllm_plugins", ["status", "--json", "--config", "there.yaml"])
    assert "hostile" not in done.stderr
    assert str(tmp_path / "there.yaml") in done.stdout


def test_output_of_any_length_is_read_and_a_bounded_part_is_kept() -> None:
    """A hundred megabytes of lines, a line of ten, and then the reason."""
    code = (
        "import sys\nfor _ in range(50000): sys.stderr.write('x' * 1999 + chr(10))\n"
        "sys.stderr.write('y' * 10_000_000 + chr(10))\nsys.stderr.write('the reason' + chr(10)); sys.exit(3)"
    )
    seen: list[str] = []
    done = run(code, check=False, on_line=seen.append)
    lines = done.stderr.splitlines()
    assert lines[-1] == seen[-1] == "the reason"
    assert len(done.stderr) < 8 << 20
    assert max(map(len, lines)) < 100_000
    assert any(
        line.startswith("... ") and line.endswith(" more lines, which are too many to show ...") for line in seen
    )


def test_a_line_that_is_too_long_shows_no_part_of_a_secret() -> None:
    code = (
        "import sys; sys.stderr.write('x' * 65520 + 'https://ada:hunter2secret@host/x' + chr(10) + 'end' + chr(10))"
    )
    done = run(code)
    assert "hunt" not in done.stderr
    assert done.stderr.endswith("end\n")


def test_a_result_goes_through_a_descriptor_of_its_own() -> None:
    code = "import os; print('loud'); os.write(int(os.environ['MINE']), b'result')"
    done = run(code, result_variable="MINE")
    assert (done.stdout, done.result) == ("loud\n", "result")


def test_the_entry_of_this_package_is_the_one_that_our_own_programs_get(monkeypatch: pytest.MonkeyPatch) -> None:
    home = os.path.dirname(os.path.dirname(os.path.dirname(process.__file__)))
    monkeypatch.setenv("PYTHONPATH", f"/elsewhere:{home}:")
    assert process.own_pythonpath() == home
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert process.own_pythonpath() is None


def test_a_program_does_not_inherit_what_changes_its_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONINSPECT", "1")
    assert process.run([*process.PYTHON, "-c", "raise SystemExit(0)"]).returncode == 0
