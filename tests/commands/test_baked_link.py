from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.kit.long import long
from tests.kit.sandbox import needs_root, read_only

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

START = ("-m", "tests.kit.loader", "general", "logits_processors")
MODULES = {"tiny.py": "def register():\n    print('the plugin ran')\n\n\nclass Bend:\n    pass\n"}
POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}, "vllm.logits_processors": {"bend": "tiny:Bend"}}
NAME = "vllm_plugins_overlay.pth"


def link(place: Place) -> Path:
    (directory,) = (place.root / "env" / "lib").glob("python*/site-packages")
    return directory / NAME


def test_bake_links_the_overlay_into_the_interpreter(own: Place) -> None:
    done = own.run("sync", "--bake", "--json")
    assert done.json["linked"]["path"] == str(link(own))
    assert f" path = '{own.site}'; " in link(own).read_text()
    assert link(own).read_text().endswith(" else path in sys.path or sys.path.append(path)\n")
    # The allowlist leaves our hook out: vLLM sees the plugins all the same.
    started = own.python(*START[:-1], env={"VLLM_PLUGINS": "tiny"})
    assert started.stdout == "the plugin ran\n{}\n"
    # And with the hook, each still runs once; in a spawned process too.
    started = own.python("-m", "tests.kit.loader", "platform", "general", "spawn", "general")
    assert started.stdout.count("the plugin ran\n") == 2
    assert own.run("status").stdout.splitlines()[-1] == (
        f"overlay {own.overlay.name[:12]} is linked into the interpreter: {link(own)}"
    )
    assert own.run("verify").stdout.splitlines()[-1] == (
        f"  {link(own)} links overlay {own.overlay.name[:12]} into the interpreter"
    )


def test_bake_and_unbake_say_what_they_did(own: Place) -> None:
    assert own.run("sync", "--bake").stdout.splitlines()[1:] == [
        f"the vLLM environment is linked to this overlay, by {link(own)}"
    ]
    assert own.run("sync", "--unbake").stdout.splitlines()[1:] == [
        "the vLLM environment is not linked to an overlay any more"
    ]


def test_a_linked_overlay_that_is_not_trusted_is_settled_for_nobody(own: Place) -> None:
    """What a process refuses, those that it starts afterwards refuse, too."""
    own.run("sync", "--bake")
    (own.site / "tiny.py").write_text("changed\n", encoding="utf-8")
    refused = "import vllm_plugins\ntry:\n    vllm_plugins.activate()\nexcept Exception as e:\n    print(e.what)\n"
    code = f"{refused}import subprocess, sys\nsubprocess.run([sys.executable, '-c', {refused!r}], check=True)\n"
    done = own.python("-u", "-c", code, env={"VLLM_PLUGIN_VERIFY": "1"})
    assert done.stdout == "the overlay is not as it was installed: 1 file differs\n" * 2


def test_a_linked_overlay_of_another_store_is_not_the_one_that_was_looked_at(own: Place) -> None:
    """The same lock, installed twice: what is verified in one store is not what would run from the other."""
    own.run("sync", "--bake")
    other = {"VLLM_PLUGIN_REGISTRY_DIR": str(own.root / "store2")}
    own.run("sync", env=other)
    (own.site / "tiny.py").write_text("def register():\n    print('another plugin ran')\n", encoding="utf-8")
    done = own.python(*START, env={**other, "VLLM_PLUGIN_VERIFY": "1"}, check=False, traceback=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        "LockStale: the overlay that is linked into the interpreter is in another store [lock-out-of-date]\n"
        f"  where: {own.lock}\n"
        f"  expected: overlay {own.overlay.name[:12]} in {own.root}/store2\n"
        f"  found: {own.site}\n"
        "  next: vllm-plugins sync --bake, or vllm-plugins sync --unbake\n"
    ) in done.stderr


def test_the_base_comes_first_and_keeps_its_fingerprint(own: Place) -> None:
    code = "import sys; from vllm_plugins.startup import overlay; print(overlay.fingerprint()); print(*sys.path, sep='\\n')"
    before = own.python("-c", code).stdout.splitlines()
    own.run("sync", "--bake")
    after = own.python("-c", code).stdout.splitlines()
    assert after[0] == before[0]
    assert after[1:] == [*before[1:], str(own.site)]


def test_a_link_to_another_overlay_than_the_locks_is_refused(own: Place, index: Index) -> None:
    own.run("sync", "--bake")
    old = own.overlay.name
    index.wheel("tiny", "2.0", entry_points=POINTS, modules=MODULES)
    own.run("lock", "--upgrade")
    done = own.python(*START, check=False, traceback=True)
    assert done.returncode == 1
    new = own.overlay.name
    assert done.stderr.endswith(
        "LockStale: the overlay that is linked into the interpreter is not the lock's [lock-out-of-date]\n"
        f"  where: {own.lock}\n"
        f"  expected: overlay {new[:12]}\n"
        f"  found: overlay {old[:12]}\n"
        "  next: vllm-plugins sync --bake, or vllm-plugins sync --unbake\n"
    )
    assert own.run("sync", "-q").stderr == (
        f"vllm-plugins: warning: {link(own)} links another overlay, {old[:12]}, into the interpreter: vLLM won't start\n"
        "  next: vllm-plugins sync --bake, or vllm-plugins sync --unbake\n"
    )
    own.run("prune", "--keep", "0")
    assert {item.name for item in own.overlays} == {old, new}
    own.run("sync", "--bake")
    assert '"bend"' in own.python(*START).stdout
    own.run("sync", "--unbake")
    assert not link(own).exists()
    assert '"bend"' in own.python(*START).stdout


def test_an_overlay_that_has_pth_files_is_linked_by_code(own: Place, index: Index) -> None:
    index.wheel("extra", "1.0", modules={"extra.pth": "import sys; sys.extra = 1\n", "extra.py": ""})
    own.pypi("tiny", "extra")
    own.run("lock")
    assert "each process of this interpreter runs the code of extra.pth" in own.run("sync", "--bake").stderr
    assert link(own).read_text().endswith(" else path in sys.path or site.addsitedir(path)\n")
    assert own.python("-c", "import sys; print(sys.extra, sys.path[-1])").stdout == f"1 {own.site}\n"
    assert own.run("status", "--json").json["linked"]["overlay"] == own.overlay.name


@needs_root
def test_an_interpreter_that_this_user_may_not_write(own: Place) -> None:
    own.run("sync")
    words, env = read_only(link(own).parent)
    done = own.python(*words, "-m", "vllm_plugins", "sync", "-q", "--bake", env=env, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "vllm-plugins: error: the link to the overlay can't be written into the interpreter's directory [store-unusable]\n"
        f"  where: {link(own)}\n"
        "  found: Read-only file system\n"
        "  next: run this as the user who owns the interpreter, or skip --bake: the hook works without the link\n"
    )
    assert not link(own).exists()


@needs_root
def test_a_baked_store_needs_no_home_no_capability_no_network_and_no_writable_disk(own: Place) -> None:
    """As in a production container; tests/container has a uid without a passwd entry, too."""
    own.run("sync")
    shutil.rmtree(own.home)
    words, env = read_only(own.root, homeless=True)
    production = {"VLLM_PLUGIN_FROZEN": "1", "VLLM_PLUGIN_VERIFY": "1"}
    done = own.python(*words, *START, env={**env, **production})
    assert done.stdout == 'the plugin ran\n{"logits_processors": ["bend"]}\n'
    assert "Verified " in done.stderr


@pytest.mark.parametrize("how", ["raises", *long("stale")])
def test_a_process_without_plugins_has_no_linked_ones(own: Place, index: Index, how: str) -> None:
    modules = {**MODULES, "bad.py": "import os\ndef register():\n    assert os.environ.get('GOOD')\n"}
    points = {**POINTS, "vllm.general_plugins": {"a-bad": "bad:register", "tiny": "tiny:register"}}
    index.wheel("tiny", "2.0", entry_points=points, modules=modules)
    own.run("lock", "--upgrade")
    own.run("sync", "--bake", "--load-check", "imports")
    if how == "stale":
        own.write("plugins: []\n")
    env = {"VLLM_PLUGIN_ON_ERROR": "continue", "GOOD": "" if how == "raises" else "1"}
    words = ("general", "logits_processors", "plain", "platform", "general", "logits_processors")
    done = own.python("-m", "tests.kit.loader", *words, env=env)
    assert done.stdout == ('{"logits_processors": [], "child": {"platform": "builtin", "logits_processors": []}}\n')
    assert done.stderr.count("going on without plugins") == 1


def test_previous_may_be_the_linked_overlay(own: Place) -> None:
    own.run("sync", "--bake")
    own.lock.write_text("this is no lock")
    done = own.python(*START, env={"VLLM_PLUGIN_ON_ERROR": "previous"})
    assert done.stdout == 'the plugin ran\n{"logits_processors": ["bend"]}\n'
    assert f"going on with the previous overlay, {own.overlay.name}" in done.stderr


def test_a_linked_overlay_that_works_is_previous_to_one_that_does_not_load(own: Place, index: Index) -> None:
    own.run("sync", "--bake")
    old = own.overlay.name
    index.wheel("tiny", "2.0", entry_points=POINTS, modules={"tiny.py": "import no_such\n"})
    own.run("lock", "--upgrade")
    # The load check loads the new one, though the old one is linked into the interpreter.
    assert own.run("sync", "--bake", check=False).returncode == 7
    done = own.python(*START, env={"VLLM_PLUGIN_ON_ERROR": "previous"})
    assert done.stdout == 'the plugin ran\n{"logits_processors": ["bend"]}\n'
    assert "can't be loaded" in done.stderr
    assert f"going on with the previous overlay, {old}" in done.stderr


def test_a_link_whose_store_was_moved_is_reported_as_one_to_another_store(own: Place, index: Index) -> None:
    index.wheel("extra", "1.0", modules={"extra.pth": "import sys; sys.extra = 1\n", "extra.py": ""})
    own.pypi("tiny", "extra")
    own.run("lock")
    own.run("sync", "--bake")
    moved = own.store.rename(own.root / "moved")
    done = own.python(*START, env={"VLLM_PLUGIN_REGISTRY_DIR": str(moved)}, check=False, traceback=True)
    assert (
        "LockStale: the overlay that is linked into the interpreter is in another store [lock-out-of-date]\n"
        in done.stderr
    )


@pytest.mark.parametrize("command", ["script", *long("module")])
@pytest.mark.parametrize("files", ["code", "path file", *long("in front")])
def test_what_somebody_puts_into_a_linked_overlay_does_not_run_in_what_verifies_it(
    own: Place, index: Index, command: str, files: str
) -> None:
    """Python imports ``sitecustomize`` in every process, ``packaging`` a module that most machines lack."""
    if files == "path file":
        index.wheel("extra", modules={"extra.pth": "import sys; sys.extra = 1\n", "extra.py": ""})
        own.pypi("tiny", "extra")
        own.run("lock")
    own.run("sync", "--bake")
    ran = own.root / "it-ran"
    code = f"import pathlib; pathlib.Path({str(ran)!r}).write_text(__file__ if '__file__' in dir() else 'pth')\n"
    added = {"code": ("sitecustomize.py", "usercustomize.py", "_manylinux.py"), "path file": ("other.pth",)}
    for name in added.get(files, ("in-front/json.py", "in-front/sitecustomize.py")):
        (own.site / name).parent.mkdir(exist_ok=True)
        (own.site / name).write_text(code, encoding="utf-8")
    if files == "in front":  # as it is linked where the lock has overrides
        front = own.site / "in-front"
        link(own).write_text(
            link(own).read_text().replace(str(own.site), str(front)).replace("append(", "insert(0, ")
        )
    words: tuple[str | Path, ...] = ("-P", "-m", "vllm_plugins")
    if command == "script":
        words = (own.root / "vllm-plugins",)
        words[0].write_text("from vllm_plugins.__main__ import main\nraise SystemExit(main())\n", encoding="utf-8")
    for name, status in (("verify", 4), ("status", 4), ("doctor", 1)):
        done = own.python(*words, name, check=False)
        assert (done.returncode, ran.exists()) == (status, False), done
    # A distribution's Python may have a ``sitecustomize`` of its own, which comes first.
    own.python("-c", "import json" + ", _manylinux" * (files == "code"))
    assert ran.exists()  # as it does in every other process: who can write to the store decides what vLLM runs


def test_a_link_that_lets_the_overlay_into_commands_is_refused_by_verify(own: Place) -> None:
    own.run("sync", "--bake")
    link(own).write_text(f"import sys; sys.path.append('{own.site}')\n", encoding="utf-8")
    refused = (
        "vllm-plugins: error: an overlay is on the path of this command, so its files could decide what the command says "
        f"about them [not-trusted]\n  where: {own.site}\n"
    )
    steps = "vllm-plugins sync --bake; or remove it: vllm-plugins sync --unbake"
    done = own.run("verify", check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"{own.using}{refused}  next: replace the link, which an earlier release has written: {steps}\n",
    )
    own.run("sync", "--bake")
    own.run("verify")
    own.run("sync", "--unbake")
    path = {"PYTHONPATH": str(own.site)}
    done = own.run("verify", check=False, env=path)
    assert (done.returncode, done.stderr) == (
        1,
        f"{own.using}{refused}  next: take {own.site} out of PYTHONPATH, then run vllm-plugins verify again\n",
    )
    own.run("verify")


def test_doctor_names_a_link_that_lets_the_overlay_into_commands(own: Place) -> None:
    own.run("sync", "--bake")
    text = link(own).read_text()
    start, end = text.index("'/dev/null'"), text.index("__import__")
    link(own).write_text(f"{text[:start].replace('_VLLM_PLUGINS_EXAMINES', 'x')}{text[end:]}", encoding="utf-8")
    (note,) = own.run("doctor", "--json", check=False).json["notes"]
    assert note == (
        f"{link(own)}: an earlier release has written the link, by which files of the overlay can run in this command, "
        "too; replace it with vllm-plugins sync --bake"
    )
    own.run("sync", "--bake")
    assert own.run("doctor", "--json", check=False).json["notes"] == []


def test_doctor_names_a_link_of_an_earlier_release(own: Place) -> None:
    own.run("sync", "--bake")
    secure = {"VLLM_PLUGIN_VERIFY": "1"}
    assert own.run("doctor", "--json", env=secure, check=False).json["findings"] == []
    link(own).write_text(f"import sys; sys.path.append('{own.site}')\n", encoding="utf-8")
    why = "an earlier release has written the link, which puts the overlay on the path without a guard"
    note = f"{link(own)}: {why}; before you set VLLM_PLUGIN_VERIFY=1, run vllm-plugins sync --bake"
    assert note in own.run("doctor", "--json", check=False).json["notes"]
    (found,) = own.run("doctor", "--json", env=secure, check=False).json["findings"]
    assert found["what"] == f"the linked overlay is not verified before vLLM imports it: {why}"
    own.run(*found["next_step"].split()[1:])
    assert own.run("doctor", "--json", env=secure, check=False).json["findings"] == []
