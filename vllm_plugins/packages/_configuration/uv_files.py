"""uv's configuration as far as it says where packages come from: variables, and uv.toml of user and system.

``[tool.uv]`` and ``uv.toml`` of a project are never read: a working directory doesn't configure anything here.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vllm_plugins.core import regular_file
from vllm_plugins.core.errors import UsageError
from vllm_plugins.packages._configuration import options
from vllm_plugins.packages._net import logins

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["UvConfig", "from_file", "from_variables"]

_PLACES = ("index", "index-url", "extra-index-url", "find-links")


@dataclass(frozen=True, kw_only=True, slots=True)
class UvConfig:
    """Where uv would look. ``ignored`` are keys that would change what it chooses.

    ``only_flat`` says that no index is left, because the default one is a flat one, which is in ``find_links``.
    """

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    insecure_hosts: tuple[str, ...] = ()
    keyring_provider: str | None = None
    system_certs: bool = False
    no_index: bool = False
    only_flat: bool = False
    ignored: tuple[str, ...] = ()

    @property
    def names_an_index(self) -> bool:
        """Whether it says anything of indexes."""
        return self.index_url is not None or bool(self.extra_index_urls) or self.no_index


def from_variables(environ: Mapping[str, str]) -> UvConfig:
    """Read the variables of uv."""
    extra = [_named(item, environ) for item in environ.get("UV_INDEX", "").split()]
    extra += [_located(place) for place in environ.get("UV_EXTRA_INDEX_URL", "").split()]
    default = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL")
    chosen = {key.removeprefix("UV_").lower().replace("_", "-"): key for key in environ if key.startswith("UV_")}
    return UvConfig(
        index_url=_named(default, environ) if default else None,
        extra_index_urls=tuple(extra),
        find_links=tuple(environ.get("UV_FIND_LINKS", "").replace(",", " ").split()),
        insecure_hosts=tuple(environ.get("UV_INSECURE_HOST", "").split()),
        keyring_provider=environ.get("UV_KEYRING_PROVIDER") or None,
        ignored=tuple(sorted(chosen[key] for key in {*options.CHOICE, "override"} & chosen.keys())),
    )


def from_file(environ: Mapping[str, str]) -> UvConfig:
    """Read uv.toml of the user and of the system; the user's keys go first.

    Raises:
        UsageError: a file can't be read.
    """
    if environ.get("UV_NO_CONFIG", "").lower() in ("1", "true", "yes", "on"):
        return UvConfig()
    merged: dict[str, Any] = {}
    for path in _files(environ):
        merged = {**_table(path), **merged}
    listed = merged.get("index")
    every = [item for item in (listed if isinstance(listed, list) else ()) if _is_index(item)]
    # A flat index is a page or a directory of files, which pip calls a place of find-links.
    flat = [item for item in every if item.get("format") == "flat" and not item.get("explicit")]
    indexes = [item for item in every if item.get("format") != "flat"]
    default = next((_with_login(item, environ) for item in indexes if item.get("default")), merged.get("index-url"))
    extra = [_with_login(item, environ) for item in indexes if not item.get("default") and not item.get("explicit")]
    extra += _texts(merged.get("extra-index-url"))
    only_flat = False
    if default is None and any(item.get("default") for item in flat):
        default, only_flat = (extra.pop(0), False) if extra else (None, True)
    return UvConfig(
        index_url=default if isinstance(default, str) else None,
        extra_index_urls=tuple(extra),
        find_links=(*(_with_login(item, environ) for item in flat), *_texts(merged.get("find-links"))),
        insecure_hosts=tuple(_texts(merged.get("allow-insecure-host"))),
        keyring_provider=next(iter(_texts([merged.get("keyring-provider")])), None),
        system_certs=merged.get("system-certs", merged.get("native-tls")) is True,
        no_index=merged.get("no-index") is True or only_flat,
        only_flat=only_flat and merged.get("no-index") is not True,
        ignored=tuple(sorted(f"{key} of uv.toml" for key in options.CHOICE & merged.keys())),
    )


def _files(environ: Mapping[str, str]) -> list[Path]:
    """Return the configuration files that exist, in uv's order."""
    if named := environ.get("UV_CONFIG_FILE"):
        return [Path(named)]
    home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "/nonexistent", ".config"))
    system = [*environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"), "/etc"]
    found = (Path(directory, "uv", "uv.toml") for directory in system if directory)
    files = [home / "uv" / "uv.toml", *([] if environ.get("UV_NO_SYSTEM_CONFIG") else [*found][:2])]
    return [path for path in files if path.is_file()]


def _table(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(regular_file.read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            "uv's configuration can't be read",
            where=str(path),
            found=str(error),
            next_step="fix the file, or set UV_NO_CONFIG=1",
        ) from error
    inner = table.get("pip")
    found = {**table, **inner} if isinstance(inner, dict) else table
    return {key: _placed(value, path.absolute().parent) if key in _PLACES else value for key, value in found.items()}


def _placed(value: Any, directory: Path) -> Any:
    """The value of a key about places: those that are paths count from the directory of the file, as for uv."""
    if isinstance(value, list):
        return [_placed(item, directory) for item in value]
    if isinstance(value, dict) and isinstance(value.get("url"), str):
        return {**value, "url": _located(value["url"], directory)}
    return _located(value, directory) if isinstance(value, str) else value


def _located(place: str, directory: Path | None = None) -> str:
    """The URL of a place, which may be a path; without a directory, it counts from the working directory."""
    if "://" in place or place.startswith(("file:", "~")):
        return place
    return Path(os.path.abspath(os.path.join(directory or "", place))).as_uri()


def _texts(value: Any) -> Iterable[str]:
    return (item for item in (value if isinstance(value, list) else ()) if isinstance(item, str))


def _is_index(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("url"), str)


def _named(item: str, environ: Mapping[str, str]) -> str:
    """Return the URL of ``name=URL``, with the login that variables of that name have."""
    name, equals, url = item.partition("=")
    is_named = equals and name.replace("-", "").replace("_", "").replace(".", "").isalnum()
    return _with_login({"name": name, "url": _located(url)}, environ) if is_named else _located(item)


def _with_login(index: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    url, name = str(index["url"]), str(index.get("name", ""))
    word = "".join(letter if letter.isalnum() else "_" for letter in name).upper()
    user, password = (os.fspath(environ.get(f"UV_INDEX_{word}_{key}", "")) for key in ("USERNAME", "PASSWORD"))
    if not name or not (user or password):
        return url
    try:
        parts = urlsplit(url)
    except ValueError:  # the index can't be read, which says so
        return url
    if parts.scheme not in ("http", "https"):
        return url
    return logins.with_user(url, user, password)
