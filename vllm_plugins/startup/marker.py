"""The marker: what a complete overlay says of itself."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup.record import Record

if TYPE_CHECKING:
    Point = tuple[str, str, str, str, str]

__all__ = ["EntryPoint", "Failure", "Marker"]

FORMAT = 2

_SEAL = ' "sha256": '


class EntryPoint(Record):
    """One entry point of the overlay; ``plugin`` is the manifest's name for what it came with."""

    group: str
    name: str
    value: str
    distribution: str
    plugin: str


class Failure(Record):
    """An entry point that did not load with the base of that fingerprint; ``found`` is the cause, if it is known."""

    base: str
    group: str
    name: str
    what: str
    found: str


class Marker(Record):
    """What a complete overlay says of itself (``overlay.json``).

    ``points`` are the entry points as they are written: group, name, value, distribution and plugin of each. A start
    wants records of one group alone, which :meth:`group` makes. ``manifests`` and ``bases`` are the sha256 of
    manifest bytes and the base fingerprints that were found to be in step with the lock: the hook compares, and
    never has to parse or resolve. ``import_lines`` says that a ``.pth`` file of the overlay runs code, which a
    spawned process does not inherit. ``editable`` are distributions whose code lies elsewhere, and is in no lock.
    ``checked`` are the bases with which every entry point was loaded once, and ``failures`` what did not load then.
    ``files_sha256`` is of the list of all files, ``files.json``, and ``registry_sha256`` of the overlay's
    ``registry.json``. As a file it has a hash of its own: a marker with a wrong bit would name other plugins, and is
    none.
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

    @property
    def entry_points(self) -> tuple[EntryPoint, ...]:
        """All entry points, in the order in which they are loaded."""
        return tuple(map(_record, self.points))

    def group(self, group: str) -> tuple[EntryPoint, ...]:
        """Those of one group."""
        return tuple(_record(point) for point in self.points if point[0] == group)

    def in_step(self, manifest_sha256: str | None, base: str) -> bool:
        """Whether this overlay is known to fit that manifest (``None``: there is none) and that base."""
        return base in self.bases and (manifest_sha256 is None or manifest_sha256 in self.manifests)

    def to_json(self) -> str:
        """The marker as it is written."""
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
            "editable": self.editable,
            "checked": self.checked,
            "failures": [
                [failure.base, failure.group, failure.name, failure.what, failure.found] for failure in self.failures
            ],
            "entry-points": self.points,
        }
        return _sealed(json.dumps(data, indent=1).removesuffix("\n}") + ",\n")

    @classmethod
    def from_json(cls, text: str) -> Marker | None:
        """Read a marker; ``None`` when the text is not one of this format (the overlay then does not count)."""
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
                manifests=tuple(map(str, data["manifests"])),
                bases=tuple(map(str, data["bases"])),
                plugins=tuple(map(str, data["plugins"])),
                import_lines=data["import-lines"] is True,
                editable=tuple(map(str, data["editable"])),
                checked=tuple(map(str, data["checked"])),
                failures=tuple(
                    Failure(base=str(base), group=str(group), name=str(name), what=str(what), found=str(found))
                    for base, group, name, what, found in data["failures"]
                ),
                points=_points(data["entry-points"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def _points(rows: Any) -> tuple[Point, ...]:
    points = tuple(map(tuple, rows))
    if set(map(len, points)) - {5} or not {type(value) for point in points for value in point} <= {str}:
        raise ValueError("an entry point is five strings")
    return points


def _record(point: Point) -> EntryPoint:
    group, name, value, distribution, plugin = point
    return EntryPoint(group=group, name=name, value=value, distribution=distribution, plugin=plugin)


def _sealed(text: str) -> str:
    """A JSON object that is still open, closed with the hash of all that stands before."""
    return f'{text}{_SEAL}"{hashlib.sha256(text.encode()).hexdigest()}"\n}}\n'
