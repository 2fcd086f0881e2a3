"""What every vLLM process runs. Standard library only.

Here are the logger, the base of frozen values and the id of this machine. A module of its own would cost each start.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
from typing import TYPE_CHECKING, Any, NoReturn, dataclass_transform

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Record", "logger", "machine", "prepare_logging"]

# A child of vLLM's own logger, so that its lines have vLLM's format and process prefix.
logger = logging.getLogger("vllm.plugins.manager")

# vLLM's own format (0.8.5 to 0.33), without the prefix that it gives to each process.
_FORMAT = "%(levelname)s %(asctime)s [%(filename)s:%(lineno)d] %(message)s"
_DATE = "%m-%d %H:%M:%S"
_BOOT = "/proc/sys/kernel/random/boot_id"


def _make_printable(record: logging.LogRecord) -> bool:
    """Escape what others wrote in a line: the output of a program, or the message of a plugin's exception."""
    message = record.getMessage()
    if not message.isprintable():
        from vllm_plugins.core.printable import printable

        record.msg, record.args = printable(message), ()
    return True


def _forget_functions() -> None:
    """Take our functions off the logger, which ``logging`` keeps for good.

    They refer to this package, so to all modules of ours. The interpreter, when it ends, frees at once what nothing
    refers to. It would clear our modules one by one otherwise, which takes longer than importing some of them.
    """
    logger.filters.clear()
    logger.handlers.clear()


logger.addFilter(_make_printable)
atexit.register(_forget_functions)


def prepare_logging(level: str | None) -> None:
    """Give the logger a handler where vLLM has not configured logging yet. ``level`` is ``Settings.log_level``.

    The API server does that after it has parsed its arguments (``vllm.logger.configure_logging``), which is later
    than it resolves the platform: an installation would show no progress. vLLM's own handlers then replace ours.
    """
    if level is None or logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT, _DATE))
    handler.addFilter(lambda _: not (logging.getLogger("vllm").handlers or logging.getLogger().handlers))
    logger.addHandler(handler)
    number = logging.getLevelName(level.upper())
    logger.setLevel(number if isinstance(number, int) else logging.INFO)


def machine() -> str:
    """The boot of this machine, its root file system and its name.

    Two machines may have the same name and the same number of a device. Where the kernel does not tell its id, these
    are all that is known.
    """
    return f"{_boot()}:{os.stat('/').st_dev:x}:{os.uname().nodename}"


@functools.cache
def _boot() -> str:
    try:
        descriptor = os.open(_BOOT, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 64).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """The base of a frozen value whose class is defined in microseconds. It declares its fields as a dataclass does.

    It is for the modules that a start which is up to date, or a command that only looks, loads: a named tuple or a
    dataclass compiles source text for each class, which takes half a millisecond. Everything else is a dataclass.
    It is defined here because a module of its own would cost each start 0.06 ms.

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

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.to_dict().values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} can't be set")
