"""Known vulnerabilities of locked distributions, as pip-audit finds them, in a process of its own."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_plugins.core import process
from vllm_plugins.core.errors import CommandFailed, SourceError
from vllm_plugins.core.redact import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm_plugins.documents.lock import Package

__all__ = ["SERVICES", "Advisory", "ask", "find"]

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
    """pip-audit, which need not be in vLLM's environment: beside this interpreter, else on the PATH."""
    return process.find("pip-audit")


def ask(
    packages: Iterable[Package], program: Path, *, service: str, cache: Path | None
) -> tuple[tuple[Advisory, ...], list[str]]:
    """The advisories of these packages, and what the service could not say (one line each).

    ``program`` is pip-audit (:func:`find`). ``service`` is a name of :data:`SERVICES`, or the address of a service
    that speaks OSV's language. It is told the names and versions of these packages.

    Raises:
        SourceError: it can't be reached, or its answer is not understood.
    """
    pins = [f"{package.name}=={package.version}" for package in packages]
    if not pins:
        return (), []
    named = ["--vulnerability-service", service] if service in SERVICES else ["-s", "osv", "--osv-url", service]
    with tempfile.TemporaryDirectory(prefix="vllm-plugins-") as directory:
        requirements = Path(directory, "requirements.txt")
        requirements.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
        words: list[str | Path] = [program, "-r", requirements, "--no-deps", "--disable-pip", *named]
        words += ["--format", "json", "--desc", "off", "--aliases", "on", "--progress-spinner", "off"]
        words += ["--timeout", str(_TIMEOUT), "--cache-dir", cache / "advisories" if cache else Path(directory, "c")]
        try:
            done = process.run(words, check=False)
            return _answer(json.loads(done.stdout))
        except (CommandFailed, ValueError, KeyError, TypeError, AttributeError) as error:
            said = [] if isinstance(error, CommandFailed) else done.stderr.strip().splitlines()
            raise SourceError(
                "the advisory service can't be asked",
                where=redact(service),
                found=said[-1].rpartition("Caused by ")[2] if said else str(error),
                next_step="try again, or name another service with --service",
            ) from error


def _answer(document: Any) -> tuple[tuple[Advisory, ...], list[str]]:
    found, silent = [], []
    for item in document["dependencies"]:
        if "skip_reason" in item:
            silent.append(f"{item['name']}: {item['skip_reason']}")
        found += [
            Advisory(
                package=str(item["name"]),
                version=str(item["version"]),
                ids=(str(known["id"]), *sorted(map(str, set(known.get("aliases", ())) - {known["id"]}))),
                fixed_in=tuple(map(str, known["fix_versions"])),
            )
            for known in item.get("vulns", ())
        ]
    return tuple(found), silent
