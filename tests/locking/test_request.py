from __future__ import annotations

from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import UsageError
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import manifest
from vllm_plugins.documents.lock import Lock, Package, Plugin
from vllm_plugins.locking.request import Request, Upgrade, kept

NAME = canonicalize_name
MANIFEST = manifest.parse(
    b"plugins:\n- {name: mine, source: pypi, package: Its_Package}\n- {name: local, source: local, path: here}\n",
    Path("/somewhere/plugins.yaml"),
)
OLD = Lock(
    manifest_sha256=Sha256("a" * 64),
    packages=tuple(Package(name=NAME(name), version="1.0") for name in ("helper", "its-package", "built-name")),
    plugins=(
        Plugin(name="local", source="local", package=NAME("built-name"), version="1.0", requested="here"),
        Plugin(name="mine", source="pypi", package=NAME("its-package"), version="1.0", requested="its-package"),
    ),
    targets=(),
)


def upgraded(*names: str, old: Lock | None = OLD) -> set[str]:
    return set(Request(names=names).upgrade.with_packages(MANIFEST, old).names)


def test_a_plugin_is_upgraded_with_its_package() -> None:
    assert upgraded("mine") == {"mine", "its-package"}
    assert upgraded("ITS.package") == {"its-package"}
    assert upgraded("local") == {"local", "built-name"}
    assert upgraded("helper", "mine") == {"helper", "mine", "its-package"}
    assert upgraded("mine", old=None) == {"mine", "its-package"}


@pytest.mark.parametrize("name", ["tyni", "torch"])
def test_a_name_that_nothing_has_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"no plugin and no locked package has the name {name!r}"):
        upgraded(name)


@pytest.mark.parametrize("name", ["tiny==2.0", "", "-x", "a b"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a valid name"):
        upgraded(name)


def test_the_old_pins_are_preferred_except_for_what_may_move() -> None:
    assert set(kept(OLD, Upgrade())) == {"helper", "its-package", "built-name"}
    assert set(kept(OLD, Upgrade(names=frozenset({NAME("helper")})))) == {"its-package", "built-name"}
    assert kept(OLD, Upgrade(everything=True)) == {}
    assert kept(None, Upgrade()) == {}


def test_only_an_upgrade_with_names_is_one() -> None:
    assert not Upgrade()
    assert Upgrade(everything=True)
    assert Upgrade(everything=True).allows(NAME("anything"))
    assert Upgrade(names=frozenset({NAME("helper")}))
    assert not Upgrade(names=frozenset({NAME("helper")})).allows(NAME("mine"))


def test_the_command_of_a_check_is_the_same_without_check() -> None:
    assert Request(check=True).command == "vllm-plugins lock"
    assert Request(check=True, everything=True).command == "vllm-plugins lock --upgrade"
    asked = Request(names=("a", "b"), base="my base.json", resolver="uv", check=True)
    assert asked.command == (
        "vllm-plugins lock --upgrade-package a --upgrade-package b --base 'my base.json' --resolver uv"
    )
