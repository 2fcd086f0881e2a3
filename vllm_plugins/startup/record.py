"""Frozen values for what every vLLM process, or every command, loads: their classes are made in microseconds.

A named tuple or a dataclass compiles text for each class, which takes half a millisecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, dataclass_transform

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Record"]


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """A subclass names its fields, and what they are by default, as a dataclass does.

    Two of one class with the same values are equal.
    """

    def __init__(self, **fields: Any) -> None:
        kind = type(self)
        known = kind.__annotations__.keys()
        if fields.keys() != known:
            if unknown := fields.keys() - known:
                raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}")
            if missing := [name for name in known - fields.keys() if not hasattr(kind, name)]:
                raise TypeError(f"{kind.__name__} needs {', '.join(sorted(missing))}")
        self.__dict__.update(fields)

    def replace(self, **fields: Any) -> Self:
        """The same with other values in some fields."""
        return type(self)(**{**self.to_dict(), **fields})

    def to_dict(self) -> dict[str, Any]:
        """The values of all fields by their names."""
        return {name: getattr(self, name) for name in type(self).__annotations__}

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in type(self).__annotations__)

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        named = zip(type(self).__annotations__, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in named)})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} can't be set")
