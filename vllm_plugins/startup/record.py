"""Frozen values whose classes are defined in microseconds.

Only for the modules that a start which is up to date loads: a named tuple or a dataclass compiles source text for
each class, which takes half a millisecond. Everything else is a dataclass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, dataclass_transform

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Record"]


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """The base of a frozen value. A subclass declares fields and defaults as a dataclass does.

    Two records of one class with the same values are equal. The type checker sees the fields; ``__init__`` takes them
    as keywords and checks their names.
    """

    def __init__(self, **fields: Any) -> None:
        kind = type(self)
        known = kind.__annotations__.keys()
        if fields.keys() != known:
            if unknown := fields.keys() - known:
                raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}")
            if missing := [name for name in known - fields.keys() if not hasattr(kind, name)]:
                raise TypeError(f"{kind.__name__} requires {', '.join(sorted(missing))}")
        self.__dict__.update(fields)

    def replace(self, **fields: Any) -> Self:
        """A copy with other values in some fields."""
        return type(self)(**{**self.to_dict(), **fields})

    def to_dict(self) -> dict[str, Any]:
        """The values of all fields, by name."""
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
