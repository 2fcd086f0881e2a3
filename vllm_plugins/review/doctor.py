"""Why is my plugin not there? Everything that can keep a locked plugin from a vLLM process, as findings.

Each finding says what is wrong, on what evidence, and has one command (or one change) that mends it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import PluginsError
from vllm_plugins.documents import compatibility, lock_reader
from vllm_plugins.startup import entry_points, overlay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.startup.overlay import Marker
    from vllm_plugins.startup.settings import Settings

__all__ = ["Finding", "examine"]

OURS = "vllm_plugins"
HOOKED = ("vllm.platform_plugins", "vllm.general_plugins")
ENDPOINTS = "vllm.endpoint_plugins"
FREE = "vllm.logits_processors"  # the group that VLLM_PLUGINS does not concern


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that is wrong: ``what``, the ``evidence``, and what mends it."""

    what: str
    evidence: str
    mend: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Patient:
    """What is examined. ``points`` are the base's entry points by group: name → distribution."""

    settings: Settings
    base: Base
    manifest: Manifest | None
    lock: Lock | None
    marker: Marker | None
    points: Mapping[str, Mapping[str, str]]
    environ: Mapping[str, str]


def examine(
    settings: Settings, base: Base, manifest: Manifest | None, environ: Mapping[str, str]
) -> tuple[Finding, ...]:
    """All findings, those first that keep every plugin away."""
    locked, marker, problems = _read(settings, base, manifest)
    patient = _Patient(
        settings=settings,
        base=base,
        manifest=manifest,
        lock=locked,
        marker=marker,
        points=_base_points(),
        environ=environ,
    )
    found = [*_interpreter(patient), *_allowlist(patient), *problems]
    if locked is not None:
        found += [*_entry_points(patient, locked), *_copies(locked)]
    if marker is not None:
        found += [*_shadowed(patient, marker), *_load_failures(patient, marker)]
    return (*found, *_store(patient))


def _read(
    settings: Settings, base: Base, manifest: Manifest | None
) -> tuple[Lock | None, Marker | None, list[Finding]]:
    """The lock and its overlay's marker, and what keeps them from being in step."""
    locked: Lock | None = None
    marker: Marker | None = None
    problems = []
    try:
        data = lock_reader.read_bytes(settings.lock)
        locked = lock_reader.parse(data, settings.lock)
        marker = overlay.read_marker(settings.store, overlay.key_of(data))
        compatibility.check_manifest(locked, manifest, settings.lock, marker)
        compatibility.check_base(locked, base, settings.lock)
        if marker is None:
            problems.append(
                Finding(
                    what="the lock is not installed",
                    evidence=f"there is no {overlay.directory(settings.store, overlay.key_of(data))}",
                    mend="vllm-plugins sync",
                )
            )
    except PluginsError as error:
        problems.append(_from_error(error))
    return locked, marker, problems


def _from_error(error: PluginsError) -> Finding:
    parts = (error.where, *error.details, error.expected and f"expected {error.expected}", error.found)
    return Finding(
        what=error.what, evidence="; ".join(filter(None, parts)), mend=error.next_step or "vllm-plugins status"
    )


def _base_points() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for distribution in importlib.metadata.distributions(path=list(overlay.base_paths())):
        for point in distribution.entry_points:
            if point.group.startswith("vllm."):
                found.setdefault(point.group, {})[point.name] = distribution.name
    return found


def _interpreter(patient: _Patient) -> Iterator[Finding]:
    if patient.base.vllm is None:
        other = _other_interpreter()
        yield Finding(
            what="the interpreter that runs this command has no vLLM",
            evidence=f"{sys.executable} can't import vllm" + (f"; {other} may" if other else ""),
            mend=f"{other or 'python'} -m pip install vllm-plugin-manager, with the interpreter that runs vLLM",
        )
    missing = [group for group in HOOKED if OURS not in patient.points.get(group, {})]
    if missing:
        yield Finding(
            what="vLLM will not find the hook",
            evidence=f"no distribution of {sys.prefix} has the entry point {OURS} in {' and '.join(missing)}",
            mend=f"{shlex.quote(sys.executable)} -m pip install --force-reinstall --no-deps vllm-plugin-manager",
        )
    if patient.settings.disabled:
        yield Finding(
            what="the hook is told to do nothing",
            evidence="VLLM_PLUGIN_DISABLE=1",
            mend="unset VLLM_PLUGIN_DISABLE",
        )


def _other_interpreter() -> str | None:
    """The interpreter that the ``vllm`` on the PATH begins with."""
    script = shutil.which("vllm")
    if script is None:
        return None
    with open(script, "rb") as file:
        line = file.readline(1000).decode("utf-8", "replace").strip()
    return line.removeprefix("#!").strip() if line.startswith("#!/") else None


def _allowlist(patient: _Patient) -> Iterator[Finding]:
    settings = patient.settings
    locked = _locked_points(patient)
    value = patient.environ.get("VLLM_PLUGINS")
    right = f"export VLLM_PLUGINS={_right_value(patient, locked)}"
    if settings.allowed is None:
        if names := sorted(locked.get(ENDPOINTS, ())):
            yield Finding(
                what=f"endpoint plugins load only when VLLM_PLUGINS names them: {', '.join(names)}",
                evidence="VLLM_PLUGINS is not set",
                mend=right,
            )
        return
    evidence = f"VLLM_PLUGINS={shlex.quote(value or '')}"
    if OURS not in settings.allowed:
        yield Finding(
            what=f"VLLM_PLUGINS leaves {OURS} out: vLLM never calls the hook", evidence=evidence, mend=right
        )
    everybody = {name for points in (*patient.points.values(), *locked.values()) for name in points} | {OURS}
    # Without a lock, nobody knows what its plugins are called.
    nobody = [name for name in settings.allowed if name and name not in everybody and patient.lock is not None]
    if nobody:
        spaces = " (vLLM splits at commas and strips nothing)" if any(name != name.strip() for name in nobody) else ""
        yield Finding(
            what=f"VLLM_PLUGINS names what no plugin is called: {', '.join(map(repr, nobody))}{spaces}",
            evidence=evidence,
            mend=right,
        )
    left_out = sorted(
        f"{name} ({plugin}, {group})"
        for group, points in locked.items()
        for name, plugin in points.items()
        if not settings.lets_through(group, name)
    )
    if left_out:
        only = {name for name in settings.allowed if name in locked.get(ENDPOINTS, {})}
        why = f'; naming {", ".join(sorted(only))}, an endpoint plugin, turned "all" off' if only else ""
        what = f"VLLM_PLUGINS leaves locked plugins out: {', '.join(left_out)}{why}"
        yield Finding(what=what, evidence=evidence, mend=right)


def _locked_points(patient: _Patient) -> dict[str, dict[str, str]]:
    """Entry points of the locked plugins by group: name → the plugin's name."""
    found: dict[str, dict[str, str]] = {}
    for plugin in patient.lock.plugins if patient.lock else ():
        for group, name, _ in plugin.entry_points:
            found.setdefault(group, {})[name] = plugin.name
    return found


def _right_value(patient: _Patient, locked: Mapping[str, Mapping[str, str]]) -> str:
    """Everybody: what the base has and loads by itself, what is locked, and ourselves."""
    base = {name for group, points in patient.points.items() if group not in (FREE, ENDPOINTS) for name in points}
    wanted = {name for group, points in locked.items() if group != FREE for name in points}
    kept = {name for name in patient.settings.allowed or () if name in patient.points.get(ENDPOINTS, {})}
    return ",".join([OURS, *sorted((base | wanted | kept) - {OURS})])


def _entry_points(patient: _Patient, locked: Lock) -> Iterator[Finding]:
    for plugin in locked.plugins:
        if not plugin.entry_points:
            yield Finding(
                what=f"plugin {plugin.name!r} has no vLLM entry point: vLLM has nothing to call",
                evidence=f"{plugin.package} {plugin.version} in {patient.settings.lock}",
                mend=f"add an entry point in one of vLLM's groups to the project of {plugin.name!r}, or remove it",
            )
        for group, name, _ in plugin.entry_points:
            owner = patient.points.get(group, {}).get(name)
            if owner is not None:
                yield Finding(
                    what=f"plugin {plugin.name!r} has an entry point whose name the base uses: {name} in {group}",
                    evidence=f"{owner} has {name} in {group} too; vLLM keeps one plugin a name",
                    mend=f"rename the entry point in the project of {plugin.name!r}, or uninstall {owner}",
                )


def _copies(locked: Lock) -> Iterator[Finding]:
    """Distributions of the lock that lie in the base too, egg-info and egg-link that were left behind included."""
    names = {package.name for package in locked.packages}
    for entry in overlay.base_paths():
        if not os.path.isdir(entry):
            continue
        for item in sorted(os.listdir(entry)):
            stem, _, kind = item.rpartition(".")
            name = canonicalize_name(stem.partition("-")[0])
            if kind in ("dist-info", "egg-info", "egg-link") and name in names:
                yield Finding(
                    what=f"another copy of {name} is in vLLM's environment, and is imported first",
                    evidence=os.path.join(entry, item),
                    mend=f"{shlex.quote(sys.executable)} -m pip uninstall {name}"
                    if kind == "dist-info"
                    else f"rm -r {shlex.quote(os.path.join(entry, item))}",
                )


def _shadowed(patient: _Patient, marker: Marker) -> Iterator[Finding]:
    site = overlay.directory(patient.settings.store, marker.key) / overlay.SITE
    for name in sorted(_top_level(site)):
        for entry in overlay.base_paths():
            there = [os.path.join(entry, name), os.path.join(entry, f"{name}.py")]
            if found := [path for path in there if os.path.isfile(path) or os.path.isfile(f"{path}/__init__.py")]:
                yield Finding(
                    what=f"vLLM's environment has a module {name}, which is imported instead of the overlay's",
                    evidence=found[0],
                    mend="uninstall there what brings it, or leave the plugin out of plugins.yaml",
                )
                break


def _top_level(site: Path) -> Iterable[str]:
    for item in site.iterdir() if site.is_dir() else ():
        if item.suffix == ".py":
            yield item.stem
        elif item.is_dir() and (item / "__init__.py").is_file():
            yield item.name


def _load_failures(patient: _Patient, marker: Marker) -> Iterator[Finding]:
    failing = [failure for failure in marker.failures if failure.base == patient.base.fingerprint]
    for failure in failing:
        yield _from_error(entry_points.error_of(marker, [failure]))


def _store(patient: _Patient) -> Iterator[Finding]:
    store = patient.settings.store
    if not store.exists():
        return
    status = store.stat()
    shown = f"{store} belongs to uid {status.st_uid} and has mode {stat.S_IMODE(status.st_mode):04o}"
    if status.st_uid not in (0, os.getuid()):
        yield Finding(
            what="the store belongs to somebody else, who decides what vLLM runs",
            evidence=f"{shown}; this is uid {os.getuid()}",
            mend=f"chown -R {os.getuid()} {shlex.quote(str(store))}",
        )
    if status.st_mode & stat.S_IWOTH:
        yield Finding(
            what="everybody may write to the store, and so decide what vLLM runs",
            evidence=shown,
            mend=f"chmod o-w {shlex.quote(str(store))}",
        )
    elif not os.access(store, os.W_OK) and patient.marker is None and not patient.settings.frozen:
        yield Finding(
            what="this user can't install into the store",
            evidence=f"{shown}; this is uid {os.getuid()}",
            mend="export VLLM_PLUGIN_REGISTRY_DIR=… to a directory that this user can write",
        )
