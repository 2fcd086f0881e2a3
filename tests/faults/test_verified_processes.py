"""An attacker who changes a file of the overlay while a server runs: with ``VLLM_PLUGIN_VERIFY=1`` no process runs it."""

from __future__ import annotations

import importlib.util
import io
import os
import textwrap
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit.raw_wheel import RawWheel

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Completed, Place

VERIFY = {"VLLM_PLUGIN_VERIFY": "1"}
FROZEN = {**VERIFY, "VLLM_PLUGIN_FROZEN": "1"}
POINTS = {
    "vllm.platform_plugins": {"odd": "odd:platform"},
    "vllm.general_plugins": {"tiny": "tiny:register"},
    "vllm.logits_processors": {"bend": "late:Bend"},
}
LATE = "class Bend:\n    pass\n"
MODULES = {
    "tiny.py": "def register():\n    print('the plugin ran', flush=True)\n",
    "odd.py": "def platform():\n    return None\n",
    "late.py": LATE,
    "package/__init__.py": "",
    "package/late.py": LATE,
}
CHANGED = "print('changed code ran', flush=True)\n"
ATTACKS = ("source", "bytecode", "another source", "link")

# A process that imports a module of the overlay, as unpickling a class of it does, and then loads plugins.
SCRIPT = """\
import importlib, multiprocessing, os, pathlib, pickle, subprocess, sys
from tests.kit import loader

def child(words, modules):
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            print(f"{name}: {type(error).__name__}", flush=True)
    loader._done.clear()
    try:
        return loader.run(words)
    except Exception as error:
        print(f"refused: {error}", flush=True)

if __name__ == "__main__":
    how, site, modules = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3].split()
    loader.run(["platform", "general"])
    exec(os.environ["ATTACK"])
    if how == "PYTHONPATH":
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        code = f"import attack; attack.child(['platform', 'general'], {modules!r})"
        subprocess.run([sys.executable, "-c", code], env=environ, check=False)
    else:
        with multiprocessing.get_context(how).Pool(1) as pool:
            pool.apply(child, (["platform", "general"], modules))
"""


@pytest.fixture
def own(own: Place, index: Index) -> Place:
    """A plugin of several modules, in the store; the interpreter may be written."""
    index.wheel("tiny", "2.0", entry_points=POINTS, modules=MODULES)
    own.run("lock", "--upgrade")
    own.run("sync", "--no-load-check")
    (own.root / "attack.py").write_text(SCRIPT, encoding="utf-8")
    return own


def bytecode(path: Path) -> Path:
    (found,) = (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")
    return found


def attack(path: Path, how: str) -> str:
    """Code that makes a module of the overlay another one."""
    code = f"path = pathlib.Path({str(path)!r}); cached = pathlib.Path({str(bytecode(path))!r})\n"
    if how == "source":
        return code + f"cached.unlink(); path.write_text({CHANGED!r})\n"
    if how == "bytecode":
        return code + textwrap.dedent(f"""\
            import marshal
            cached.write_bytes(cached.read_bytes()[:16] + marshal.dumps(compile({CHANGED!r}, "late.py", "exec")))
        """)
    if how == "another source":  # a package is found before a module of the same name
        return code + (
            f"package = path.with_suffix(''); package.mkdir(); (package / '__init__.py').write_text({CHANGED!r})\n"
        )
    return code + (
        f"cached.unlink(); path.unlink(); other = pathlib.Path('elsewhere.py'); "
        f"other.write_text({CHANGED!r}); path.symlink_to(other.resolve())\n"
    )


def start(own: Place, how: str, code: str, *modules: str, env: dict[str, str] = FROZEN) -> Completed:
    words = ("attack.py", how, own.site, " ".join(modules))
    env = {**env, "ATTACK": code, "PYTHONPATH": f"{own.environment['PYTHONPATH']}:{own.root}"}
    return own.python(*words, env=env, check=False, traceback=True)


@pytest.mark.parametrize("how", ["spawn", "forkserver", "fork", "PYTHONPATH"])
def test_a_child_process_runs_nothing_that_was_changed_since(own: Place, how: str) -> None:
    for kind in ATTACKS if how == "spawn" else ATTACKS[:2]:
        own.run("sync", "--reinstall", "--no-load-check")
        done = start(own, how, attack(own.site / "late.py", kind), "late")
        assert "the plugin ran\n" in done.stdout, done.stderr
        assert "changed code ran" not in done.stdout, kind
        assert "late: " in done.stdout, kind
        if how != "fork":
            assert "refused: " in done.stdout, kind


@pytest.mark.parametrize("how", ["spawn", "fork"])
def test_a_module_of_a_package_is_compared_too(own: Place, how: str) -> None:
    done = start(own, how, attack(own.site / "package" / "late.py", "source"), "package", "package.late")
    assert "changed code ran" not in done.stdout
    assert "package.late: " in done.stdout


@pytest.mark.parametrize("how", ["spawn", "fork"])
def test_an_extension_module_and_an_archive_are_compared_too(own: Place, index: Index, how: str) -> None:
    # One of Python's own, which needs no compiler. Some interpreters have most of them built in.
    found = [importlib.util.find_spec(name) for name in ("_heapq", "_queue", "_lsprof", "_decimal")]
    name, library = next(
        (spec.name, Path(spec.origin))
        for spec in found
        if spec is not None and spec.origin is not None and spec.origin != "built-in"
    )
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("zipped.py", "print('zipped ran', flush=True)\n")
    wheel = RawWheel(name="tiny", version="3.0").add("package/__init__.py")
    wheel.add(f"package/{library.name}", library.read_bytes()).add("package/lib.zip", zipped.getvalue())
    wheel.add("user.py", "import package, sys\nsys.path.append(package.__path__[0] + '/lib.zip')\nimport zipped\n")
    wheel.add(f"{wheel.info}/entry_points.txt", "[vllm.general_plugins]\ntiny = tiny:register\n")
    wheel.add("tiny.py", MODULES["tiny.py"]).write(index.directory / "tiny")
    own.run("lock", "--upgrade")
    own.run("sync", "--no-load-check")
    assert "zipped ran" in start(own, how, "", f"package.{name}", "user").stdout
    package = own.site / "package"
    code = f"import zipfile; package = pathlib.Path({str(package)!r}); library = package / {library.name!r}\n"
    code += "data = library.read_bytes(); library.unlink(); library.write_bytes(data + b'changed')\n"
    code += f"with zipfile.ZipFile(package / 'lib.zip', 'w') as archive: archive.writestr('zipped.py', {CHANGED!r})\n"
    done = start(own, how, code, f"package.{name}", "user")
    assert "changed code ran" not in done.stdout
    refused = "HashMismatch" if how == "fork" else "ModuleNotFoundError"
    assert f"package.{name}: {refused}\nuser: {refused}\n" in done.stdout


@pytest.mark.parametrize("how", ["spawn", "forkserver", "fork", "PYTHONPATH"])
def test_a_child_process_of_an_overlay_as_it_was_has_all_of_it(own: Place, how: str) -> None:
    done = start(own, how, "", *(() if how == "PYTHONPATH" else ("late", "package.late")))
    assert (done.returncode, done.stdout) == (0, "the plugin ran\n" * 2), done.stderr


@pytest.mark.parametrize("kind", ATTACKS)
def test_a_linked_overlay_is_compared_before_anything_of_it_is_imported(own: Place, kind: str) -> None:
    own.run("sync", "--bake", "--no-load-check")
    whole = own.python("-m", "tests.kit.loader", "platform", "general", "logits_processors", env=FROZEN)
    assert whole.stdout == 'the plugin ran\n{"platform": "builtin", "logits_processors": ["bend"]}\n'
    (own.root / "change.py").write_text("import pathlib\n" + attack(own.site / "tiny.py", kind), encoding="utf-8")
    own.python("change.py")
    for words in (["general"], ["platform", "general"], ["logits_processors", "general"]):
        done = own.python("-m", "tests.kit.loader", *words, env=FROZEN, check=False, traceback=True)
        assert done.returncode == 1
        assert "changed code ran" not in done.stdout
        assert "HashMismatch: the overlay is not as it was installed" in done.stderr


def test_a_linked_overlay_is_compared_where_the_hook_is_left_out(own: Place) -> None:
    own.run("sync", "--bake", "--no-load-check")
    env = {**FROZEN, "VLLM_PLUGINS": "tiny"}
    assert own.python("-m", "tests.kit.loader", "general", env=env).stdout == "the plugin ran\n{}\n"
    bytecode(own.site / "tiny.py").unlink()
    (own.site / "tiny.py").write_text(CHANGED, encoding="utf-8")
    code = "import sys, types; sys.modules['vllm'] = types.ModuleType('vllm')\n"
    code += "from tests.kit import loader; loader.run(['general'])\n"
    done = own.python("-c", code, env=env, check=False, traceback=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "HashMismatch: the overlay is not as it was installed" in done.stderr
    # The commands that repair it go on.
    assert own.run("verify", env=env, check=False).returncode == 4
    own.run("sync", "--reinstall", "--installer", "pip", "--no-load-check", env=VERIFY)
    assert own.python("-m", "tests.kit.loader", "general", env=env).stdout == "the plugin ran\n{}\n"


def test_a_linked_overlay_is_guarded_where_the_variable_is_not_valid(own: Place) -> None:
    own.run("sync", "--bake", "--no-load-check")
    bytecode(own.site / "tiny.py").unlink()
    (own.site / "tiny.py").write_text(CHANGED, encoding="utf-8")
    env = {"VLLM_PLUGIN_VERIFY": "true"}
    done = own.python("-m", "tests.kit.loader", "general", env=env, check=False, traceback=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "UsageError: the environment variable VLLM_PLUGIN_VERIFY has an invalid value" in done.stderr


def test_a_disabled_hook_leaves_a_linked_overlay_to_vllm(own: Place) -> None:
    own.run("sync", "--bake", "--no-load-check")
    done = own.python("-m", "tests.kit.loader", "platform", "general", env={**FROZEN, "VLLM_PLUGIN_DISABLE": "1"})
    assert done.stdout == 'the plugin ran\n{"platform": "builtin"}\n'
    assert done.stderr == ""


@pytest.mark.parametrize("policy", ["continue", "previous"])
def test_a_changed_overlay_runs_in_no_process_that_goes_on(own: Place, policy: str) -> None:
    own.run("sync", "--bake", "--no-load-check")
    bytecode(own.site / "tiny.py").unlink()
    (own.site / "tiny.py").write_text(CHANGED, encoding="utf-8")
    words = ("platform", "general", "logits_processors", "plain", "platform", "general", "logits_processors")
    env = {**FROZEN, "VLLM_PLUGIN_ON_ERROR": policy}
    done = own.python("-m", "tests.kit.loader", *words, env=env, check=False, traceback=True)
    assert "changed code ran" not in done.stdout
    if policy == "continue":
        assert done.stdout.count('"logits_processors": []') == 2


def test_bytecode_of_another_directory_is_not_used(own: Place) -> None:
    """PYTHONPYCACHEPREFIX may be a directory that others write."""
    cached = own.root / "cached"
    env = {"PYTHONPYCACHEPREFIX": str(cached), "PYTHONDONTWRITEBYTECODE": ""}
    plain = f"import sys; sys.path.append({str(own.site)!r}); import tiny"
    own.python("-c", plain, env=env)
    (path,) = cached.rglob("tiny.*.pyc")
    code = f"import marshal, pathlib; path = pathlib.Path({str(path)!r})\n"
    code += f"path.write_bytes(path.read_bytes()[:16] + marshal.dumps(compile({CHANGED!r}, 'tiny.py', 'exec')))\n"
    own.python("-c", code)
    assert own.python("-c", plain, env=env).stdout == "changed code ran\n"
    done = own.python("-m", "tests.kit.loader", "general", env={**env, **FROZEN})
    assert done.stdout == "the plugin ran\n{}\n"
    assert os.listdir(own.site / "__pycache__") != []
