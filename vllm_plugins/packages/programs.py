"""pip and uv as programs: which of their configuration reaches them, and their environment.

Only configuration that says where packages come from reaches pip and uv. Configuration that changes what is
installed, or where, does not: the lock and our command lines decide that. Both programs run without their
configuration files and variables, and get the honoured keys from :class:`pip_config.PipConfig`. So pip, uv and our
own requests always look at the same places.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from vllm_plugins.core import process, regular_file
from vllm_plugins.core.errors import SourceError
from vllm_plugins.core.redact import public_url
from vllm_plugins.packages import simple_api
from vllm_plugins.packages._configuration import options
from vllm_plugins.startup.environment import index_logins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from vllm_plugins.packages.pip_config import PipConfig

__all__ = ["PIP", "PIP_COMPILE", "UNKNOWN", "pip_environment", "uv_environment"]

# An index that lacks a name answers so: pip goes on with the next index.
UNKNOWN = (401, 403, 404, 410)
PIP: tuple[str, ...] = (*process.PYTHON, "-m", "pip")
PIP_COMPILE: tuple[str, ...] = (*process.PYTHON, "-m", "piptools", "compile")
# Variables that are read into PipConfig, which has their effect.
_READ = frozenset(
    {
        "UV_DEFAULT_INDEX",
        "UV_EXTRA_INDEX_URL",
        "UV_FIND_LINKS",
        "UV_INDEX",
        "UV_INDEX_URL",
        "UV_INSECURE_HOST",
        "UV_KEYRING_PROVIDER",
    }
)
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tlz", ".tar.lz")
_PROXIES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "http_proxy", "https_proxy")
# Colours and interpreters of the shell, and pip-tools' own variable for a comment.
_DROPPED = ("CUSTOM_COMPILE_COMMAND", "FORCE_COLOR", "CLICOLOR_FORCE", "VIRTUAL_ENV")


def pip_environment(config: PipConfig, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of pip and pip-compile: no configuration of pip except the honoured keys.

    URLs are passed here rather than as arguments, which every user of the machine can read.

    Raises:
        SourceError: a directory of find-links has a pipe or a device in place of a file.
    """
    _check_links(config.find_links)
    ours = {
        "PIP_INDEX_URL": config.index_url or "",
        "PIP_EXTRA_INDEX_URL": " ".join(config.extra_index_urls),
        "PIP_NO_INDEX": "1" if config.index_url is None else "",
        "PIP_FIND_LINKS": " ".join(config.find_links),
        "PIP_TRUSTED_HOST": " ".join(config.trusted_hosts),
        "PIP_CERT": config.cert or "",
        "PIP_CLIENT_CERT": config.client_cert or "",
        "PIP_PROXY": config.proxy or "",
        "PIP_NO_PROXY_ENV": "1" if config.no_proxy_env else "",
        "PIP_TIMEOUT": f"{config.timeout:g}",
        "PIP_RETRIES": str(config.retries),
        "PIP_UPLOADED_PRIOR_TO": config.uploaded_before or "",
        "PIP_KEYRING_PROVIDER": config.keyring_provider or "",
        "PIP_CONFIG_FILE": os.devnull,  # pip then reads no configuration file at all
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "NO_COLOR": "1",
        "PYTHONUTF8": "1",  # pip decodes file: URLs as UTF-8, and encodes their paths as the locale says
    }
    kept = _kept(config, environ)
    return {**kept, **{key: value for key, value in ours.items() if value}}


def uv_environment(config: PipConfig, directory: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of uv: no configuration of uv except the honoured keys.

    ``directory`` is one of ours, where uv will run. ``--no-index`` has no variable: without an index, the caller adds
    it to the command line. Raises as :func:`pip_environment`.
    """
    _check_links(config.find_links)
    environ = os.environ if environ is None else environ
    places = _several(config, directory) if len(config.indexes) > 1 else _one(config)
    passed = {key: value for key, value in environ.items() if key in options.UV_VARIABLES - _READ}
    ours = {
        # pip looks at all indexes alike; uv would stop at the first that has the name. Hashes make either safe.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_HTTP_TIMEOUT": str(max(1, round(config.timeout))),
        "UV_HTTP_RETRIES": str(config.retries),
        "UV_SYSTEM_CERTS": "true" if config.system_certs else "",
        **passed,
        **places,
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_EXCLUDE_NEWER": config.uploaded_before or "",
        "UV_FIND_LINKS": ",".join(_directories(config.find_links, directory)),
        "UV_INSECURE_HOST": " ".join(config.trusted_hosts),
        # The logins of a keyring are in the URLs already. uv knows one of pip's two providers.
        "UV_KEYRING_PROVIDER": "subprocess" if config.keyring_provider == "subprocess" else "",
        "SSL_CERT_FILE": config.cert or "",
        "SSL_CLIENT_CERT": config.client_cert or "",
        **(
            {"ALL_PROXY": config.proxy, "HTTP_PROXY": config.proxy, "HTTPS_PROXY": config.proxy}
            if config.proxy
            else {}
        ),
        "NO_COLOR": "1",
    }
    kept = _kept(config, environ)
    return {**kept, **{key: value for key, value in ours.items() if value}}


def _one(config: PipConfig) -> dict[str, str]:
    return {"UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": config.index_url or ""}


def _several(config: PipConfig, directory: Path) -> dict[str, str]:
    """Configure several indexes by a file, the only way to tell uv which answers mean that an index lacks a name.

    The logins are in variables, and not in the file.
    """
    lines, variables = [], {"UV_CONFIG_FILE": str(directory / "uv.toml")}
    for number, url in enumerate(config.indexes):
        parts = urlsplit(url)
        lines += ["[[index]]", f'name = "i{number}"', f"url = {json.dumps(public_url(url))}"]
        lines += [f"ignore-error-codes = {list(UNKNOWN)}", *(["default = true"] if number == 0 else [])]
        for key, value in (("USERNAME", parts.username), ("PASSWORD", parts.password)):
            if value:
                variables[f"UV_INDEX_I{number}_{key}"] = unquote(value)
    (directory / "uv.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return variables


def _check_links(places: Iterable[str]) -> None:
    """Refuse directories in which pip or uv would wait for a pipe, or copy a device until the disk is full."""
    for place in places:
        if not place.startswith(("https://", "http://")):
            with contextlib.suppress(NotADirectoryError, FileNotFoundError, PermissionError):
                for entry in os.scandir(_local(place)):
                    if entry.name.endswith(_ARCHIVES):
                        _check_file(entry.path)


def _check_file(path: str) -> None:
    try:
        regular_file.check(path)
    except IsADirectoryError:
        return
    except OSError as error:
        raise SourceError(
            "a directory of find-links has something else in place of a package's file",
            where=path,
            expected="a file",
            found=error.strerror or str(error),
            next_step="remove it, or take its directory out of find-links, which `pip config list` shows",
        ) from error


def _local(place: str) -> Path:
    return Path(regular_file.of_url(place) if place.startswith("file:") else place).expanduser()


def _directories(places: Iterable[str], scratch: Path) -> Iterator[str]:
    """Yield the places of ``--find-links`` as uv knows them: URLs of pages, and directories that exist.

    pip goes on where a directory is missing, and it also knows single files and local pages. For uv, what these name
    on this machine is linked into a directory of ours.
    """
    for number, place in enumerate(places):
        if place.startswith(("https://", "http://")):
            yield place
            continue
        path = _local(place)
        if path.is_dir():
            yield place
        elif path.is_file():
            links = scratch / f"links-{number}"
            links.mkdir(exist_ok=True)
            for file in _files(path):
                with contextlib.suppress(FileExistsError):
                    (links / file.name).symlink_to(file)
            yield links.as_uri()


def _files(path: Path) -> Iterator[Path]:
    if path.suffix not in simple_api.PAGES:
        yield path.absolute()
        return
    with contextlib.suppress(OSError, ValueError, RecursionError):  # our own reading of the page tells what is wrong
        for file in simple_api.from_html(
            regular_file.read_text(path, errors="replace"), base=path.as_uri(), index=None
        ):
            if file.is_local:
                yield Path(regular_file.of_url(file.url))


def _kept(config: PipConfig, environ: Mapping[str, str] | None) -> dict[str, str]:
    dropped = {*_DROPPED, *(_PROXIES if config.no_proxy_env or config.proxy else ())}
    environ = os.environ if environ is None else environ
    return {
        key: value
        for key, value in environ.items()
        if key not in dropped
        and not key.startswith(("PIP_", "_PIP_", "UV_", "__PIP", "PIPENV_"))
        and not index_logins.is_variable(key)
    }
