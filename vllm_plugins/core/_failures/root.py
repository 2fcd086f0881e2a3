"""The root of all errors: its parts, as text for people and as data for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vllm_plugins.core._failures.requirers import as_data
from vllm_plugins.core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

__all__ = ["PluginsError"]

_PARTS = ("where", "expected", "found", "required_by")
_TEXTS = {"required_by": "required_by_text"}  # the key of a text, where JSON has the part as data, too


class PluginsError(Exception):
    """The root of all errors that this package raises on purpose.

    ``id`` names the kind of error. It is printed with the message, and has a section in the documentation.
    """

    exit_code: ClassVar[int] = 1
    id: ClassVar[str] = "failure"

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        required_by: str | None = None,
        details: Sequence[str] = (),
        next_step: str | None = None,
    ) -> None:
        super().__init__(what)
        self.where, self.required_by = where, required_by
        self.expected, self.found = expected, found
        self.what, self.details = what, tuple(details)
        self.next_step = next_step

    def __str__(self) -> str:
        return self.text(self.next_step)

    def text(self, next_step: str | None) -> str:
        """The error for people, with this next step. What others wrote can't add a line that looks like ours."""
        lines = [f"{self.what} [{self.id}]"]
        fields = {name: getattr(self, name) for name in _PARTS}
        lines += [f"  {name.replace('_', ' ')}: {value}" for name, value in fields.items() if value is not None]
        lines.extend(f"  {detail}" for detail in self.details)
        if next_step is not None:
            lines.append(f"  next: {next_step}")
        return printable("\n".join(line.replace("\n", "\n    ") for line in lines))

    def to_dict(self) -> dict[str, object]:
        """The error as data for JSON, without its empty fields."""
        fields: dict[str, object] = {"error": self.id, "exit_code": self.exit_code, "what": self.what}
        fields |= {name: getattr(self, name) for name in _PARTS}
        fields |= {**as_data(self.required_by), "details": list(self.details) or None, "next_step": self.next_step}
        return {key: value for key, value in fields.items() if value is not None}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> PluginsError:
        """The error that :meth:`to_dict` wrote, usually in another process.

        Raises:
            KeyError, TypeError: the data is not of an error.
        """
        if not isinstance(data, dict):
            raise TypeError("an error is an object")
        fields = {name: data.get(_TEXTS.get(name, name)) for name in (*_PARTS, "next_step")}
        details = data.get("details") or []
        texts = [data["what"], *details, *(value for value in fields.values() if value is not None)]
        if not isinstance(details, list) or not all(isinstance(text, str) for text in texts):
            raise TypeError("the parts of an error are texts")
        return _by_id(PluginsError).get(data["error"], PluginsError).from_parts(data["what"], details, fields)

    @classmethod
    def from_parts(cls, what: str, details: Sequence[str], fields: Mapping[str, str | None]) -> Self:
        """An error of this kind from its parts, as :meth:`from_dict` reads them."""
        return cls(what, details=details, **fields)


def _by_id(root: type[PluginsError]) -> dict[str, type[PluginsError]]:
    """A class and all classes below it, by their ids."""
    kinds = {root.id: root}
    for kind in root.__subclasses__():
        kinds |= _by_id(kind)
    return kinds
