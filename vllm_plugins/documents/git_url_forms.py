"""The forms that the URL of a git repository may have: in plugins.yaml, and once its variables are expanded."""

from __future__ import annotations

import re

__all__ = ["FILE", "FORMS", "HTTP", "NAME", "SCHEMES", "SCP", "SSH", "VARIABLE", "of_ssh"]

SCHEMES = ("https", "http", "ssh", "file")
# Each form as a message shows it.
FORMS = "https://host/path, http://host/path, ssh://user@host/path, user@host:path or file:///path"

# ${NAME}, which is replaced by the value of an environment variable.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
VARIABLE = re.compile(rf"\$\{{({NAME.pattern})\}}")
# No host and no user begins with "-": ssh and git would take it as an option.
HTTP = re.compile(r"(?P<scheme>https?)://(?:(?P<user>[^/]*)@)?(?P<rest>[^@/]+(?:/.*)?)")
SSH = re.compile(r"ssh://(?:(?P<user>[^/@]*)@)?(?P<host>[^-/@][^/@]*)/.+")
SCP = re.compile(r"(?:[^-/@:\s][^/@:\s]*@)?(?:[^-/@:\s\[][^/@:\s\[]*|\[[^]/@\s]+\]):[^:].*")
FILE = re.compile(r"file:///.+")
# What follows the colon is a path. ssh would take it for a port, or the whole for a host.
_NO_PORT = re.compile(r"ssh://((?:[^/@]*@)?[^-/@:\[$][^/@:\[]*):([^/$:]*[^0-9/$:][^/:]*/?.*)")


def of_ssh(url: str) -> str:
    """The URL as git takes it where a path follows the host as in ``ssh://git@host:path``: ``git@host:path``."""
    found = _NO_PORT.fullmatch(url)
    return url if found is None else f"{found[1]}:{found[2]}"
