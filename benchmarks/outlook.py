"""How often ``vllm-plugins outlook`` is right: what it says of plugins, compared with what really loads.

``python -m benchmarks.outlook 0.20.2=/path/to/python … -- vllm-gguf-plugin==0.0.5,gguf …`` takes a Python with vLLM
for each release, and plugins of the index, by default those in ``outlook-plugins.txt``. Each plugin is installed
without its requirements into a directory of its own, never into an environment. A plugin that needs another missing
distribution is not judged.
"""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name
from packaging.version import Version

from benchmarks import outlook_later
from vllm_plugins.documents import base
from vllm_plugins.packages import metadata, pip_config, releases, wheel_files
from vllm_plugins.packages.index import Index
from vllm_plugins.packages.releases import Pin
from vllm_plugins.review import outlook

if TYPE_CHECKING:
    from vllm_plugins.review._outlook.release import Release

PLUGINS = Path(__file__).with_name("outlook-plugins.txt")
ROOT = Path(tempfile.gettempdir()) / "outlook-plugins"
# Runs in an environment: looks up names, and loads plugins as vLLM does. Each job has a fork of its own, because
# importing vLLM takes longest.
JOBS = (
    """
import importlib, importlib.metadata, json, os, sys

def look_up(pairs):
    return [state(module, chain) for module, chain in pairs]

def state(module, chain):
    asked = ".".join([module, *chain])
    try:
        here = importlib.import_module(module)
        for name in chain:
            try:
                here = getattr(here, name)
            except AttributeError:
                here = importlib.import_module(f"{here.__name__}.{name}")
    except ModuleNotFoundError as error:
        return "missing" if f"{asked}.".startswith(f"{error.name}.") else "unknown"
    except BaseException as error:
        return "unknown"
    return "present"

def load(target):
    sys.path.append(target)
    failures = []
    for distribution in importlib.metadata.distributions(path=[target]):
        for point in distribution.entry_points:
            if point.group.startswith("vllm."):
                try:
                    loaded = point.load()
                    if point.group in ("vllm.general_plugins", "vllm.platform_plugins"):
                        result = loaded()
                        if point.group == "vllm.platform_plugins" and isinstance(result, str):
                            module, _, name = result.rpartition(".")
                            getattr(importlib.import_module(module), name)
                except BaseException as error:
                    text = f"{type(error).__name__}: {error}"
                    name = getattr(error, "name", None) or ""
                    is_name = isinstance(error, (ImportError, AttributeError))
                    failures.append([is_name and (name.partition(".")[0] == "vllm" or "vllm." in text), text[:160]])
    return failures

"""
    + outlook_later.FORKED
    + """
jobs = json.load(sys.stdin)
import vllm
print("RESULT" + json.dumps([forked(look_up, jobs["names"]), [forked(load, target) for target in jobs["targets"]]]))
"""
)


Name = tuple[str, tuple[str, ...]]


@dataclass(kw_only=True)
class Tally:
    """Counts of a two-by-two table, and examples of the wrong ones."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    quiet: int = 0
    not_judged: int = 0

    def add(self, *, said: bool, true: bool, what: str) -> None:
        if said and true:
            self.right += 1
        elif said:
            self.wrong.append(what)
        elif true:
            self.missed.append(what)
        else:
            self.quiet += 1

    def report(self, name: str) -> None:
        said, true = self.right + len(self.wrong), self.right + len(self.missed)
        precision = f"{self.right / said:.3f}" if said else "-"
        recall = f"{self.right / true:.3f}" if true else "-"
        print(
            f"{name}: precision {precision} ({self.right} of {said}), recall {recall} ({self.right} of {true}), "
            f"{self.quiet} rightly quiet, {self.not_judged} not judged"
        )
        for kind, lines in (("wrong", self.wrong), ("missed", self.missed)):
            for line in lines[:40]:
                print(f"  {kind}: {line}")


def truth(python: str, names: list[Name], targets: list[Path]) -> tuple[list[str], list[Any]]:
    """The state of each name in an environment, and what each plugin fails with; kept for the next call."""
    jobs = json.dumps({"names": names, "targets": list(map(str, targets))})
    kept = ROOT / "truth" / hashlib.sha256(f"{python} {JOBS} {jobs}".encode()).hexdigest()
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(_truth(python, jobs))
    states, failures = json.loads(kept.read_text())
    return states, failures


def _truth(python: str, jobs: str) -> str:
    done = subprocess.run(
        [python, "-c", JOBS],
        input=jobs,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "VLLM_PLUGIN_DISABLE": "1", "HOME": tempfile.gettempdir()},
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    return line.removeprefix("RESULT")


def fetch(named: str) -> tuple[Path, Path] | None:
    """The wheel of a plugin, and the directory where it is installed; ``plugin,helper`` installs a helper, too."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    requirement, *helpers = named.split(",")
    wheels, target = ROOT / "wheels" / requirement, ROOT / "installed" / requirement
    words = [
        *pip,
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--ignore-requires-python",
        "--dest",
        str(wheels),
        requirement,
    ]
    if not wheels.exists():
        subprocess.run(words, check=False, stderr=subprocess.DEVNULL)
    if not (wheel := next(wheels.glob("*.whl"), None)):
        print("has no wheel for this machine:", requirement)
        return None
    if not target.exists():
        words = [*pip, "install", "--no-deps", "--no-compile", "--target", str(target), str(wheel), *helpers]
        if subprocess.run(words, check=False, stderr=subprocess.DEVNULL).returncode:
            print("can't be installed:", requirement)
            return None
    return wheel, target


def main() -> None:
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    pythons = dict(word.split("=", 1) for word in words[:at])
    named = words[at + 1 :] or PLUGINS.read_text(encoding="utf-8").split()
    plugins = {name: found for name in named if (found := fetch(name)) is not None}
    files = {name: wheel_files.of_path(wheel) for name, (wheel, _) in plugins.items()}
    asked = sorted({name for found in files.values() for name in imported(found)})
    names, loads = Tally(), Tally()
    later = outlook_later.Counts(verdicts=Tally(), findings=Tally(), imports=Tally())
    table: dict[str, list[str]] = {name: [] for name in plugins}
    with Index(pip_config.read()) as index:
        for version, python in pythons.items():
            vllm = release(version, index)
            states, failures = truth(python, asked, [target for _, target in plugins.values()])
            compare_names(version, vllm, dict(zip(asked, states, strict=True)), names)
            expected = {name: examine(files[name], wheel, vllm) for name, (wheel, _) in plugins.items()}
            for plugin, failed in zip(plugins, failures, strict=True):
                table[plugin].append(compare_load(f"{version} {plugin}", expected[plugin], failed, loads))
            compare_later(version, python, plugins, files, expected, later)
    print("| plugin |", " | ".join(pythons), "|")
    for plugin, row in table.items():
        print(f"| {plugin} |", " | ".join(row), "|")
    names.report("names")
    loads.report("loads")
    later.report()


def examine(files: wheel_files.WheelFiles, wheel: Path, vllm: Release) -> outlook.Outlook:
    points = [(group, value) for group, _, value in metadata.inspect(wheel).entry_points]
    return outlook.examine(files, points, vllm)


def compare_later(
    version: str,
    python: str,
    plugins: dict[str, tuple[Path, Path]],
    files: dict[str, wheel_files.WheelFiles],
    expected: dict[str, outlook.Outlook],
    counts: outlook_later.Counts,
) -> None:
    read = {name: outlook_later.read(files[name]) for name in plugins}
    jobs = [
        (target, read[name][0], outlook_later.statements(read[name][1], expected[name]))
        for name, (_, target) in plugins.items()
    ]
    for name, found in zip(plugins, outlook_later.truth(python, jobs, ROOT), strict=True):
        counts.add(f"{version} {name}", expected[name], found, read[name][1])


def release(version: str, index: Index) -> Release:
    pin = Pin(name=canonicalize_name("vllm"), version=str(Version(version)), extras=frozenset(), url=None)
    found = releases.read(pin, index, tags=base.of_here(()).tags(), caches=None)
    assert found.fitting is not None
    return outlook.release_of(wheel_files.of_index(found.fitting, index))


def compare_names(version: str, vllm: Release, states: dict[Name, str], names: Tally) -> None:
    for (module, chain), state in states.items():
        verdict = vllm.look_up(module, chain)
        if "unknown" in (state, verdict.state):
            names.not_judged += 1
        else:
            what = f"{version} {'.'.join((module, *chain))}"
            names.add(said=verdict.state == "missing", true=state == "missing", what=what)


def compare_load(what: str, found: outlook.Outlook, failures: list[Any] | None, loads: Tally) -> str:
    if failures is None or (failures and not any(is_name for is_name, _ in failures)):
        loads.not_judged += 1
        return f"{found.verdict}, ? ({failures[0][1][:50] if failures else 'crashed'})"
    needed = (item for item in found.findings if item.when == "load" and item.kind != "unknown")
    reason = next((item.name for item in needed), "nothing")
    text = next((text for is_name, text in failures if is_name), "it loads")
    said = found.verdict == "breaks"
    loads.add(said=said, true=bool(failures), what=f"{what}: {found.verdict} because of {reason}; in truth {text}")
    return f"{found.verdict}, {'fails' if failures else 'loads'}"


def imported(files: wheel_files.WheelFiles) -> set[Name]:
    """Each name of vLLM that a plugin imports anywhere, read by other means than the product's."""
    found: set[Name] = set()
    for source in files.sources.values():
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level:
                module = node.module or ""
                found |= {(module, (alias.name,) if alias.name != "*" else ()) for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {(alias.name, ()) for alias in node.names}
    return {(module, chain) for module, chain in found if module.partition(".")[0] == "vllm"}


if __name__ == "__main__":
    main()
