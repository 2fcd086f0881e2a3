"""An audit as one HTML page that needs no script, no other file and no network.

The content comes from strangers, so all of it is escaped, and the page's security policy forbids everything else.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from vllm_plugins import __version__
from vllm_plugins.core.humanize import count, size
from vllm_plugins.core.printable import printable
from vllm_plugins.review import _graph_svg
from vllm_plugins.startup.settings import WHEELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vllm_plugins.documents.lock import Lock, Package, Plugin, Target, Wheel
    from vllm_plugins.review.audit import Audit, Facts

__all__ = ["render"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_NOTE = "Publishers are those that the index names in attestations. Their signatures were not verified."
_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #16191f; --soft: #5b6472; --line: #dde1e7;
  --accent: #2f5bd0; --fail: #b3261e; --fail-back: #fdecea; --warn: #8a5a00; --warn-back: #fff4dc; --well: #1c6e3d;
  --well-back: #e6f5ec; }
@media (prefers-color-scheme: dark) { :root { --page: #101317; --card: #181c22; --text: #e8eaee; --soft: #9aa4b2;
  --line: #2c333d; --accent: #8fb0ff; --fail: #ff9c94; --fail-back: #3a1a18; --warn: #f2c463; --warn-back: #33270f;
  --well: #7fd8a2; --well-back: #14301f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.55 system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 40px 0 12px; }
p { margin: 0 0 12px; } p.foot { margin-top: 40px; } .soft { color: var(--soft); }
code, td.code, .node text { font-family: ui-monospace, "SF Mono", "DejaVu Sans Mono", monospace; font-size: 13px; }
code, td { overflow-wrap: anywhere; }
.verdict { display: inline-block; margin: 16px 0 0; padding: 8px 16px; border-radius: 8px; font-weight: 600; }
.verdict.fail, .tag.fail { color: var(--fail); background: var(--fail-back); }
.verdict.warn, .tag.warn { color: var(--warn); background: var(--warn-back); }
.verdict.well { color: var(--well); background: var(--well-back); }
.tag { display: inline-block; padding: 1px 9px; border-radius: 99px; font-size: 13px; font-weight: 600;
  white-space: nowrap; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow-x: auto; }
figure { margin: 0; padding: 16px; } svg { display: block; margin: 0 auto; }
table { border-collapse: collapse; width: 100%; } caption { position: absolute; clip-path: inset(50%); }
th { text-align: left; font-size: 13px; font-weight: 600; color: var(--soft); }
th, td { padding: 10px 16px; vertical-align: top; border-top: 1px solid var(--line); min-width: 90px; }
details ul { margin: 6px 0 0; padding-left: 18px; } summary { cursor: pointer; }
thead th { border-top: 0; } td .next { display: block; color: var(--soft); font-size: 13px; }
.edge { fill: none; stroke: var(--soft); stroke-opacity: .55; stroke-width: 1.3; }
.edge.base { stroke-dasharray: 4 4; }
.node rect { fill: var(--card); stroke: var(--soft); stroke-width: 1.2; }
.node text { fill: var(--text); font-size: 12px; text-anchor: middle; }
.node.plugin rect { fill: var(--accent); stroke: var(--accent); }
.node.plugin text { fill: var(--card); font-weight: 700; }
.node.base rect { stroke-dasharray: 4 4; fill: var(--page); }
.node.fail rect { stroke: var(--fail); fill: var(--fail-back); stroke-width: 2; }
.node.warn rect { stroke: var(--warn); fill: var(--warn-back); stroke-width: 2; }
@media (max-width: 640px) { main { padding: 24px 14px 48px; } h1 { font-size: 23px; } th, td { padding: 8px 12px; } }
@media print { body { background: #fff; } .card { overflow: visible; } svg { max-width: 100%; height: auto; }
  tr { break-inside: avoid; } }
"""


def render(lock: Lock, audit: Audit) -> str:
    """The page as a complete HTML document."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>Plugins for vLLM: audit</title><style>{_STYLE}</style></head><body><main>",
        *_head(lock, audit),
        *_findings(audit),
        *_plugins(lock),
        *_overrides(lock),
        *_hooks(lock),
        *_graph(lock, audit),
        *_packages(lock, audit),
        *_base(lock),
        f'<p class="soft foot">Written by vllm-plugin-manager {escape(__version__)}. {_NOTE}</p>',
        "</main></body></html>",
    ]
    # Marks of direction would make a name look like another one in a browser, too.
    return printable("\n".join(parts)) + "\n"


def _head(lock: Lock, audit: Audit) -> Iterator[str]:
    failures = sum(item.level == "fail" for item in audit.findings) + sum(item.demanded for item in audit.not_run)
    warnings = sum(item.level == "warn" for item in audit.findings)
    kind, words = "well", "✓ Passes: no findings"
    if warnings:
        kind, words = "warn", f"▲ Passes with {count(warnings, 'warning')}"
    if failures:
        kind, words = "fail", f"✖ Fails: {count(failures, 'failure')}, {count(warnings, 'warning')}"
    yield "<h1>Plugins for vLLM: audit</h1>"
    sizes = f"{count(len(lock.plugins), 'plugin')}, {count(len(lock.packages), 'package')}"
    yield f'<p class="soft">{sizes}, for {escape("; ".join(map(_target, lock.targets)) or "no base")}</p>'
    yield f'<p class="verdict {kind}">{escape(words)}</p>'


def _findings(audit: Audit) -> Iterator[str]:
    yield "<h2>Findings</h2>"
    if audit.findings:
        rows = [
            (
                f'<span class="tag {item.level}">{"✖ fails" if item.level == "fail" else "▲ warns"}</span>',
                f"<code>{escape(item.check)}</code>",
                f"<code>{escape(item.package)} {escape(item.version)}</code>",
                f'{escape(item.what)}<span class="next">next: {escape(item.next_step)}</span>',
                escape(", ".join(item.required_by)),
            )
            for item in audit.findings
        ]
        yield _table("Findings", ("Level", "Check", "Package", "What", "Needed by"), rows)
    else:
        yield "<p>None.</p>"
    if audit.not_run:
        yield "<h2>Not run</h2>"
        missed = [
            (
                f"<code>{escape(item.check)}</code>",
                f"<code>{escape(item.package)}</code>" if item.package else "all",
                escape(item.why),
                "✖ required" if item.demanded else "",
            )
            for item in audit.not_run
        ]
        yield _table("Checks that did not run", ("Check", "Package", "Why", ""), missed)


def _plugins(lock: Lock) -> Iterator[str]:
    yield "<h2>Plugins</h2>"
    rows = [
        (
            f"<strong>{escape(plugin.name)}</strong>",
            f"<code>{escape(plugin.package)} {escape(plugin.version)}</code>",
            _origin(plugin, lock),
        )
        for plugin in lock.plugins
    ]
    yield _table("Plugins", ("Plugin", "Package", "Source"), rows)


def _origin(plugin: Plugin, lock: Lock) -> str:
    if plugin.provided:
        return f"provided by the vLLM environment, requested as <code>{escape(plugin.requested)}</code>"
    if plugin.commit is not None:
        below = f", in <code>{escape(plugin.subdirectory)}</code>" if plugin.subdirectory else ""
        ref = f"<code>{escape(plugin.requested)}</code> = commit <code>{escape(plugin.commit)}</code>"
        return f"git <code>{escape(plugin.url or '')}</code>, {ref}{below}"
    if plugin.source == "pypi":
        package = lock.package(plugin.package)
        index = package.index if package is not None else None
        return (
            f"index <code>{escape(index or 'unknown')}</code>, requested as <code>{escape(plugin.requested)}</code>"
        )
    return f"{'editable directory' if plugin.editable else 'directory'} <code>{escape(plugin.requested)}</code>"


def _overrides(lock: Lock) -> Iterator[str]:
    """The packages that override those of the base, in red."""
    if not lock.overrides:
        return
    yield "<h2>Overrides</h2>"
    rows = [
        (
            f'<span class="tag fail">✖ overrides</span> <code>{escape(item.package)} {escape(item.replaces)}</code>',
            f"<code>{escape(item.package)} {escape(item.version)}</code>",
            escape(item.reason),
            escape(", ".join(f"{who} ({specifier})" for who, specifier in item.against)) or "—",
        )
        for item in lock.overrides
    ]
    yield _table("Overrides", ("Of the vLLM environment", "By", "Reason", "Old version required by"), rows)


def _hooks(lock: Lock) -> Iterator[str]:
    yield "<h2>Entry points in vLLM</h2>"
    points = sorted(
        (group, name, value, plugin.name) for plugin in lock.plugins for group, name, value in plugin.entry_points
    )
    if not points:
        yield "<p>None: no plugin has an entry point in vLLM's groups.</p>"
        return
    rows = [
        (
            f"<code>{escape(group)}</code>",
            f"<code>{escape(name)}</code>",
            f"<code>{escape(value)}</code>",
            escape(who),
        )
        for group, name, value, who in points
    ]
    yield _table("Entry points", ("Group", "Name", "Object", "Plugin"), rows)


def _graph(lock: Lock, audit: Audit) -> Iterator[str]:
    levels = {item.package: item.level for item in reversed(audit.findings)}
    yield "<h2>Dependencies</h2>"
    yield '<p class="soft">Plugins at the left, then the packages that they need. Base packages are dashed.</p>'
    yield f'<figure class="card" tabindex="0">{_graph_svg.svg(lock, levels)}</figure>'


def _packages(lock: Lock, audit: Audit) -> Iterator[str]:
    facts = {fact.package: fact for fact in audit.facts}
    yield "<h2>Packages</h2>"
    rows = []
    for package in lock.packages:
        fact: Facts | None = facts.get(package.name)
        rows.append(
            (
                f"<code>{escape(package.name)} {escape(package.version)}</code>",
                escape((fact.license if fact else None) or "unknown"),
                escape((fact.uploaded if fact else None) or "—"),
                escape(", ".join(fact.publishers) if fact else "") or "—",
                _files(package),
            )
        )
    yield _table("Packages", ("Package", "Licence", "Uploaded", "Publisher", "Files"), rows)


def _files(package: Package) -> str:
    """The wheels with their hashes, folded."""
    if package.directory is not None:
        return f"editable: <code>{escape(package.directory)}</code>, no hash"
    wheels = "".join(
        f"<li><code>{escape(wheel.filename)}</code>, {size(wheel.size)}, from "
        f"<code>{escape(_from(package, wheel))}</code><br><code>sha256:{escape(wheel.sha256)}</code></li>"
        for wheel in package.wheels
    )
    return f"<details><summary>{count(len(package.wheels), 'wheel')}</summary><ul>{wheels}</ul></details>"


def _from(package: Package, wheel: Wheel) -> str:
    return wheel.url or package.sdist_url or f"{WHEELS}/{wheel.filename}"


def _base(lock: Lock) -> Iterator[str]:
    yield "<h2>Target environment</h2>"
    for target in lock.targets:
        yield (
            f"<p>{escape(_target(target))}. Packages used from it:</p>"
            if target.base
            else f"<p>{escape(_target(target))}.</p>"
        )
        rows = [
            (
                f"<code>{escape(use.name)} {escape(use.version)}</code>",
                escape(", ".join(f"{who} ({asked or 'any'})" for who, asked in use.required_by)),
            )
            for use in target.base
        ]
        if rows:
            yield _table("Packages used from the base", ("Package", "Required by"), rows)


def _target(target: Target) -> str:
    return target.kind + (f" with vLLM {target.vllm}" if target.vllm else "")


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. Its cells are HTML; caption and head are text."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="card" tabindex="0"><table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
