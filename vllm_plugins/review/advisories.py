"""Known vulnerabilities of locked distributions, found by pip-audit in a process of its own."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from packaging.utils import canonicalize_name

from vllm_plugins.core import foreign_json, process, scratch
from vllm_plugins.core.errors import CommandFailed, SourceError
from vllm_plugins.core.redact import redact
from vllm_plugins.documents.lock import Package

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from vllm_plugins.documents.lock import Lock

__all__ = ["SERVICES", "Advisory", "ask", "build_requirements", "find"]

SERVICES = ("pypi", "osv", "esms")
_TIMEOUT = 15  # seconds, of each request


@dataclass(frozen=True, kw_only=True, slots=True)
class Advisory:
    """A known vulnerability of a distribution. ``ids`` begins with the service's own identifier."""

    package: str
    version: str
    ids: tuple[str, ...]
    fixed_in: tuple[str, ...]


def find() -> Path | None:
    """The program pip-audit: next to this interpreter, else on the PATH. It need not be in vLLM's environment."""
    return process.find("pip-audit")


def build_requirements(lock: Lock, private: Collection[str]) -> dict[str, Package]:
    """What the wheels of a lock were built with, by its pins, without private packages."""
    return {
        item.pin: Package(name=item.name, version=item.version)
        for item in lock.build_requirements
        if item.name not in private and any(wheel.url is not None for wheel in item.wheels)
    }


def ask(
    packages: Iterable[Package], program: Path, *, service: str, cache: Path | None, patience: float
) -> tuple[tuple[Advisory, ...], dict[str, str]]:
    """The advisories of these packages, and why the service skipped others, by their names.

    ``program`` is pip-audit (:func:`find`). ``service`` is a name in :data:`SERVICES`, or the URL of a service with
    OSV's API. It receives the names and versions of these packages. ``patience`` is in seconds, for all of them.

    Raises:
        SourceError: the service can't be reached, its response can't be read, or takes too long.
    """
    found: list[Advisory] = []
    skipped: dict[str, str] = {}
    end = time.monotonic() + patience
    for part in _rounds(packages):
        known, without = _ask(part, program, service=service, cache=cache, patience=max(1, end - time.monotonic()))
        found += known
        skipped |= without
    return tuple(found), skipped


def _rounds(packages: Iterable[Package]) -> list[list[Package]]:
    """The packages in as few lists as possible, none with two versions of one package: pip-audit refuses those."""
    found: list[dict[str, Package]] = []
    for package in packages:
        free = next((item for item in found if package.name not in item), None)
        if free is None:
            found.append(free := {})
        free[package.name] = package
    return [list(item.values()) for item in found]


def _ask(
    asked: list[Package], program: Path, *, service: str, cache: Path | None, patience: float
) -> tuple[tuple[Advisory, ...], dict[str, str]]:
    pins = [f"{package.name}=={package.version}" for package in asked]
    named = ["--vulnerability-service", service] if service in SERVICES else ["-s", "osv", "--osv-url", service]
    with scratch.directory() as directory:
        requirements = directory / "requirements.txt"
        requirements.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
        words: list[str | Path] = [program, "-r", requirements, "--no-deps", "--disable-pip", *named]
        words += ["--format", "json", "--desc", "off", "--aliases", "on", "--progress-spinner", "off"]
        result = directory / "result.json"
        words += ["--output", result]  # anything may be printed to the output of a Python program
        words += ["--timeout", str(_TIMEOUT), "--cache-dir", cache / "advisories" if cache else directory / "cache"]
        try:
            # Its own timeout is for each read alone: a service that sends a byte now and then never lets it pass.
            env = {**os.environ, "NETRC": str(_netrc(directory, service))}
            done = process.run(words, cwd=directory, env=env, check=False, timeout=patience)
            return _parse(foreign_json.read(result.read_text(encoding="utf-8") if result.exists() else ""), asked)
        except CommandFailed as error:
            if error.returncode != process.NOT_STARTED:
                late = f"pip-audit did not end within {patience:.0f} seconds (VLLM_PLUGIN_TIMEOUT)"
                raise _unreadable(service, late) from error
            raise SourceError(
                "pip-audit can't be started", found=error.what, next_step="pip install 'vllm-plugin-manager[audit]'"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            output = done.stderr.strip().splitlines()
            if done.returncode < 0 or not (output or result.exists()):
                output.append(f"pip-audit ended with {process.status(done.returncode)}")
            found = output[-1].rpartition("Caused by ")[2] if output else str(error)
            raise _unreadable(service, found) from error


def _netrc(directory: Path, service: str) -> Path:
    """A netrc file that has the login of the service's host, if the user's has one, and no other.

    pip-audit looks into netrc for each host to which a service redirects it. The services with a name need no login.
    """
    from requests.utils import get_netrc_auth  # a lock is mostly audited without a login

    path = directory / "netrc"
    login = None if service in SERVICES else get_netrc_auth(service)
    text = ""
    if login is not None:
        host, user, password = map(_quoted, (urlsplit(service).hostname or "", *login))
        text = f"machine {host} login {user} password {password}\n"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _quoted(word: str) -> str:
    """A word of a netrc file that may contain any character."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unreadable(service: str, found: str) -> SourceError:
    return SourceError(
        "the advisory service can't be read",
        where=redact(service),
        found=found,
        next_step="try again, or choose another service: vllm-plugins audit --service osv",
    )


def _parse(document: Any, asked: Iterable[Package]) -> tuple[tuple[Advisory, ...], dict[str, str]]:
    found, skipped = [], {}
    for item in document["dependencies"]:
        if "skip_reason" in item:
            skipped[_line(item["name"])] = _line(item["skip_reason"])
        found += [
            Advisory(
                package=canonicalize_name(_line(item["name"])),
                version=_line(item["version"]),
                ids=(_line(known["id"]), *sorted(map(_line, set(known.get("aliases", ())) - {known["id"]}))),
                fixed_in=tuple(map(_line, known["fix_versions"])),
            )
            for known in item.get("vulns", ())
        ]
    named = {canonicalize_name(_line(item["name"])) for item in document["dependencies"]}
    skipped |= {package.name: "pip-audit has no result for it" for package in asked if package.name not in named}
    return tuple(found), skipped


def _line(value: object) -> str:
    """A value of a service in one line."""
    return " ".join(str(value)[:500].split())
