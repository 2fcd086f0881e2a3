"""``targets:`` of plugins.yaml: the environments that one lock is for, each with a name.

A lock with targets contains, for each, what a lock for it alone would contain.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from yaml.nodes import MappingNode, SequenceNode

from vllm_plugins.core.errors import UsageError
from vllm_plugins.documents._lock import values
from vllm_plugins.documents._manifest import rules
from vllm_plugins.documents._manifest.rules import quoted
from vllm_plugins.documents._yaml import Fields, describe, line
from vllm_plugins.startup import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from yaml.nodes import Node

    from vllm_plugins.documents._yaml import Problems

__all__ = ["HERE", "PLATFORM", "RequestedTarget", "is_release", "of_options", "read"]

HERE = "here"
MOST = 16
PLATFORM = re.compile(r"(linux|macosx-[0-9]+\.[0-9]+)-[a-z0-9_]+")
_OPTION = re.compile(
    r"(?P<name>[^=]*)=(?P<base>.*?)(?:,python=(?P<python>[^,]*))?(?:,platform=(?P<platform>[^,]*))?", re.DOTALL
)
_FORM = "NAME=BASE, and after it ,python=3.12 or ,platform=linux-aarch64 where BASE is a release of vLLM"
_RELEASE = re.compile(r"\s*[A-Za-z0-9._-]+\s*(\[.*\])?\s*[=<>!~]=")


class RequestedTarget(Record):
    """One entry. ``base`` is ``here``, the path of a snapshot as in the file, or a release such as ``vllm==0.32.0``.

    ``python`` (``3.12``) and ``platform`` (``linux-aarch64``) say for which kind of machine a release is resolved. Of
    the other bases they are checked. ``is_option``: it is from the command line, not from the file, and its path is
    absolute.
    """

    name: str
    base: str = HERE
    python: str | None = None
    platform: str | None = None
    line: int = 1
    is_option: bool = False

    @property
    def option(self) -> str:
        """The value of ``--target`` that locks this target on another machine."""
        return f"{self.name}=BASE" if self.is_option else self.name

    @property
    def request(self) -> Mapping[str, str | None]:
        """What of the entry counts, by the keys of the file."""
        return {"base": self.base, "python": self.python, "platform": self.platform}


def is_release(text: str) -> bool:
    """Whether a base is a release of vLLM, and not a path."""
    return _RELEASE.match(text) is not None


def read(node: Node, problems: Problems) -> tuple[RequestedTarget, ...]:
    """The targets in a node; their problems are added to ``problems``."""
    if not isinstance(node, SequenceNode):
        problems.add(node, "targets", f"expected a list of mappings with name and base, found {describe(node)}")
        return ()
    if not node.value or len(node.value) > MOST:
        what = (
            f"expected 1 to {MOST} targets, found {len(node.value)}; for this environment alone, remove the key and "
        )
        what += "run vllm-plugins lock --base here"
        problems.add(node, "targets", what)
    found: dict[str, RequestedTarget] = {}
    same: dict[tuple[str | None, ...], RequestedTarget] = {}
    for number, item in enumerate(node.value):
        where = f"targets[{number}]"
        if not isinstance(item, MappingNode):
            problems.add(item, where, f"expected a mapping with name and base, found {describe(item)}")
            continue
        target = _target(item, where, problems)
        if target is None:
            continue
        first = found.setdefault(target.name, target)
        if first is not target:
            problems.add(item, f"{where}.name", f"{quoted(target.name)} is also in line {first.line}; change one")
        twin = same.setdefault(tuple(target.request.values()), target)
        if twin is not target and first is target:
            what = f"the same environment as target {quoted(twin.name)} in line {twin.line}; remove one"
            problems.add(item, where, what)
    return tuple(found.values())


def of_options(words: Iterable[str]) -> tuple[RequestedTarget, ...]:
    """The targets that the values of ``--target`` name with their bases.

    Raises:
        UsageError: a value is not valid, or two have one name.
    """
    found: dict[str, RequestedTarget] = {}
    for word in words:
        target = _of_option(word)
        if found.setdefault(target.name, target) is not target:
            raise UsageError(
                f"two targets have the name {target.name!r}",
                found=f"--target {word}",
                next_step="give each --target a name of its own",
            )
    return tuple(found.values())


def _of_option(word: str) -> RequestedTarget:
    match = _OPTION.fullmatch(word)
    fields = match.groupdict() if match is not None else {}
    checks = {"name": _name, "base": _base, "python": _python, "platform": _platform}
    problems = [
        f"{key}: {problem}"
        for key, check in checks.items()
        if (value := fields.get(key)) is not None and (problem := check(value)) is not None
    ]
    if problems or not fields.get("base"):
        raise UsageError(
            "--target has an invalid value",
            expected=_FORM,
            found=word,
            details=problems,
            next_step="give the target a name and a base, as in --target dev=here --target production=base.json",
        )
    base = fields["base"]
    if base != HERE and not is_release(base):
        base = os.path.abspath(os.path.expanduser(base))
    return RequestedTarget(
        name=fields["name"], base=base, python=fields["python"], platform=fields["platform"], is_option=True
    )


def _target(node: MappingNode, where: str, problems: Problems) -> RequestedTarget | None:
    fields = Fields(node, where, problems)
    fields.unknown(("name", "base", "python", "platform"))
    name = fields.text("name", _name, required="a unique name")
    required = "here, the path of a snapshot, or a release such as vllm==0.32.0"
    base = fields.text("base", _base, required=required)
    python, platform = fields.text("python", _python), fields.text("platform", _platform)
    if name is None or base is None:
        return None
    return RequestedTarget(name=name, base=base, python=python, platform=platform, line=line(node))


def _name(text: str) -> str | None:
    wrong = rules.name(text)
    return None if wrong is None else wrong.replace("plugin name", "name of a target")


def _base(text: str) -> str | None:
    return None if text == HERE or is_release(text) else rules.path(text)


def _python(text: str) -> str | None:
    if values.PYTHON.fullmatch(text):
        return None
    return f"{quoted(text)} is not a valid minor version of Python; write it as in '3.12'"


def _platform(text: str) -> str | None:
    if PLATFORM.fullmatch(text):
        return None
    return f"{quoted(text)} is not a valid platform; write it as in linux-x86_64 or linux-aarch64"
