"""Export a lock for other programs: a hashed requirements file, a plain pylock.toml, a Graphviz graph.

This needs no installation and no index.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from vllm_plugins.core.errors import UsageError
from vllm_plugins.documents import versions
from vllm_plugins.startup.settings import WHEELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vllm_plugins.documents.lock import Lock, Package, Plugin, Wheel

__all__ = ["dot", "pylock", "requirements"]


def requirements(lock: Lock) -> str:
    """A requirements file for ``pip install --require-hashes --no-deps -r``, to be used next to the lock.

    Raises:
        UsageError: the lock has an editable package, which has no hash.
    """
    editable = [package.name for package in lock.packages if package.directory is not None]
    if editable:
        raise UsageError(
            "editable packages can't be in a hashed requirements file: they have no hash",
            details=editable,
            next_step="vllm-plugins export --format pylock, or set `editable: false` in plugins.yaml and lock again",
        )
    lines = ["# From plugins.lock. Next to it, run: pip install --require-hashes --no-deps -r THIS-FILE"]
    lines += [f"# For {target.kind}, with vLLM installed" for target in lock.targets]
    own = {plugin.package: plugin for plugin in lock.plugins if plugin.index is not None}
    for package in sorted(lock.packages, key=lambda package: package.name):
        marker = f" ; {package.marker}" if package.marker else ""
        lines += [_line(f"./{WHEELS}/{wheel.filename}{marker}", [wheel]) for wheel in package.local_wheels]
        remote = package.remote_wheels
        if remote and (plugin := own.get(package.name)) is not None:
            lines += _own(package, remote, marker, plugin)
        elif remote:
            lines.append(_line(f"{_exact(package, remote)}{marker}", remote))
    return "\n".join(lines) + "\n"


def _own(package: Package, wheels: Sequence[Wheel], marker: str, plugin: Plugin) -> Iterator[str]:
    """The lines of a package with an index of its own: no other index should be asked for it.

    Its one wheel is named by its URL. A requirement can't name one of several by URL, and an option for an index is
    one for all packages of the file.
    """
    note = f"# {package.name} is for the index {plugin.index!r} alone: {plugin.index_url}"
    if len(wheels) == 1:
        yield note
        yield _line(f"{package.name} @ {wheels[0].url}{marker}", wheels)
    else:
        yield f"{note} (pip asks all its indexes; the hashes refuse other files)"
        yield _line(f"{_exact(package, wheels)}{marker}", wheels)


def _exact(package: Package, wheels: Sequence[Wheel]) -> str:
    """A requirement for the version of these wheels alone: ``==1.0`` would match ``1.0+cu129``, too."""
    written = {str(versions.wheel_name(wheel.filename)[1]) for wheel in wheels}
    return f"{package.name}==={written.pop()}" if len(written) == 1 else f"{package.name}=={package.version}"


def _line(what: str, wheels: Sequence[Wheel]) -> str:
    return " \\\n    ".join([what, *(f"--hash=sha256:{digest}" for digest in sorted({w.sha256 for w in wheels}))])


def pylock(data: bytes, *, lock_directory: Path, directory: Path) -> str:
    """The lock as a PEP 751 file without our own tables, for use in ``directory``. ``data`` is a valid lock."""
    document: dict[str, Any] = tomllib.loads(data.decode("utf-8-sig"))
    document.pop("tool", None)
    for package in document["packages"]:
        package.pop("tool", None)
        for item in (*package.get("wheels", ()), package.get("directory", {})):
            if "path" in item:
                place = os.path.join(lock_directory, os.path.expanduser(item["path"]))
                item["path"] = Path(os.path.relpath(place, directory)).as_posix()
    return tomlkit.dumps(document)


def dot(lock: Lock) -> str:
    """The graph of plugins, packages, and the base packages that they use, in Graphviz's language."""
    lines = ["digraph plugins {", "  rankdir=LR;", '  node [shape=box, fontname="sans-serif"];']
    lines += [f"  {line};" for line in _nodes(lock)]
    lines += [f"  {line};" for line in _edges(lock)]
    return "\n".join([*lines, "}"]) + "\n"


def _nodes(lock: Lock) -> Iterator[str]:
    for plugin in sorted(lock.plugins, key=lambda plugin: plugin.name):
        yield f"{_quoted(f'plugin {plugin.name}')} [label={_quoted(_about(plugin))}, style=bold]"
    for package in sorted(lock.packages, key=lambda package: package.name):
        yield f"{_quoted(package.name)} [label={_quoted(_called(package))}]"
    for name, version in sorted({(use.name, use.version) for target in lock.targets for use in target.base}):
        yield f"{_quoted(f'base {name}')} [label={_quoted(f'{name} {version}')}, style=dashed]"


def _about(plugin: Plugin) -> str:
    groups = sorted({group.removeprefix("vllm.") for group, _, _ in plugin.entry_points})
    return "\n".join([plugin.name, plugin.source + (f" @{plugin.commit[:7]}" if plugin.commit else ""), *groups])


def _called(package: Package) -> str:
    return f"{package.name} {package.version}" + (" editable" if package.directory is not None else "")


def _edges(lock: Lock) -> Iterator[str]:
    for plugin in sorted(lock.plugins, key=lambda plugin: plugin.name):
        names = plugin.dependencies if plugin.provided else (plugin.package,)  # its use of the base is below
        yield from (f"{_quoted(f'plugin {plugin.name}')} -> {_quoted(name)}" for name in names)
    for package in sorted(lock.packages, key=lambda package: package.name):
        for name in package.dependencies:
            yield f"{_quoted(package.name)} -> {_quoted(name)}"
    used = {
        (who, use.name, asked) for target in lock.targets for use in target.base for who, asked in use.required_by
    }
    for who, name, asked in sorted(used):
        yield f"{_quoted(who)} -> {_quoted(f'base {name}')} [label={_quoted(asked)}, style=dashed]"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
