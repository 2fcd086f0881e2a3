"""The JSON Schema of plugins.yaml, with which an editor completes keys and marks mistakes while you type.

The schema accepts every manifest that the reader accepts. It can't express all that the reader refuses: names that
appear twice, and the finer rules of versions and URLs. Its patterns mean the same in JavaScript and in Python.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

from vllm_plugins.core import atomic
from vllm_plugins.core.errors import StoreError
from vllm_plugins.documents import git_url_forms
from vllm_plugins.documents._lock import values
from vllm_plugins.documents._manifest import file_rules, rules, targets
from vllm_plugins.documents.policy import CHECKS, ORIGIN, Level

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FILE", "LINE", "text", "write"]

# Where `init` puts the schema, relative to plugins.yaml, and the comment by which editors find it there.
FILE = ".vllm/plugins.schema.json"
LINE = f"# yaml-language-server: $schema={FILE}\n"

Schema = dict[str, Any]

# Draft 7 is the newest that yaml-language-server and most editors know.
_DRAFT = "http://json-schema.org/draft-07/schema#"
# Every text: no invisible character, no space at its ends, and no "-" in front.
_TEXT = r"^[^\x00-\x20\x7f-\xa0-]([^\x00-\x1f\x7f-\xa0]*[^\x00-\x20\x7f-\xa0])?$"
# No ASCII character that is neither letter, digit nor "_". Python knows which others are in identifiers.
_WORD = r"[^\x00-\x40\x5b-\x5e\x60\x7b-\xa0][^\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\xa0]*"
_DOTTED = rf"{_WORD}(\.{_WORD})*"
_LOAD = rf"^{_DOTTED}(:{_DOTTED})?$"
_VERSION = r"^[ ,]*((===|==|~=|!=|<=|>=|<|>) *[^ ,]* *(,[ ,]*|$))*$"
_URL = (
    r"^(?!.*#)(?!git\+)((https?|ssh)://[^/]+/.|file:///.|\$\{[A-Za-z_][A-Za-z0-9_]*\}"
    r"|(?![A-Za-z][A-Za-z0-9+.-]*://)([^/@:\s-][^/@:\s]*@)?([^/@:\s\[-][^/@:\s\[]*|\[[^\]/@\s]+\]):[^:])"
)
_INDEX_URL = r"^https?://[^/?#@\s]+(/[^?#\s]*)?$"
_REQUIREMENT = r"^[A-Za-z0-9][A-Za-z0-9._-]*\s*([\[(<>=!~;].*)?$"
_DATE = r"^[0-9]{4}(-?[0-9]{2}-?[0-9]{2}|-?W[0-9]{2}(-?[0-9])?)$"


def text() -> str:
    """The schema as a file."""
    return json.dumps(_schema(), indent=2) + "\n"


def write(path: Path) -> None:
    """Write the schema to a file, in place of an older one.

    Raises:
        StoreError: it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, text().encode())
    except OSError as error:
        raise StoreError(
            "the schema of the manifest can't be written, and neither is the manifest",
            where=str(path),
            found=error.strerror or str(error),
            next_step=f"free some space, or make {path.parent} a directory that this user can write to",
        ) from error


def _schema() -> Schema:
    return {
        "$schema": _DRAFT,
        "title": "plugins.yaml",
        "description": "Plugins for vLLM, as vllm-plugins lock reads them.",
        **_object(
            {
                "plugins": _list(
                    {"oneOf": [_plugin(kind) for kind in _SOURCES]}, "The plugins; [] for none.", unique=False
                ),
                "indexes": {
                    "type": "object",
                    "description": "Package indexes of single plugins, by name.",
                    "propertyNames": {"pattern": _whole(rules.NAME.pattern)},
                    "additionalProperties": _object(
                        {"url": _text("The URL of its simple API, without a login.", _INDEX_URL)}, required=("url",)
                    ),
                },
                "overrides": _list(
                    _object(_OVERRIDE, required=tuple(_OVERRIDE)),
                    "Packages of the vLLM environment that are replaced on purpose.",
                    unique=False,
                ),
                "targets": {
                    **_list(
                        _object(_TARGET, required=("name", "base")), "The environments of the lock.", unique=False
                    ),
                    "minItems": 1,
                    "maxItems": targets.MOST,
                },
                "policy": _object(
                    _policy(),
                    "What the findings of an audit mean, and how old a locked release must be.",
                ),
            },
            required=("plugins",),
        ),
    }


def _text(description: str, pattern: str | None = None, *, no: str | None = None) -> Schema:
    """A string of the manifest, with a pattern that it must match, or with one that it must not match (``no``)."""
    both: Schema = {"allOf": [{"pattern": _TEXT}, {"pattern": pattern}]} if pattern else {"pattern": _TEXT}
    if no is not None:
        both["not"] = {"pattern": no}
    return {"type": "string", "maxLength": rules.MAX_LENGTH, **both, "description": description}


def _flag(description: str, *, default: bool) -> Schema:
    return {"type": "boolean", "default": default, "description": description}


def _list(items: Schema, description: str, *, unique: bool = True) -> Schema:
    return {"type": "array", "items": items, "description": description} | ({"default": []} if unique else {})


def _object(properties: Schema, description: str | None = None, *, required: tuple[str, ...] = ()) -> Schema:
    described = {"description": description} if description else {}
    return {
        "type": "object",
        **described,
        "required": list(required),
        "additionalProperties": False,
        "properties": properties,
    }


def _whole(pattern: str) -> str:
    return f"^({pattern})$"


_PACKAGE = _whole(rules.IDENTIFIER.pattern)
_VERSIONS = _text('The versions that are allowed, in quotes, such as ">=0.1,<2".', _VERSION)
_COMMON: Schema = {
    "name": _text("Your name for the plugin, unique in the file.", _whole(rules.NAME.pattern)),
    "enabled": _flag("false: not locked and not installed.", default=True),
    "loads": _list(
        _text("module:attribute", _LOAD), "Objects that vLLM loads where you name them, such as a KV connector."
    ),
}
_DISTRIBUTION: Schema = {
    "package": _text("The distribution. For git and local, a check of the name that was built.", _PACKAGE),
    "extras": _list(_text("An extra of the distribution.", _PACKAGE), "Extras of the distribution."),
    "build": _object(
        {
            "requires": _list(_text("A requirement, such as setuptools>=80.", _REQUIREMENT), "Further requirements."),
            "with-base": _list(
                _text("A package of the vLLM environment, such as torch.", _PACKAGE), "Packages that the build uses."
            ),
        },
        "What its build requires and its project does not declare.",
    ),
}
# The keys of each source, and those that are required.
_SOURCES: dict[str, tuple[str, Schema, tuple[str, ...]]] = {
    "pypi": (
        "A distribution from a package index.",
        {
            "version": _VERSIONS,
            "index": _text("The one index that it comes from, by its name.", _whole(rules.NAME.pattern)),
            **_DISTRIBUTION,
        },
        ("package",),
    ),
    "git": (
        "A project in a git repository.",
        {
            "url": _text(
                "https://, http://, ssh://, file:// or user@host:path. ${NAME} is an environment variable.", _URL
            ),
            "ref": _text(
                "A branch, tag or commit. The default is the remote's HEAD.",
                no=rules.NO_REF.pattern,
            ),
            "subdirectory": _text(
                "The directory of the project in the repository.",
                no=r"\\|^/|(^|/)(-|\.\.(/|$))",
            ),
            **_DISTRIBUTION,
        },
        ("url",),
    ),
    "local": (
        "A project directory on this machine.",
        {
            "path": _text("The directory, relative to plugins.yaml.", no=f"^{rules.SCHEME.pattern}"),
            "editable": _flag("true: import from the directory itself.", default=False),
            **_DISTRIBUTION,
        },
        ("path",),
    ),
    "file": (
        "A single file: a chat template, a tool parser, a module.",
        {
            "path": _text("The file, relative to plugins.yaml.", no=f"^{rules.SCHEME.pattern}|/$"),
            "url": _text("The https URL of the file.", r"^https?://[^/@]+/[^#\s]*$"),
            "sha256": _text("The hash of the file; required for a URL.", _whole(values.SHA256.pattern)),
            "filename": _text(
                "The name of the file in the overlay, by default that of the path or URL.",
                _whole(file_rules.FILENAME.pattern),
            ),
        },
        (),
    ),
}
_TARGET: Schema = {
    "name": _text("Your name for the target, unique in this file.", r"^[A-Za-z0-9][A-Za-z0-9._-]*$"),
    "base": _text("here, the path of a snapshot, or a release of vLLM such as vllm==0.32.0."),
    "python": _text("The minor version of Python, such as 3.12 in quotes.", _whole(values.PYTHON.pattern)),
    "platform": _text("Such as linux-aarch64.", _whole(targets.PLATFORM.pattern)),
}
_OVERRIDE: Schema = {
    "package": _text("A package of the vLLM environment.", _PACKAGE),
    "version": _VERSIONS,
    "reason": _text("Why plugins need another version, for those who review the lock."),
}
_ACCEPTED: Schema = {
    "id": _text("The identifier of an advisory, such as CVE-2026-1234."),
    "reason": _text("Why this advisory is harmless here."),
    "until": _text("A date in quotes, after which the advisory counts again.", _DATE),
}


def _plugin(kind: str) -> Schema:
    description, own, required = _SOURCES[kind]
    source = {"const": kind, "description": "Where the plugin comes from: " + ", ".join(_SOURCES) + "."}
    first = {"name": _COMMON["name"], "source": source}
    choice: Schema = {}
    if kind == "file":  # either key, and the hash of what others can change
        choice["anyOf"] = [
            {"required": ["path"], "not": {"required": ["url"]}},
            {"required": ["url", "sha256"], "not": {"required": ["path"]}},
        ]
    return _object({**first, **own, **_COMMON}, description, required=("name", "source", *required)) | choice


def _policy() -> Schema:
    levels = {
        check: {"enum": [*get_args(Level)], "default": level, "description": "What a finding of this check means."}
        for check, level in CHECKS.items()
    }
    names = _text("The name of a distribution.", _PACKAGE)
    licenses = _text("An SPDX expression.")
    return {
        **levels,
        "required": _list({"enum": [*CHECKS]}, "Checks that must run."),
        "min-age-days": {
            "type": "integer",
            "minimum": 0,
            "maximum": 99999,
            "description": "Younger releases are findings of the check young, and are not locked.",
        },
        "min-age-exempt": _list(names, "Distributions that may be of any age."),
        "allowed-licenses": _list(licenses, "Licences that are allowed; all are, if the list is empty."),
        "denied-licenses": _list(licenses, "Licences that are denied."),
        "accepted": _list(_object(_ACCEPTED, required=("id", "reason")), "Advisories that you have reviewed."),
        "variables": {
            "type": "object",
            "description": "Variables that may be logins in git URLs of a change under review, each with its hosts.",
            "propertyNames": {"pattern": _whole(git_url_forms.NAME.pattern)},
            "additionalProperties": _list(
                _text("Scheme and host, such as https://git.example.org.", _whole(ORIGIN.pattern)), "Hosts."
            ),
        },
    }
