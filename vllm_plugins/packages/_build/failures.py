"""Why pip and uv fail, from what they say of it."""

from __future__ import annotations

import re

from vllm_plugins.core.errors import CommandFailed, DiskError, HashMismatch, InstallError, PluginsError

__all__ = [
    "is_invalid_wheel",
    "is_unsolved",
    "may_be_fetched",
    "of_build",
    "of_build_search",
    "of_installation",
    "reason",
]

_DRAWN = " ×╰├│─▶"  # what uv draws around the lines of an error
_LONGEST = 400  # characters of a reason
_INVALID_WHEEL = (
    "The wheel is invalid",
    "RECORD file is invalid",
    "RECORD file doesn't match",
    "unacceptable filename",  # one with a line break or another control character
)
_ABSENT = re.compile(r"No matching distribution found for ([A-Za-z0-9][A-Za-z0-9._-]*)==")  # pip's words
_FOUND_NONE = 1  # an exit status of uv: no resolution; 2 is any other failure
_ENDS = (1, 2)  # with which pip and uv end themselves; another status is of a signal, or of no program


def reason(error: PluginsError) -> str:
    """What uv or pip says of its failure, in one line; it is redacted already."""
    cause = error.__cause__
    if not isinstance(cause, CommandFailed):
        return error.what
    lines = [line.strip(_DRAWN) for line in cause.stderr.splitlines()]
    if any(line.startswith("Traceback") for line in lines):
        lines = [line for line in lines if line][-1:]
    text = " ".join(
        line.removeprefix("error: ").removeprefix("ERROR: ")
        for line in lines
        if line and not line.startswith("warning: ")
    )
    text = re.sub(r" (?:cause|Caused by): ", ": ", text)
    return f"{text[:_LONGEST]}…" if len(text) > _LONGEST else text or cause.what


def is_unsolved(error: PluginsError) -> bool:
    """Whether uv says that no version satisfies the requirements, though a lock has one."""
    return isinstance(error.__cause__, CommandFailed) and error.__cause__.returncode == _FOUND_NONE


def may_be_fetched(error: PluginsError) -> bool:
    """Whether the index may be why the installer failed, and not this machine or what a wheel contains.

    pip passes over some links, ends with a traceback at pages whose ``<base>`` or encoding it can't read, and stores
    a wheel that a server compresses once more as it is sent.
    """
    cause = error.__cause__
    if not isinstance(cause, CommandFailed) or cause.returncode not in _ENDS or isinstance(error, DiskError):
        return False
    return not (is_invalid_wheel(error) or _lacks_file_locks(cause))


def _lacks_file_locks(error: CommandFailed) -> bool:
    output = f"{error.stdout}\n{error.stderr}"
    return "No locks available" in output or ("acquire lock" in output and "Operation not permitted" in output)


def is_invalid_wheel(error: PluginsError) -> bool:
    """Whether uv refuses what a wheel contains."""
    cause = error.__cause__
    return isinstance(cause, CommandFailed) and any(words in cause.stderr for words in _INVALID_WHEEL)


def _is_other_file(error: CommandFailed) -> bool:
    output = f"{error.stdout}\n{error.stderr}"
    return "Hash mismatch" in output or "DO NOT MATCH THE HASHES" in output


def of_build(error: CommandFailed) -> PluginsError:
    """Why build requirements can't be found or installed."""
    if _is_other_file(error):
        return HashMismatch("a build requirement is not the file that the lock names", details=error.evidence)
    return InstallError(
        "the build requirements can't be installed",
        details=error.evidence,
        next_step="read the output of the installer above; a build requirement must have a wheel at the indexes of "
        "`pip config list`, or in a directory of PIP_FIND_LINKS",
    )


def of_build_search(error: CommandFailed) -> PluginsError:
    """Why build requirements can't be found: no lock has said anything of their files yet."""
    if _is_other_file(error):
        return HashMismatch(
            "a build requirement does not match the hash that its index names",
            details=error.evidence,
            next_step="try again; if it fails again, report it to the operator of the index",
        )
    return of_build(error)


def of_installation(error: CommandFailed) -> PluginsError:
    """Why locked files can't be installed."""
    output = f"{error.stdout}\n{error.stderr}"
    if _is_other_file(error):
        return HashMismatch(
            "a file is not the one that the lock names",
            details=error.evidence,
            next_step="find out who changed it; if the source is right, lock it again, and review the change: "
            "vllm-plugins lock --upgrade-package NAME",
        )
    if _lacks_file_locks(error):
        return InstallError(
            "uv requires file locks and hard links, which do not work in the store or in its cache",
            details=error.evidence,
            next_step="set VLLM_PLUGIN_INSTALLER=pip, or VLLM_PLUGIN_REGISTRY_DIR and XDG_CACHE_HOME to other places",
        )
    if (disk := DiskError.from_output(output, details=error.evidence)) is not None:
        return disk
    if (absent := _ABSENT.search(output)) is not None:
        return InstallError(
            f"no index gave the locked release of {absent[1]}; the store is unchanged",
            details=error.evidence,
            next_step="check the network, and the indexes of `pip config list`; if the release was removed there, "
            f"lock another: vllm-plugins lock --upgrade-package {absent[1]}",
        )
    return InstallError(
        "the installation failed; the store is unchanged",
        details=error.evidence,
        next_step="read the output of the installer above, fix the cause, and run vllm-plugins sync",
    )
