"""Packages with an index of their own (``indexes`` of plugins.yaml), which the manifest or the lock names.

Such a package is taken from that index alone, and that index is asked for nothing else. pip and uv get its files from
us, so that no other index ever learns its name or can offer another package of it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.redact import public_url
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents.manifest import PypiSource
from vllm_plugins.packages._net import keyring, logins
from vllm_plugins.packages.pip_config import OwnIndex
from vllm_plugins.startup.environment import index_logins

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import Settings

__all__ = ["login_of", "with_lock", "with_manifest"]


def with_manifest(config: PipConfig, manifest: Manifest) -> PipConfig:
    """The configuration with the indexes of the enabled plugins of a manifest."""
    sources = (plugin.source for plugin in manifest.enabled)
    return _with(
        config,
        [
            (canonicalize_name(source.package), index.name, index.url)
            for source in sources
            if isinstance(source, PypiSource) and (index := manifest.index_of(source)) is not None
        ],
    )


def with_lock(config: PipConfig, lock: Lock, settings: Settings) -> PipConfig:
    """The configuration with the indexes of the plugins of a lock.

    Raises:
        LoginRefused: the lock sends a login where ``settings.policy`` does not.
    """
    found = [
        (plugin.package, plugin.index, plugin.index_url)
        for plugin in lock.plugins
        if plugin.index is not None and plugin.index_url is not None
    ]
    manifests.check_indexes(((name, url) for _, name, url in found), settings)
    return _with(config, found)


def login_of(url: str, config: PipConfig) -> str | None:
    """The index of a single package that a URL belongs to, and the variables of its login, for a message."""
    plain = public_url(url)
    own = next((own for own in config.own if plain.startswith(public_url(own.url))), None)
    if own is None:
        return None
    return f"{own.name!r} in plugins.yaml, and its login: {' and '.join(index_logins.variables(own.name))}"


def _with(config: PipConfig, found: Iterable[tuple[NormalizedName, str, str]]) -> PipConfig:
    own = [OwnIndex(package=package, name=name, url=_with_login(config, name, url)) for package, name, url in found]
    return replace(config, own=tuple(own)) if own else config


def _with_login(config: PipConfig, name: str, url: str) -> str:
    """The URL with the login of its variables, or else of the keyring that pip is configured with.

    A login in netrc is found when a request is made.
    """
    user, password = index_logins.login(name, os.environ)
    if user or password:
        return logins.with_user(url, user, password)
    return keyring.with_login(url, config.keyring_provider)
