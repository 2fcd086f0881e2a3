"""Every key that a lock may have, and what this version does with it.

A lock is read as PEP 751 says, and installed by rules of our own. A key that would change what is installed is
*honoured* or *refused*, never ignored; so is every key that nobody knows. A *harmless* one tells people something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["KEYS", "Treatment", "refused"]

Treatment = Literal["honoured", "refused", "harmless"]

# By the path of the key. Below a key that is not the beginning of another one, anything may stand.
KEYS: dict[str, Treatment] = {
    "lock-version": "honoured",
    "environments": "honoured",
    "requires-python": "refused",  # the targets say it, and `environments` what they don't
    "extras": "refused",  # nobody could choose one
    "dependency-groups": "refused",  # the same
    "default-groups": "refused",  # the same
    "created-by": "harmless",
    "packages": "honoured",
    "packages.name": "honoured",
    "packages.version": "honoured",
    "packages.marker": "honoured",
    "packages.requires-python": "honoured",
    "packages.dependencies": "honoured",
    "packages.dependencies.name": "honoured",
    "packages.vcs": "refused",  # no hash
    "packages.directory": "honoured",
    "packages.directory.path": "honoured",
    "packages.directory.editable": "honoured",
    "packages.directory.subdirectory": "refused",  # `path` says it
    "packages.archive": "refused",  # it would be built
    "packages.index": "harmless",  # the hash says which file; `lock --check` and `audit` compare it
    "packages.sdist": "refused",  # it would be built
    "packages.wheels": "honoured",
    "packages.wheels.name": "honoured",
    "packages.wheels.upload-time": "harmless",
    "packages.wheels.url": "honoured",
    "packages.wheels.path": "honoured",
    "packages.wheels.size": "honoured",
    "packages.wheels.hashes": "honoured",  # sha256 alone counts
    "packages.attestation-identities": "honoured",
    "packages.tool": "harmless",
    "packages.tool.vllm-plugins": "honoured",
    "packages.tool.vllm-plugins.built-with": "honoured",
    "packages.tool.vllm-plugins.sdist-url": "honoured",
    "packages.tool.vllm-plugins.sdist-sha256": "honoured",
    "packages.tool.vllm-plugins.find-links": "honoured",
    "tool": "harmless",
    "tool.vllm-plugins": "honoured",
    "tool.vllm-plugins.format": "honoured",
    "tool.vllm-plugins.manifest-sha256": "honoured",
    "tool.vllm-plugins.manifest": "honoured",  # whose lock it is
    "tool.vllm-plugins.content-sha256": "honoured",
    "tool.vllm-plugins.accepted-manifests": "honoured",
    "tool.vllm-plugins.targets": "honoured",
    "tool.vllm-plugins.targets.name": "honoured",
    "tool.vllm-plugins.targets.python": "honoured",
    "tool.vllm-plugins.targets.platform": "honoured",
    "tool.vllm-plugins.targets.vllm": "honoured",
    "tool.vllm-plugins.targets.base": "honoured",
    "tool.vllm-plugins.targets.base.name": "honoured",
    "tool.vllm-plugins.targets.base.version": "honoured",
    "tool.vllm-plugins.targets.base.required-by": "honoured",
    "tool.vllm-plugins.targets.base.required-by.name": "honoured",
    "tool.vllm-plugins.targets.base.required-by.specifier": "honoured",
    "tool.vllm-plugins.overrides": "honoured",
    "tool.vllm-plugins.overrides.package": "honoured",
    "tool.vllm-plugins.overrides.version": "honoured",
    "tool.vllm-plugins.overrides.replaces": "honoured",
    "tool.vllm-plugins.overrides.requested": "honoured",
    "tool.vllm-plugins.overrides.reason": "honoured",
    "tool.vllm-plugins.overrides.against": "honoured",
    "tool.vllm-plugins.overrides.against.name": "honoured",
    "tool.vllm-plugins.overrides.against.specifier": "honoured",
    "tool.vllm-plugins.build-requirements": "honoured",
    "tool.vllm-plugins.build-requirements.name": "honoured",
    "tool.vllm-plugins.build-requirements.version": "honoured",
    "tool.vllm-plugins.build-requirements.index": "harmless",  # as of a package
    "tool.vllm-plugins.build-requirements.wheels": "honoured",
    "tool.vllm-plugins.build-requirements.wheels.name": "honoured",
    "tool.vllm-plugins.build-requirements.wheels.url": "honoured",
    "tool.vllm-plugins.build-requirements.wheels.size": "honoured",
    "tool.vllm-plugins.build-requirements.wheels.hashes": "honoured",
    "tool.vllm-plugins.plugins": "honoured",
    "tool.vllm-plugins.plugins.name": "honoured",
    "tool.vllm-plugins.plugins.source": "honoured",
    "tool.vllm-plugins.plugins.package": "honoured",
    "tool.vllm-plugins.plugins.version": "honoured",
    "tool.vllm-plugins.plugins.requested": "honoured",
    "tool.vllm-plugins.plugins.index": "honoured",
    "tool.vllm-plugins.plugins.index-url": "honoured",
    "tool.vllm-plugins.plugins.url": "honoured",
    "tool.vllm-plugins.plugins.subdirectory": "honoured",
    "tool.vllm-plugins.plugins.commit-id": "honoured",
    "tool.vllm-plugins.plugins.tree-sha256": "honoured",
    "tool.vllm-plugins.plugins.editable": "honoured",
    "tool.vllm-plugins.plugins.project-sha256": "honoured",
    "tool.vllm-plugins.plugins.filename": "honoured",
    "tool.vllm-plugins.plugins.file-sha256": "honoured",
    "tool.vllm-plugins.plugins.passed-over": "harmless",
    "tool.vllm-plugins.plugins.loads": "honoured",
    "tool.vllm-plugins.plugins.build-requires": "honoured",
    "tool.vllm-plugins.plugins.with-base": "honoured",
    "tool.vllm-plugins.plugins.provided": "honoured",
    "tool.vllm-plugins.plugins.dependencies": "honoured",
    "tool.vllm-plugins.plugins.entry-points": "honoured",
    "tool.vllm-plugins.plugins.entry-points.group": "honoured",
    "tool.vllm-plugins.plugins.entry-points.name": "honoured",
    "tool.vllm-plugins.plugins.entry-points.value": "honoured",
}
# What other programs keep in the file is theirs.
_OTHERS = ("tool", "packages.tool")
_PARENTS = {key.rpartition(".")[0] for key in KEYS}


def refused(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys of a document that are refused, each with the reason. The path has the numbers of tables."""
    return _table(document, "", "")


def _table(table: Mapping[str, Any], here: str, shown: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        path, place = f"{here}.{key}" if here else key, f"{shown}.{key}" if shown else key
        treatment = None if "." in key else KEYS.get(path)  # a quoted key may look like a path, and nothing reads it
        if treatment is None and here in _OTHERS:
            continue
        if treatment is None:
            yield place, "this key is unknown (a newer version's?), and may change what is installed"
        elif treatment == "refused":
            yield place, "this key of PEP 751 would change what is installed, and this program does not follow it"
        elif path in _PARENTS:
            yield from _value(value, path, place)
        else:
            yield from _texts(value, place)


def _texts(value: Any, shown: str) -> Iterator[tuple[str, str]]:
    """The texts that contain what nobody sees in a review. A line break could add lines to an exported file."""
    if isinstance(value, str):
        if not value.isprintable():
            hidden = next(character for character in value if not character.isprintable())
            yield shown, f"this text contains the invisible character U+{ord(hidden):04X}"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key, shown)
            yield from _texts(item, f"{shown}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, f"{shown}[{number}]")


def _value(value: Any, here: str, shown: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        yield from _table(value, here, shown)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _value(item, here, f"{shown}[{number}]")
