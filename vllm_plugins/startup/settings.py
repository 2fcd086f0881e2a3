"""The environment variables, and the paths that they choose, as a frozen value.

No other module reads or sets a variable of ours or of vLLM in this process's environment. Settings come from a
mapping; what a process tells the processes that it starts (:func:`inherited`, :func:`pass_on`) goes through that
environment. A variable of another program (``PIP_…``, ``UV_…``) or of the system (``PATH``, ``PYTHONPATH``,
``SOURCE_DATE_EPOCH``) is read where it is used.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.startup import Record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal, TypeVar

    from vllm_plugins.core.errors import UsageError
    from vllm_plugins.startup.marker import Failure, Marker

    ErrorPolicy = Literal["fail", "previous", "continue"]
    InstallerName = Literal["auto", "pip", "uv"]
    TrustPolicy = Literal["owner", "any"]
    Choice = TypeVar("Choice", bound=str)

__all__ = [
    "Settings",
    "default_lock",
    "home_of",
    "inherited",
    "is_disabled",
    "pass_on",
    "patience",
    "public_urls",
    "register",
]

MANIFEST = "plugins.yaml"
LOCK = "plugins.lock"  # of plugins.yaml, and in each overlay
PYLOCK = "pylock.vllm-plugins.toml"  # of plugins.yaml, too: a name that scanners know (PEP 751)
WHEELS = "plugins.wheels"

# The group in a marker of what vLLM loads by its name (``loads`` in plugins.yaml). vLLM has no group of that name.
LOADS = "loads"
FREE = ("vllm.logits_processors", LOADS)  # VLLM_PLUGINS has no effect on these groups
EXPECT = "VLLM_PLUGIN_EXPECT"  # what every process of a server must have: the first one sets it, or a user does
# All variables that users set. VLLM_PLUGINS is vLLM's own.
VARIABLES: tuple[str, ...] = (
    "VLLM_PLUGIN_AUTO_LOCK",
    "VLLM_PLUGIN_CONFIG",
    "VLLM_PLUGIN_DISABLE",
    EXPECT,
    "VLLM_PLUGIN_FROZEN",
    "VLLM_PLUGIN_INSTALLER",
    "VLLM_PLUGIN_LOCK",
    "VLLM_PLUGIN_OFFLINE",
    "VLLM_PLUGIN_ON_ERROR",
    "VLLM_PLUGIN_OPTIONAL",
    "VLLM_PLUGIN_POLICY",
    "VLLM_PLUGIN_PUBLIC_URLS",
    "VLLM_PLUGIN_REGISTRY_DIR",
    "VLLM_PLUGIN_TIMEOUT",
    "VLLM_PLUGIN_TRUST",
    "VLLM_PLUGIN_VERIFY",
)
# What a vLLM process tells the processes that it starts. vLLM warns of unknown names that begin with VLLM_.
CONFIRMED = "_VLLM_PLUGINS_OVERLAY"  # the overlay that was found to be the right one, and on which node
FALLBACK = "_VLLM_PLUGINS_FALLBACK"  # the overlay that is used instead of the lock's; empty: no plugins
TRIAL = "_VLLM_PLUGINS_TRIAL"  # the overlay whose load check runs alongside, and where its result will be
# The descriptor for the result of a child process of ours. A vendor's ``sitecustomize`` may print to its stdout.
RESULT = "_VLLM_PLUGINS_RESULT"
EXAMINES = "_VLLM_PLUGINS_EXAMINES"  # of a command that examines an overlay, from which no child may import
COMPILED = "_VLLM_PLUGINS_COMPILED"  # never set: the overlay, as a factor of vLLM's compile cache
_DISABLE = "VLLM_PLUGIN_DISABLE"
PATIENCE = 3600  # seconds; the default of VLLM_PLUGIN_TIMEOUT


class Settings(Record):
    """Paths and policies.

    ``manifest``, ``lock``, ``store`` and ``cache_home`` are absolute paths; they need not exist. ``manifest_named``
    and ``lock_named`` say that a variable or an option named the file. ``discovered`` says that the manifest is that
    of the working directory (see ``discovery``). ``optional`` says that both files may be missing all the same.
    ``policy`` is a plugins.yaml whose policy counts, and which says where logins may go, in place of the manifest.
    ``allowed`` is the value of ``VLLM_PLUGINS``: ``None`` allows all entry points. ``ignored`` are groups that vLLM
    does not load, each with the reason. ``log_level`` is the level of vLLM's logger, or ``None`` where the user
    configures logging.
    """

    manifest: Path
    lock: Path
    store: Path
    cache_home: str
    manifest_named: bool = False
    lock_named: bool = False
    discovered: bool = False
    optional: bool = False
    policy: Path | None = None
    on_error: ErrorPolicy = "fail"
    frozen: bool = False
    offline: bool = False
    auto_lock: bool = False
    installer: InstallerName = "auto"
    trust: TrustPolicy = "owner"
    verify: bool = False
    disabled: bool = False
    patience: int = PATIENCE
    allowed: tuple[str, ...] | None = None
    ignored: tuple[tuple[str, str], ...] = ()
    log_level: str | None = "INFO"

    @property
    def cache(self) -> Path | None:
        """The directory that keeps downloads between installations; ``None`` where this user can't write one.

        ``None`` also where another user can write to it: uv installs from unpacked wheels in it as they are.
        """
        from vllm_plugins.core.errors import NotTrusted
        from vllm_plugins.startup import _trust

        parent = Path(self.cache_place)
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _trust.check_paths(self, self.cache_place)
        except (OSError, NotTrusted):
            return None
        return parent if os.access(parent, os.W_OK) else None

    @property
    def cache_place(self) -> str:
        """The path of that directory, whether it is used or not."""
        return os.path.join(self.cache_home, "vllm-plugins")

    @property
    def wheels(self) -> Path:
        """The directory of the wheels that were built while locking: next to the lock."""
        return self.lock.parent / WHEELS

    @property
    def written(self) -> tuple[Path, ...]:
        """The paths that this program writes. In a plugin's directory, they are not part of its source."""
        return tuple(place for path in (self.lock, self.wheels, self.store) for place in {path, path.resolve()})

    def lets_through(self, group: str, name: str) -> bool:
        """Whether vLLM would load an entry point: ``VLLM_PLUGINS`` as ``vllm.plugins`` reads it (0.8.5 to 0.33)."""
        if group in FREE:
            return True
        if self.allowed is None:
            return group != "vllm.endpoint_plugins"
        return name in self.allowed

    def failures(self, marker: Marker, base: str) -> list[Failure]:
        """The failures of a load check with this base that count: those of entry points that vLLM would use."""
        return [
            failure
            for failure in marker.failures
            if failure.base == base and self.lets_through(failure.group, failure.name)
        ]

    def refuses(self, marker: Marker, base: str) -> bool:
        """Whether an overlay that is up to date must not be used: ``sync`` says why, or finds the cause gone."""
        return bool((self.frozen and marker.editable) or self.failures(marker, base))

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        config: str | None = None,
        lock: str | None = None,
        registry_dir: str | None = None,
        policy: str | None = None,
    ) -> Settings:
        """Read the variables. Options of the command line, the keyword arguments, take precedence over them.

        Raises:
            UsageError: a variable has an invalid value, or plugins.yaml has two locks.
        """
        env = os.environ if environ is None else environ
        home = home_of(env)
        manifest_name = config or env.get("VLLM_PLUGIN_CONFIG")
        manifest = Path(_absolute(manifest_name or f"~/.config/vllm/{MANIFEST}", home))
        lock_name = lock or env.get("VLLM_PLUGIN_LOCK")
        store_name = registry_dir or env.get("VLLM_PLUGIN_REGISTRY_DIR")
        policy_name = policy or env.get("VLLM_PLUGIN_POLICY")
        allowed = env.get("VLLM_PLUGINS")
        return cls(
            manifest=manifest,
            lock=Path(_absolute(lock_name, home)) if lock_name else default_lock(manifest),
            store=Path(_absolute(store_name or "~/.local/share/vllm-plugins", home)),
            cache_home=_absolute(env.get("XDG_CACHE_HOME") or "~/.cache", home),
            manifest_named=bool(manifest_name),
            lock_named=bool(lock_name),
            optional=_flag(env, "VLLM_PLUGIN_OPTIONAL"),
            policy=Path(_absolute(policy_name, home)) if policy_name else None,
            on_error=_choice(env, "VLLM_PLUGIN_ON_ERROR", "fail", "previous", "continue"),
            frozen=_flag(env, "VLLM_PLUGIN_FROZEN"),
            offline=_flag(env, "VLLM_PLUGIN_OFFLINE"),
            auto_lock=_flag(env, "VLLM_PLUGIN_AUTO_LOCK"),
            installer=_choice(env, "VLLM_PLUGIN_INSTALLER", "auto", "pip", "uv"),
            trust=_choice(env, "VLLM_PLUGIN_TRUST", "owner", "any"),
            verify=_flag(env, "VLLM_PLUGIN_VERIFY"),
            disabled=_flag(env, _DISABLE),
            patience=patience(env),
            # vllm.envs splits at commas and strips nothing: "" allows only a plugin named "".
            allowed=None if allowed is None else tuple(allowed.split(",")),
            ignored=_ignored(env),
            log_level=None if env.get("VLLM_CONFIGURE_LOGGING") == "0" else env.get("VLLM_LOGGING_LEVEL", "INFO"),
        )


def default_lock(manifest: Path) -> Path:
    """The lock of a manifest where none is named: ``dev.lock`` for ``dev.yaml``.

    No two manifests of a directory share one. ``plugins.yaml`` may have ``PYLOCK`` instead; both are an error.
    """
    name = manifest.name
    lock = manifest.with_name(f"{name.removesuffix('.yaml') or name}.lock")
    if name != MANIFEST or not os.path.lexists(f"{str(manifest)[: -len(name)]}{PYLOCK}"):
        return lock
    other = manifest.with_name(PYLOCK)
    if not os.path.lexists(lock):
        return other
    from vllm_plugins.startup import named_files

    return named_files.one_file(lock, other)


def _ignored(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    if env.get("VLLM_TARGET_DEVICE") == "cpu":  # seen in vLLM 0.28 to 0.33
        found.append(("vllm.platform_plugins", "VLLM_TARGET_DEVICE=cpu"))
    if env.get("VLLM_USE_RUST_FRONTEND", "0") not in ("", "0"):  # seen in vLLM 0.22 to 0.32
        found += [
            (group, "VLLM_USE_RUST_FRONTEND") for group in ("vllm.endpoint_plugins", "vllm.stat_logger_plugins")
        ]
    return tuple(found)


def patience(environ: Mapping[str, str]) -> int:
    """``VLLM_PLUGIN_TIMEOUT``: the seconds that one call of a program that uses the network may take.

    Without a limit, a server that sends its data slowly enough would keep pip, uv or git for ever.

    Raises:
        UsageError: the variable is not a valid number.
    """
    value = environ.get("VLLM_PLUGIN_TIMEOUT")
    if not value:
        return PATIENCE
    if not value.isascii() or not value.isdecimal() or not 0 < len(value.lstrip("0")) < 8:
        raise _invalid("VLLM_PLUGIN_TIMEOUT", value[:80], expected="a whole number of seconds", example="3600")
    return int(value)


def public_urls(environ: Mapping[str, str]) -> bool:
    """``VLLM_PLUGIN_PUBLIC_URLS``: whether URLs of indexes may be written down, whatever their paths look like.

    Raises:
        UsageError: the variable is not a valid flag.
    """
    return _flag(environ, "VLLM_PLUGIN_PUBLIC_URLS")


def is_disabled() -> bool:
    """Whether this process must do nothing: ``VLLM_PLUGIN_DISABLE=1``, whatever the other variables contain."""
    return os.environ.get(_DISABLE) == "1"


def register() -> None:
    """Make our variables known to vLLM, where it is imported: see ``_vllm_process``."""
    if "vllm" in sys.modules:
        from vllm_plugins.startup import _vllm_process

        _vllm_process.register()


def disable() -> None:
    """Let this process, and those that it starts, do nothing from now on."""
    os.environ[_DISABLE] = "1"


def inherited(name: str) -> str | None:
    """What the process that started this one, or this one before, has passed on."""
    return os.environ.get(name)


def pass_on(name: str, value: str | None) -> None:
    """Tell the processes that this one starts; ``None`` takes it back."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def home_of(env: Mapping[str, str]) -> str:
    """The home directory; ``/`` without HOME and without a passwd entry, as an arbitrary user id of a container has.

    ``~`` stays as it is there, and would be a directory of the working directory. Files are looked for in ``/``
    instead, where there are none.
    """
    home = env.get("HOME") or os.path.expanduser("~")
    return home if os.path.isabs(home) else "/"


def _absolute(name: str, home: str) -> str:
    if name == "~" or name.startswith("~/"):
        name = os.path.join(home, name[2:])
    return os.path.abspath(name)


def _choice(env: Mapping[str, str], name: str, *choices: Choice) -> Choice:
    """One of the choices. The first is the default."""
    value = env.get(name)
    if not value:
        return choices[0]
    for choice in choices:
        if choice == value:
            return choice
    raise _invalid(name, value, expected=", ".join(choices), example=choices[0])


def _flag(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name)
    if not value:
        return False
    if value not in ("0", "1"):
        raise _invalid(name, value, expected="0 or 1", example="1")
    return value == "1"


def _invalid(name: str, value: str, *, expected: str, example: str) -> UsageError:
    from vllm_plugins.core.errors import UsageError

    return UsageError(
        f"the environment variable {name} has an invalid value",
        expected=expected,
        found=repr(value),
        next_step=f"unset {name}, or set it to a valid value, as in {name}={example}",
    )
