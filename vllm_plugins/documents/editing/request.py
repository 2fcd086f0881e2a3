"""What ``vllm-plugins add`` is asked for: a word of its command line as a source of plugins.yaml."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from packaging.requirements import InvalidRequirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from vllm_plugins.core.errors import UsageError
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.core.redact import public_url, redact
from vllm_plugins.documents import versions
from vllm_plugins.documents._manifest import file_rules, rules
from vllm_plugins.documents.manifest import FileSource, GitSource, LocalSource, PypiSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vllm_plugins.documents.manifest import Source

__all__ = ["LATEST", "Addition", "parse", "valid_name"]

_FORMS = (
    "NAME, NAME@VERSION, 'NAME>=1,<2', git+URL[@REF][#subdirectory=DIRECTORY], a directory such as ./my-plugin, "
    "or a single file such as ./parser.py or URL#sha256=HASH"
)
# What a URL without git+ ends with if it is one of a single file.
_SINGLE = (".py", ".jinja", ".jinja2", ".j2", ".json", ".txt", ".yaml", ".yml")
_PACKAGED = (".whl", ".tar.gz", ".tar.bz2", ".zip", ".egg")
_PROJECT_PAGE = re.compile(r"https?://(?:www\.)?pypi\.\w+/(?:project|simple)/([A-Za-z0-9][A-Za-z0-9._-]*)(?:/.*)?")
_AT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[([^\]]*)\])?@([^\s/@]+)")
_SCP = re.compile(r"[\w.-]+@[\w.-]+:[^@]+(?:@[^@]+)?")  # git@host:path, and a ref
_VARIABLE_LOGIN = re.compile(r"\w+://(?:[\w.-]+:|\$\{\w+\}:)?\$\{\w+\}@[^@]*$")
LATEST = "latest"


@dataclass(frozen=True, kw_only=True, slots=True)
class Addition:
    """One plugin to add. ``name`` is the proposed one; ``None`` if the project's own name should be taken.

    ``ref`` is what follows the ``@`` of ``NAME@REF``: a version, ``latest``, or the ref of a git plugin that is in
    the manifest already.
    """

    word: str
    name: str | None
    source: Source
    ref: str | None = None


def parse(
    word: str,
    *,
    directory: Path,
    extras: Iterable[str],
    version: str | None,
    editable: bool,
    index: str | None = None,
) -> Addition:
    """One word of the command line. ``directory`` is the manifest's, to which local paths are relative.

    ``editable`` is for local directories only, ``version`` and ``index`` (the name of one) for package indexes only.

    Raises:
        UsageError: the word, or an option that goes with it, is not valid.
    """
    wanted = tuple(extras)
    name, at, url = (part.strip() for part in word.partition(" @ "))
    _check_kind(word, url if at else word)
    if at:
        found = _git(url, word=word, extras=wanted)
        source = found.source.replace(package=_checked(rules.package, name, word))
        addition = replace(found, name=name, source=source)
    elif "://" in word and not word.startswith("git+") and _is_single(word):
        addition = _file_at_url(word)
    elif "://" in word or word.startswith("git+"):
        addition = _git(word, word=word, extras=wanted)
    elif word.startswith((".", "/", "~")) or os.sep in word:
        addition = _local(word, directory=directory, extras=wanted, editable=editable)
    else:
        addition = _pypi(word, extras=wanted, version=version, index=index)
    if version is not None and not isinstance(addition.source, PypiSource):
        raise _wrong(word, "--version is for plugins of a package index", "for git, write git+URL@REF")
    if index is not None and not isinstance(addition.source, PypiSource):
        raise _wrong(word, "--index is for plugins of a package index", "leave out --index")
    if wanted and isinstance(addition.source, FileSource):
        raise _wrong(word, "a single file has no extras", "leave out --extra")
    for extra in wanted:
        _checked(rules.extra, extra, word)
    return addition


def _check_kind(word: str, place: str) -> None:
    """Refuse what people copy from elsewhere, and is not a plugin in the form that we take."""
    if page := _PROJECT_PAGE.fullmatch(place):
        raise _wrong(word, "this is the page of a distribution", f"vllm-plugins add {page[1]}")
    path = place.partition("#")[0].partition("?")[0]
    if path.lower().endswith(_PACKAGED) and not place.startswith("git+") and (os.sep in path or os.path.isfile(path)):
        found = canonicalize_name(os.path.basename(path).partition("-")[0])
        name = found if rules.package(found) is None else "NAME"
        step = f"put the file into a directory of PIP_FIND_LINKS, and run vllm-plugins add {name}"
        raise _wrong(word, "a wheel or an sdist is not a source of its own", step)
    if "://" not in place and "@" in place and _SCP.fullmatch(place) and not os.path.exists(place):
        raise _wrong(word, "a git repository begins with git+", f"vllm-plugins add 'git+{place}'")


def valid_name(text: str) -> str:
    """The plugin name that is most like a text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "plugin"


def _pypi(word: str, *, extras: tuple[str, ...], version: str | None, index: str | None) -> Addition:
    ref = None
    if match := _AT.fullmatch(word):
        name, inner, ref = match.groups()
        if ref[0] in "<>=!~":
            raise _wrong(word, "a version after @ has no operator", f"vllm-plugins add '{word.replace('@', '', 1)}'")
        listed = tuple(filter(None, (extra.strip() for extra in (inner or "").split(","))))
        specifier = None if ref == LATEST or not _is_version(ref) else f"=={ref}"
    else:
        try:
            requirement = versions.requirement(word)
        except InvalidRequirement as error:
            raise _wrong(word, "this is not a valid plugin", f"write one of: {_FORMS}") from error
        if requirement.marker is not None:
            raise _wrong(word, "markers are not supported", "leave out what follows the semicolon")
        name, listed = requirement.name, tuple(sorted(requirement.extras))
        specifier = str(requirement.specifier) or None
    if version is not None and (specifier or ref):
        raise _wrong(word, "the version is given twice", "leave out --version")
    if version is not None:
        specifier = f"=={version}" if _is_version(version) else _checked(rules.version, version, word)
    source = PypiSource(
        package=_checked(rules.package, name, word),
        version=specifier,
        extras=tuple(dict.fromkeys((*listed, *extras))),
        index=index,
    )
    return Addition(word=word, name=name, source=source, ref=ref)


def _git(url: str, *, word: str, extras: tuple[str, ...]) -> Addition:
    if not url.startswith("git+"):
        if "://" in url:
            raise _wrong(word, "a git repository begins with git+", f"vllm-plugins add 'git+{public_url(url)}'")
        raise _wrong(word, "this is not the URL of a git repository", f"write one of: {_FORMS}")
    address, _, fragment = url.removeprefix("git+").partition("#")
    parameters = parse_qs(fragment)
    if unknown := sorted(parameters.keys() - {"subdirectory", "egg"}):
        raise _wrong(word, f"unknown part of the URL: {unknown[0]}", "write #subdirectory=DIRECTORY, or nothing")
    address, ref = _without_ref(address)
    _checked(rules.url, address, word)
    if address != public_url(address) and not _VARIABLE_LOGIN.match(address):
        raise _wrong(
            word,
            "the URL contains a login, which plugins.yaml would show",
            "put it into a variable, and write the variable in single quotes: 'git+https://${GIT_TOKEN}@host/path'",
        )
    below = parameters.get("subdirectory", [None])[0]
    if below is not None:
        _checked(rules.subdirectory, below, word)
        below = rules.normal_subdirectory(below)
    source = GitSource(
        url=address, ref=_checked(rules.ref, ref, word) if ref else None, subdirectory=below, extras=extras
    )
    path = (below or address).rstrip("/").removesuffix(".git")
    return Addition(word=word, name=valid_name(re.split(r"[/:]", path)[-1]), source=source, ref=ref)


def _without_ref(address: str) -> tuple[str, str | None]:
    """The address and the ref of ``https://host/path@ref``. The ``@`` of a login is before the path."""
    scheme, separator, rest = address.rpartition("://")
    host, slash, path = rest.partition("/" if separator else ":")
    before, at, after = path.rpartition("@")
    path, ref = (before, after) if at else (path, None)
    return f"{scheme}{separator}{host}{slash}{path}", ref


def _local(word: str, *, directory: Path, extras: tuple[str, ...], editable: bool) -> Addition:
    there = Path(os.path.abspath(os.path.expanduser(word)))
    if not there.exists():
        raise _wrong(word, "it does not exist", "name the directory of a project, or a single file")
    path = word
    if not word.startswith("~") and (not os.path.isabs(word) or there.is_relative_to(directory)):
        path = os.path.relpath(there, directory)
    if not there.is_dir():
        if editable:
            raise _wrong(word, "--editable is for directories", "leave out --editable: lock again after an edit")
        return _file(word, FileSource(filename=there.name, path=_checked(file_rules.path, path, word)))
    return Addition(
        word=word,
        name=None,
        source=LocalSource(path=_checked(rules.path, path, word), editable=editable, extras=extras),
    )


def _is_single(word: str) -> bool:
    """Whether a URL is that of a single file: it has a hash, or an end such as ``.py``."""
    address, _, fragment = word.partition("#")
    return fragment.startswith("sha256=") or address.partition("?")[0].endswith(_SINGLE)


def _file_at_url(word: str) -> Addition:
    url, _, fragment = word.partition("#")
    _checked(file_rules.url, url, word)
    if not fragment.startswith("sha256="):
        step = f"review the file, then run vllm-plugins add '{url}#sha256=HASH' with what sha256sum prints for it"
        raise _wrong(word, "a file at a URL requires its sha256", step)
    digest = _checked(file_rules.sha256, fragment.removeprefix("sha256="), word)
    return _file(word, FileSource(filename=file_rules.last_part(url), url=url, sha256=Sha256(digest)))


def _file(word: str, source: FileSource) -> Addition:
    """A single file. A module gets a name that Python can import."""
    filename = source.filename
    if file_rules.filename(filename) is not None and filename.endswith(".py"):
        filename = re.sub(r"\W", "_", filename.removesuffix(".py"), flags=re.ASCII) + ".py"
    _checked(file_rules.filename, filename, word)
    return Addition(word=word, name=valid_name(filename.rpartition(".")[0]), source=source.replace(filename=filename))


def _is_version(text: str) -> bool:
    try:
        versions.version(text)
    except InvalidVersion:
        return False
    return True


def _checked(rule: Callable[[str], str | None], value: str, word: str) -> str:
    problem = rules.text(value) or rule(value)
    if problem is not None:
        raise _wrong(word, problem, "vllm-plugins add --help")
    return value


def _wrong(word: str, what: str, next_step: str) -> UsageError:
    return UsageError(f"{redact(word)}: {what}", next_step=next_step)
