"""The pods of the deployment examples, and interpreters that stand for their images."""

from __future__ import annotations

import importlib
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from . import chart
from . import vllm as stand_in

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COMPOSE", "EXAMPLES", "HELM", "KUBERAY", "KUBERNETES", "environment", "pods", "read"]

EXAMPLES = Path(__file__).parents[2] / "examples"
KUBERNETES = sorted((EXAMPLES / "kubernetes").iterdir())
COMPOSE = [EXAMPLES / "compose.yaml", EXAMPLES / "image/compose.yaml"]
KUBERAY = EXAMPLES / "kuberay" / "raycluster.yaml"
HELM = chart.VALUES

# vLLM requires them, and with them requests' own requirements.
_OF_VLLM = ("packaging", "yaml", "requests", "urllib3", "idna", "certifi", "charset_normalizer")


def read(path: Path) -> Any:
    """The content of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def pods(path: Path) -> list[Any]:
    """The pods of an example: one, or those of the head and of each group of workers."""
    spec = (chart.rendered() if path == HELM else read(path))["spec"]
    if path == KUBERAY:
        return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    return [spec["template"]["spec"]]


def environment(
    directory: Path, *, manager: Path | None = None, without: Iterable[str] = (), **versions: str
) -> None:
    """An interpreter with vLLM, and perhaps with the manager."""
    venv.EnvBuilder(symlinks=True).create(directory)
    (site,) = directory.glob("lib/*/site-packages")
    stand_in.environment(site, without=[*without, *versions])
    for name, version in versions.items():
        stand_in.distribution(site, name, version)
    for name in _OF_VLLM:
        (site / name).symlink_to(Path(str(importlib.import_module(name).__file__)).parent)
    if manager is not None:
        (site / "manager.pth").write_text(f"{manager}\n")
