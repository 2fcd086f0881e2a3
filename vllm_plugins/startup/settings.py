"""The environment variables and the paths they choose, read once, as a frozen value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.startup.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal, TypeVar

    from vllm_plugins.core.errors import UsageError
    from vllm_plugins.startup.marker import Marker

    ErrorPolicy = Literal["fail", "previous", "continue"]
    InstallerName = Literal["auto", "pip", "uv"]
    TrustPolicy = Literal["owner", "any"]
    Choice = TypeVar("Choice", bound=str)

__all__ = ["Settings", "patience"]

MANIFEST = "plugins.yaml"
LOCK = "plugins.lock"
WHEELS = "plugins.wheels"

# What vLLM loads by its name (``loads`` in plugins.yaml) has this group in a marker; it is no group of vLLM's.
LOADS = "loads"
# VLLM_PLUGINS has no effect on these groups.
FREE = ("vllm.logits_processors", LOADS)


# All variables of ours. VLLM_PLUGINS is vLLM's own.
VARIABLES = tuple(
    f"VLLM_PLUGIN_{name}"
    for name in (
        *("CONFIG", "LOCK", "REGISTRY_DIR", "ON_ERROR", "FROZEN", "OFFLINE", "AUTO_LOCK", "INSTALLER", "TRUST"),
        *("VERIFY", "DISABLE", "TIMEOUT"),
    )
)


class Settings(Record):
    """Where things are and what is allowed.

    ``manifest``, ``lock`` and ``store`` are absolute; they need not exist. ``manifest_named`` says that
    ``VLLM_PLUGIN_CONFIG`` (or ``--config``) named the manifest, rather than the default place.
    ``allowed`` is ``VLLM_PLUGINS`` as vLLM reads it (``vllm.envs``): ``None`` allows every entry point.
    """

    manifest: Path
    lock: Path
    store: Path
    cache_home: Path
    manifest_named: bool = False
    on_error: ErrorPolicy = "fail"
    frozen: bool = False
    offline: bool = False
    auto_lock: bool = False
    installer: InstallerName = "auto"
    trust: TrustPolicy = "owner"
    verify: bool = False
    disabled: bool = False
    allowed: tuple[str, ...] | None = None

    @property
    def cache(self) -> Path | None:
        """Where downloads are kept between installations; ``None`` where this user has no such place."""
        parent = self.cache_home / "vllm-plugins"
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            return None
        return parent if os.access(parent, os.W_OK) else None

    @property
    def wheels(self) -> Path:
        """Where the wheels that were built while locking lie: beside the lock."""
        return self.lock.parent / WHEELS

    @property
    def written(self) -> tuple[Path, ...]:
        """What this program writes: no part of any source, though it may lie in a plugin's directory."""
        return tuple(place for path in (self.lock, self.wheels, self.store) for place in {path, path.resolve()})

    def lets_through(self, group: str, name: str) -> bool:
        """Whether vLLM would load that entry point: ``VLLM_PLUGINS``, as ``vllm.plugins`` obeys it."""
        if group in FREE:
            return True
        if self.allowed is None:
            return group != "vllm.endpoint_plugins"
        return name in self.allowed

    def refuses(self, marker: Marker, base: str) -> bool:
        """Whether what is in step must not start all the same: ``sync`` then says why, or finds it mended."""
        return bool(self.frozen and marker.editable) or any(
            failure.base == base and self.lets_through(failure.group, failure.name) for failure in marker.failures
        )

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        config: str | None = None,
        lock: str | None = None,
        registry_dir: str | None = None,
    ) -> Settings:
        """Read the ``VLLM_PLUGIN_*`` variables; the keyword arguments (command-line options) go before them.

        Raises:
            UsageError: a variable holds a value that it can't have.
        """
        env = os.environ if environ is None else environ
        home = _home(env)
        named = config or env.get("VLLM_PLUGIN_CONFIG") or None
        manifest = _absolute(named or f"~/.config/vllm/{MANIFEST}", home)
        lock_name = lock or env.get("VLLM_PLUGIN_LOCK")
        store_name = registry_dir or env.get("VLLM_PLUGIN_REGISTRY_DIR")
        allowed = env.get("VLLM_PLUGINS")
        patience(env)  # for who reads it later
        return cls(
            manifest=manifest,
            lock=_absolute(lock_name, home) if lock_name else manifest.parent / LOCK,
            store=_absolute(store_name or "~/.local/share/vllm-plugins", home),
            cache_home=_absolute(env.get("XDG_CACHE_HOME") or "~/.cache", home),
            manifest_named=named is not None,
            on_error=_choice(env, "VLLM_PLUGIN_ON_ERROR", "fail", "previous", "continue"),
            frozen=_flag(env, "VLLM_PLUGIN_FROZEN"),
            offline=_flag(env, "VLLM_PLUGIN_OFFLINE"),
            auto_lock=_flag(env, "VLLM_PLUGIN_AUTO_LOCK"),
            installer=_choice(env, "VLLM_PLUGIN_INSTALLER", "auto", "pip", "uv"),
            trust=_choice(env, "VLLM_PLUGIN_TRUST", "owner", "any"),
            verify=_flag(env, "VLLM_PLUGIN_VERIFY"),
            disabled=_flag(env, "VLLM_PLUGIN_DISABLE"),
            # vllm.envs splits at commas and strips nothing: "" allows only the plugin named "".
            allowed=None if allowed is None else tuple(allowed.split(",")),
        )


def patience(environ: Mapping[str, str]) -> int:
    """``VLLM_PLUGIN_TIMEOUT``: how many seconds one call of a program that uses the network may take.

    A server that goes on sending, however slowly, would keep pip, uv and git for as long as it likes.

    Raises:
        UsageError: the variable holds no such number.
    """
    value = environ.get("VLLM_PLUGIN_TIMEOUT") or "3600"
    if not value.isascii() or not value.isdecimal() or not 0 < len(value.lstrip("0")) < 8:
        raise _meaningless(
            "VLLM_PLUGIN_TIMEOUT", value[:80], expected="a whole number of seconds", mend="one such as 3600"
        )
    return int(value)


def _home(env: Mapping[str, str]) -> str:
    # Without HOME and without a passwd entry (an arbitrary uid in a container) "~" stays as it is; "/" then
    # makes paths that do not exist, which is what "no manifest, no lock" means.
    home = env.get("HOME") or os.path.expanduser("~")
    return home if os.path.isabs(home) else "/"


def _absolute(name: str, home: str) -> Path:
    if name == "~" or name.startswith("~/"):
        name = os.path.join(home, name[2:])
    return Path(os.path.abspath(name))


def _choice(env: Mapping[str, str], name: str, *choices: Choice) -> Choice:
    """One of the choices; the first of them is what an unset variable means."""
    value = env.get(name) or choices[0]
    for choice in choices:
        if choice == value:
            return choice
    raise _meaningless(name, value, expected=", ".join(choices), mend="one of them")


def _flag(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name) or "0"
    if value not in ("0", "1"):
        raise _meaningless(name, value, expected="0 or 1", mend="0 or 1")
    return value == "1"


def _meaningless(name: str, value: str, *, expected: str, mend: str) -> UsageError:
    from vllm_plugins.core.errors import UsageError

    return UsageError(
        f"{name} has a value without meaning",
        expected=expected,
        found=repr(value),
        next_step=f"set {name} to {mend}, or unset it",
    )
