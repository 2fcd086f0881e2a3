"""The stubs of a base are made once, and again where one of them, or their list, is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

from vllm_plugins.documents import base
from vllm_plugins.locking import _resolution
from vllm_plugins.packages import stub_wheels

if TYPE_CHECKING:
    from vllm_plugins.documents.base import Base

TORCH = base.distribution(base.SHARED[0], "2.13.0", ["fast"], ['quick>=1; extra == "fast"', "slow"])
VLLM = base.distribution(base.VLLM, "0.32.0", [], [])


def lines(found: Base, directory: Path) -> dict[str, bytes]:
    """The content of each stub that the constraints name."""
    places = {
        name: urlsplit(line.partition(" @ ")[2]) for name, line in _resolution.constraints(found, directory).items()
    }
    return {name: Path(unquote(place.path)).read_bytes() for name, place in places.items()}


def test_stubs_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = base.of_here((TORCH, VLLM))
    first = lines(found, tmp_path)
    assert set(first) == {"torch", "vllm"}
    monkeypatch.setattr(stub_wheels, "write", pytest.fail)
    assert lines(found, tmp_path) == first


@pytest.mark.parametrize("data", [b"", b"evil"])
@pytest.mark.parametrize("suffix", [".whl", ".list"])
def test_what_is_damaged_is_made_again(tmp_path: Path, data: bytes, suffix: str) -> None:
    found = base.of_here((TORCH, VLLM))
    first = lines(found, tmp_path)
    for path in tmp_path.glob(f"*{suffix}"):
        path.write_bytes(data)
    assert lines(found, tmp_path) == first
    for path in tmp_path.glob(f"*{suffix}"):
        path.unlink()
    assert lines(found, tmp_path) == first


@pytest.mark.parametrize(
    "other",
    [
        TORCH.replace(version="2.14.0"),
        TORCH.replace(requires=('quick>=2; extra == "fast"',)),
        TORCH.replace(extras=("fast", "more")),
    ],
)
def test_another_base_has_other_stubs(tmp_path: Path, other: base.Distribution) -> None:
    first = lines(base.of_here((TORCH, VLLM)), tmp_path)
    assert lines(base.of_here((other, VLLM)), tmp_path)["torch"] != first["torch"]
    assert lines(base.of_here((TORCH, VLLM)), tmp_path) == first


def test_a_base_without_vllm_has_a_stub_of_none(tmp_path: Path) -> None:
    for _ in range(2):
        assert set(lines(base.of_here((TORCH,)), tmp_path)) == {"torch", "vllm"}
