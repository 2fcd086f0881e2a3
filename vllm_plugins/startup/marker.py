"""The marker (``overlay.json``): the description of a complete overlay, written when it is published."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    Point = tuple[str, str, str, str, str]

__all__ = ["FILE_PACKAGE", "EntryPoint", "Failure", "Marker", "module_name"]

FORMAT = 2
# What the distribution of a single file is called: the prefix, then the plugin's name.
FILE_PACKAGE = "vllm-plugin-file-"

_SEAL = ' "sha256": '
_FIELDS = 5  # of an entry point
_LONGEST = 100_000  # characters of a list of packages: Linux takes 128 KiB for a variable


class EntryPoint(Record):
    """An entry point of an overlay. ``plugin`` is the name of its plugin in the manifest.

    ``distribution`` is empty for an object of a plugin that the base provides.
    """

    group: str
    name: str
    value: str
    distribution: str
    plugin: str


class Failure(Record):
    """An entry point that can't be loaded with the base of this fingerprint. ``found`` is the cause, if known."""

    base: str
    group: str
    name: str
    what: str
    found: str


class Marker(Record):
    """The description of a complete overlay.

    ``points`` are the entry points as they are stored: group, name, value, distribution and plugin of each. A start
    needs those of one group only, which :meth:`group` converts. ``manifests`` and ``bases`` are the sha256 of
    manifests and the fingerprints of bases that were found to fit the lock: the hook compares, and never parses or
    resolves. ``import_lines`` says that a ``.pth`` file of the overlay runs code, which a spawned process does not
    inherit; ``path_files`` that the overlay has any. ``editable`` are the distributions whose code is elsewhere and
    not in the lock. ``checked`` are the bases with which every entry point was loaded once, and ``failures`` those
    that failed then. ``files_sha256`` is the hash of ``files.json``, the list of all files, and ``registry_sha256``
    that of the overlay's ``registry.json``.
    ``overrides`` are the packages in front of the base: name, version, and the base's version. ``trials`` are the
    bases with which a start began to use the overlay alongside its load check, whose result is not known.
    The file ends with a hash of itself: a marker with a wrong bit could name other plugins, and does not count.
    """

    key: str
    interpreter: str
    lock_sha256: str
    files_sha256: str
    registry_sha256: str
    manifests: tuple[str, ...]
    bases: tuple[str, ...]
    points: tuple[Point, ...]
    plugins: tuple[str, ...]
    import_lines: bool = False
    editable: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    overrides: tuple[tuple[str, str, str], ...] = ()
    trials: tuple[str, ...] = ()
    path_files: bool = True

    @property
    def entry_points(self) -> tuple[EntryPoint, ...]:
        """All entry points, in the order of loading."""
        return tuple(map(_record, self.points))

    @cached_property
    def top_level(self) -> frozenset[str]:
        """The first part of the names of the modules that the entry points name."""
        # Most values are as short as "a.b:c". What is left of others, as of "a [extra]:b", is not a name.
        names = {value.partition(":")[0].partition(".")[0] for _, _, value, _, _ in self.points}
        if all(map(str.isidentifier, names)):
            return frozenset(names)
        return frozenset(module_name(value).partition(".")[0] for _, _, value, _, _ in self.points)

    def group(self, group: str) -> tuple[EntryPoint, ...]:
        """The entry points of one group."""
        return tuple(_record(point) for point in self.points if point[0] == group)

    def is_up_to_date(self, manifest_sha256: str | None, base: str) -> bool:
        """Whether the overlay is known to fit a manifest (``None``: there is none) and a base."""
        if base not in self.bases or base in self.trials:
            return False
        return manifest_sha256 is None or manifest_sha256 in self.manifests

    def expectation(self, listing: str, base: str) -> str:
        """What another process must have to be like one with this overlay: the value of ``VLLM_PLUGIN_EXPECT``.

        ``listing`` is the base as text, and ``base`` its fingerprint. The last part, with which a message can name a
        package, is the only one with a slash. It is left out where it would be too long for a variable.
        """
        value = f"overlay={self.key} files={self.files_sha256[:32]} lock={self.lock_sha256[:32]} base={base}"
        packages = listing.replace("\n", "/").replace(".dist-info", "")
        return f"{value} packages={packages}" if len(packages) < _LONGEST else value

    def to_json(self) -> str:
        """The content of the marker's file."""
        data = {
            "format": FORMAT,
            "key": self.key,
            "interpreter": self.interpreter,
            "lock-sha256": self.lock_sha256,
            "files-sha256": self.files_sha256,
            "registry-sha256": self.registry_sha256,
            "manifests": self.manifests,
            "bases": self.bases,
            "plugins": self.plugins,
            "import-lines": self.import_lines,
            "path-files": self.path_files,
            "editable": self.editable,
            "checked": self.checked,
            "failures": [
                [failure.base, failure.group, failure.name, failure.what, failure.found] for failure in self.failures
            ],
            **({"overrides": self.overrides} if self.overrides else {}),
            **({"trials": self.trials} if self.trials else {}),
            "entry-points": self.points,
        }
        return _sealed(json.dumps(data, indent=1).removesuffix("\n}") + ",\n")

    @classmethod
    def from_json(cls, text: str) -> Marker | None:
        """Read a marker; ``None`` if the text is not a valid one of this format. The overlay then does not count."""
        try:
            data: Any = json.loads(text)
            if data["format"] != FORMAT or text != _sealed(text[: text.rfind(_SEAL)]):
                return None
            return cls(
                key=str(data["key"]),
                interpreter=str(data["interpreter"]),
                lock_sha256=str(data["lock-sha256"]),
                files_sha256=str(data["files-sha256"]),
                registry_sha256=str(data["registry-sha256"]),
                manifests=_texts(data["manifests"]),
                bases=_texts(data["bases"]),
                plugins=_texts(data["plugins"]),
                import_lines=data["import-lines"] is True,
                path_files=data.get("path-files") is not False,
                editable=_texts(data["editable"]),
                checked=_texts(data["checked"]),
                failures=tuple(
                    Failure(base=str(base), group=str(group), name=str(name), what=str(what), found=str(found))
                    for base, group, name, what, found in data["failures"]
                ),
                overrides=tuple((str(a), str(b), str(c)) for a, b, c in data.get("overrides", ())),
                trials=_texts(data.get("trials", ())),
                points=_points(data["entry-points"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def module_name(value: str) -> str:
    """The module that an entry point names."""
    return value.partition("[")[0].partition(":")[0].strip()


def _points(rows: Any) -> tuple[Point, ...]:
    """Entry points, checked column by column: each start does this, and there may be hundreds."""
    columns = tuple(map(_texts, zip(*rows, strict=True)))
    if rows and len(columns) != _FIELDS:
        raise ValueError("an entry point has five strings")
    return tuple(zip(*columns, strict=True))


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    texts = tuple(values)
    "".join(texts)  # the fastest check that all of them are strings
    return texts


def _record(point: Point) -> EntryPoint:
    group, name, value, distribution, plugin = point
    return EntryPoint(group=group, name=name, value=value, distribution=distribution, plugin=plugin)


def _sealed(text: str) -> str:
    """The text of an unfinished JSON object, closed with the hash of the text before."""
    return f'{text}{_SEAL}"{hashlib.sha256(text.encode()).hexdigest()}"\n}}\n'
