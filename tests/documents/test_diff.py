from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import values
from vllm_plugins.documents import diff
from vllm_plugins.documents.lock import BaseUse, Lock, Package, Plugin, Target, Wheel

if TYPE_CHECKING:
    from vllm_plugins.startup.record import Record

# A rollback changes the first. The second is the version of the plugin's package, which is compared.
UNSEEN = {(Lock, "accepted_manifests"), (Plugin, "version")}
OTHER = {
    "packages": (values.package(), values.package("more")),
    "plugins": (),
    "targets": (),
    "wheels": (values.wheel(sha256="b" * 64),),
    "dependencies": ("more",),
    "base": (BaseUse(name=values.NAME("torch"), version="2.0", required_by=(("tiny", ">=1"),)),),
    "editable": True,
    "size": 11,
    "entry_points": (("vllm.general_plugins", "other", "tiny:other"),),
}


def _changes(old: Lock, new: Lock) -> list[object]:
    return [*diff.compare(old, new), *diff.plugin_changes(old, new), *diff.base_changes(old, new)]


def _with(lock: Lock, record: Record) -> Lock:
    """The lock with this record in the place of the one of its class."""
    match record:
        case Lock():
            return record
        case Package():
            return lock.replace(packages=(record,))
        case Plugin():
            return lock.replace(plugins=(record,))
        case Target():
            return lock.replace(targets=(record,))
        case _:
            return lock.replace(packages=(lock.packages[0].replace(wheels=(record,)),))


def _fields() -> list[tuple[type[Record], str]]:
    kinds: tuple[type[Record], ...] = (Lock, Package, Plugin, Target, Wheel)
    return [(kind, name) for kind in kinds for name in kind.__annotations__ if (kind, name) not in UNSEEN]


@pytest.mark.parametrize(("kind", "name"), _fields(), ids=lambda item: getattr(item, "__name__", item))
def test_a_change_of_any_field_of_a_lock_is_shown(kind: type[Record], name: str) -> None:
    old = values.lock()
    (plugin,), (target,), (package,) = old.plugins, old.targets, old.packages
    records: dict[type[Record], Record] = {
        Lock: old,
        Package: package,
        Plugin: plugin,
        Target: target,
        Wheel: package.wheels[0],
    }
    record = records[kind]
    was = getattr(record, name)
    other = OTHER.get(name, ("changed",) if isinstance(was, tuple) else "changed")
    assert was != other
    new = _with(old, record.replace(**{name: other}))
    assert _changes(old, old) == []
    assert _changes(old, new) != []


def test_the_names_that_vllm_is_given_are_listed_one_by_one() -> None:
    lock = values.lock()
    (plugin,) = lock.plugins
    old = lock.replace(plugins=(plugin.replace(loads=("tiny:Old", "tiny:Same")),))
    new = lock.replace(plugins=(plugin.replace(loads=("tiny:Same", "tiny:New")),))
    assert list(diff.plugin_changes(old, new)) == [
        "plugin tiny: adds `loads` tiny:New",
        "plugin tiny: removes `loads` tiny:Old",
    ]
    assert "plugin tiny: adds `loads` tiny:New" in list(diff.plugin_changes(lock.replace(plugins=()), new))
