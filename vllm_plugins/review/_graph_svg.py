"""The graph of a lock as SVG: plugins at the left, the packages that they need, base packages at the right.

The SVG is part of a page: it uses the page's colours (``--name`` variables), and loads nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

from vllm_plugins.core.humanize import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vllm_plugins.documents.lock import Lock

__all__ = ["svg"]

_CHARACTER = 7.3  # pixels: the width of a character in the labels' monospaced 12 px font
_HEIGHT, _GAP, _BETWEEN, _MARGIN = 34.0, 14.0, 96.0, 12.0
_LONGEST = 40  # characters of a label
_SWEEPS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class _Node:
    key: str
    label: str
    kind: Literal["plugin", "package", "base"]
    level: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Box:
    node: _Node
    x: float
    y: float
    width: float


def svg(lock: Lock, levels: Mapping[str, str]) -> str:
    """The graph as SVG. ``levels`` has ``fail`` or ``warn`` for each package with a finding."""
    nodes = _nodes(lock, levels)
    edges = _edges(lock)
    columns = _ordered(_columns(nodes, edges), edges)
    boxes = _boxes(columns, nodes)
    width = max((box.x + box.width for box in boxes.values()), default=0) + _MARGIN
    height = max((box.y + _HEIGHT for box in boxes.values()), default=0) + _MARGIN
    title = f"{count(len(lock.plugins), 'plugin')}, {count(len(lock.packages), 'package')}, and their dependencies"
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="graph-title" {size}>',
        f'<title id="graph-title">{escape(title)}</title>',
        *_lines(boxes, edges),
        *(_box(box) for box in boxes.values()),
        "</svg>",
    ]
    return "\n".join(lines)


def _nodes(lock: Lock, levels: Mapping[str, str]) -> dict[str, _Node]:
    found = [_Node(key=f"plugin {item.name}", label=item.name, kind="plugin") for item in lock.plugins]
    found += [
        _Node(key=item.name, label=f"{item.name} {item.version}", kind="package", level=levels.get(item.name, ""))
        for item in lock.packages
    ]
    base = {use.name: use.version for target in lock.targets for use in target.base}
    found += [_Node(key=f"base {name}", label=f"{name} {base[name]}", kind="base") for name in sorted(base)]
    return {node.key: node for node in found}


def _edges(lock: Lock) -> list[tuple[str, str, str]]:
    """The edges: from, to, and the specifier of a requirement on a base package."""
    found = {
        (f"plugin {plugin.name}", str(name), "")
        for plugin in lock.plugins
        for name in (plugin.dependencies if plugin.provided else (plugin.package,))
    }
    found |= {(str(package.name), str(name), "") for package in lock.packages for name in package.dependencies}
    found |= {
        (str(who), f"base {use.name}", specifier)
        for target in lock.targets
        for use in target.base
        for who, specifier in use.required_by
    }
    return sorted(found)


def _columns(nodes: Mapping[str, _Node], edges: list[tuple[str, str, str]]) -> list[list[str]]:
    """Packages by their longest path from a plugin. A cycle is followed once."""
    needs = defaultdict(list)
    for source, target, _ in edges:
        if target in nodes and nodes[target].kind != "base":
            needs[source].append(target)
    depth = {key: 0 if node.kind == "plugin" else 1 for key, node in nodes.items()}
    for _ in nodes:  # the longest path has at most as many steps as there are nodes
        moved = False
        for source, targets in needs.items():
            for target in targets:
                if depth[target] <= depth[source] and not _reaches(target, source, needs):
                    depth[target] = depth[source] + 1
                    moved = True
        if not moved:
            break
    last = max((depth[key] for key, node in nodes.items() if node.kind != "base"), default=0) + 1
    columns: list[list[str]] = [[] for _ in range(last + 1)]
    for key, node in nodes.items():
        columns[last if node.kind == "base" else depth[key]].append(key)
    return [sorted(column) for column in columns if column]


def _reaches(start: str, end: str, needs: Mapping[str, list[str]]) -> bool:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        key = waiting.pop()
        if key == end:
            return True
        if key not in seen:
            seen.add(key)
            waiting += needs.get(key, ())
    return False


def _ordered(columns: list[list[str]], edges: list[tuple[str, str, str]]) -> list[list[str]]:
    """Sort each column by the mean position of its neighbours, in several sweeps, so that fewer lines cross."""
    near = defaultdict(list)
    for source, target, _ in edges:
        near[source].append(target)
        near[target].append(source)
    place = {key: (i + 0.5) / len(column) for column in columns for i, key in enumerate(column)}
    for sweep in range(_SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            known = {key: [place[other] for other in near[key] if other in place] for key in column}
            column.sort(key=lambda key: (sum(known[key]) / len(known[key]) if known[key] else place[key], key))
            place.update({key: (i + 0.5) / len(column) for i, key in enumerate(column)})
    return columns


def _boxes(columns: list[list[str]], nodes: Mapping[str, _Node]) -> dict[str, _Box]:
    """The boxes: columns from left to right, each centred on the tallest."""
    tallest = max((len(column) for column in columns), default=0)
    boxes = {}
    x = _MARGIN
    for column in columns:
        width = max(len(_short(nodes[key].label)) for key in column) * _CHARACTER + 28
        y = _MARGIN + (tallest - len(column)) * (_HEIGHT + _GAP) / 2
        for key in column:
            boxes[key] = _Box(node=nodes[key], x=x, y=y, width=width)
            y += _HEIGHT + _GAP
        x += width + _BETWEEN
    return boxes


def _lines(boxes: Mapping[str, _Box], edges: list[tuple[str, str, str]]) -> Iterator[str]:
    for source, target, specifier in edges:
        if source not in boxes or target not in boxes:
            continue
        start, end = boxes[source], boxes[target]
        x1, y1 = start.x + start.width, start.y + _HEIGHT / 2
        x2, y2 = end.x, end.y + _HEIGHT / 2
        bend = max(abs(x2 - x1) / 2, _BETWEEN / 2)
        name = f"{start.node.label} needs {end.node.label}{f' ({specifier})' if specifier else ''}"
        yield (
            f'<path class="edge {end.node.kind}" d="M{x1:.1f} {y1:.1f} C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} '
            f'{y2:.1f} {x2:.1f} {y2:.1f}"><title>{escape(name)}</title></path>'
        )


def _box(box: _Box) -> str:
    node = box.node
    mark = {"fail": "✖ ", "warn": "▲ "}.get(node.level, "")
    classes = " ".join(filter(None, ("node", node.kind, node.level)))
    return (
        f'<g class="{classes}"><title>{escape(node.label)}</title>'
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{_HEIGHT:.0f}" rx="7"/>'
        f'<text x="{box.x + box.width / 2:.1f}" y="{box.y + _HEIGHT / 2 + 4:.1f}">'
        f"{escape(mark + _short(node.label))}</text></g>"
    )


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
