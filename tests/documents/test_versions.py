"""Versions, specifiers and requirements: what packaging fails on later is not valid in any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from packaging.markers import InvalidMarker
from packaging.requirements import InvalidRequirement
from packaging.specifiers import InvalidSpecifier
from packaging.utils import InvalidWheelFilename
from packaging.version import InvalidVersion

from vllm_plugins.documents import versions

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = "9" * 5000
KINDS = [".".join(f"{part}{number}" for number in range(300)) for part in ("cp", "abi", "linux_")]
MANY = f"tiny-1.0-{'-'.join(KINDS)}.whl"  # 27 million tags, which packaging would make one by one
NESTED = "(" * 5000 + 'os_name == "a"' + ")" * 5000


@pytest.mark.parametrize(
    ("read", "valid", "invalid", "error"),
    [
        (versions.version, "1.0+cpu", LONG, InvalidVersion),
        (versions.version, "1.0", f"1.0.post{LONG}", InvalidVersion),
        (versions.specifiers, ">=1,<2", f">{LONG}", InvalidSpecifier),
        (versions.marker, 'python_version > "3"', f'python_version > "{LONG}"', InvalidMarker),
        (versions.requirement, "tiny>=1", f"tiny>{LONG}", InvalidRequirement),
        (versions.requirement, "tiny>=1", f"tiny; {NESTED}", InvalidRequirement),
        (versions.marker, '(os_name == "a")', NESTED, InvalidMarker),
        (versions.wheel_name, "tiny-1.0-py3-none-any.whl", f"tiny-{LONG}-py3-none-any.whl", InvalidWheelFilename),
        (versions.wheel_name, f"tiny-1.0-{KINDS[0]}-a.b.c-any.whl", MANY, InvalidWheelFilename),
        (
            versions.wheel_name,
            f"tiny-1.0-1-{KINDS[1]}-none-any.whl",
            MANY.replace("1.0", "1.0-1"),
            InvalidWheelFilename,
        ),
        (versions.requirement, "tiny>=1", f'tiny; python_version > "{LONG}"', InvalidRequirement),
    ],
)
def test_what_packaging_can_not_evaluate_is_not_valid(
    read: Callable[[str], Any], valid: str, invalid: str, error: type[ValueError]
) -> None:
    assert str(read(valid))
    with pytest.raises(error, match=r"too many digits|more than 100 parentheses|more than 1000 tags"):
        read(invalid)
