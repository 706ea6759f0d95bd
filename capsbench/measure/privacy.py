"""What names a person, a host or a secret is taken out of everything that is kept; docs/privacy.md says what that is.

A record is made to be passed on. What a framework writes when it fails, however, is full of paths, and may hold the
whole environment of its process.
"""

import getpass
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

_LEAST: Final = 3
"""Characters of a name; shorter ones are words of their own too often."""
_LEAST_SECRET: Final = 6
_NOBODY: Final = frozenset(
    "root user users admin docker jovyan runner ubuntu debian localhost localdomain linux cpu gpu cuda worker "
    "capsbench numpy torch pytorch tensorflow keras triton mnist fashion-mnist kmnist smallnorb toys".split()
)
"""Names that say nothing of a person, or that texts of ours are made of."""
_SECRET: Final = re.compile(r"token|secret|passw|credential|api_?key|access_?key|private|cookie|auth", re.IGNORECASE)
"""Names of environment variables whose values are secrets."""
_HOMES: Final = re.compile(r"(?<![\w~])(?:/home|/Users|[A-Za-z]:\\Users)[/\\][^\s/\\:'\"<>,;()]+")
_IN_URL: Final = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)[^\s/@]+@")


@dataclass(frozen=True, slots=True)
class Identity:
    """What must not be kept, each with what is written in its place.

    Attributes:
        folders: home folders.
        names: of the user and the host.
        secrets: values of environment variables.
    """

    folders: tuple[str, ...]
    names: tuple[tuple[str, str], ...]
    secrets: tuple[tuple[str, str], ...]


def identity_of(variables: Mapping[str, str], user: str, host: str) -> Identity:
    """Who this is.

    Args:
        variables: the environment.
        user: the name by which the system knows the user; empty where it knows none.
        host: likewise of the host.
    """
    homes = [variables.get(name, "") for name in ("HOME", "USERPROFILE")]
    homes += [str(Path(home).resolve()) for home in homes if home]
    users = [user, *(variables.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER"))]
    hosts = [host, *(variables.get(name, "") for name in ("HOSTNAME", "HOST", "COMPUTERNAME"))]
    hosts += [each.partition(".")[0] for each in hosts]
    named = {**dict.fromkeys(users, "<user>"), **dict.fromkeys(hosts, "<host>")}
    secrets = {
        value: f"<{name}>" for name, value in variables.items() if _SECRET.search(name) and len(value) >= _LEAST_SECRET
    }
    told = {name: instead for name, instead in named.items() if len(name) >= _LEAST and name not in _NOBODY}
    folders = {home.rstrip("/\\") for home in homes} - {""}
    return Identity(
        # What holds another is replaced before it.
        folders=tuple(sorted(folders, key=len, reverse=True)),
        names=tuple(sorted(told.items(), key=lambda each: len(each[0]), reverse=True)),
        secrets=tuple(sorted(secrets.items(), key=lambda each: len(each[0]), reverse=True)),
    )


def scrub(text: str, who: Identity | None = None) -> str:
    """A text without secrets, credentials in URLs, the names of user and host, and with home folders as `~`.

    Args:
        text: any.
        who: whose names and folders; by default those of this process.
    """
    who = who or _this_process()
    for secret, instead in who.secrets:
        text = text.replace(secret, instead)
    text = _HOMES.sub("~", _IN_URL.sub(r"\1", tilde(text, who)))
    for name, instead in who.names:
        if name in text:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", instead, text)
    return text


def scrubbed(value: Any) -> Any:  # noqa: ANN401 - plain data of any shape
    """Plain data, all texts of which are scrubbed."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {key: scrubbed(item) for key, item in value.items()}
    return [scrubbed(item) for item in value] if isinstance(value, list | tuple) else value


def tilde(text: str, who: Identity | None = None) -> str:
    """A text in which the home folder is written `~`."""
    for folder in (who or _this_process()).folders:
        if folder in text:
            text = re.sub(rf"(?<![\w.~-]){re.escape(folder)}(?![\w-]|\.\w)", "~", text)
    return text


@cache
def _this_process() -> Identity:
    user = host = ""
    with suppress(OSError, KeyError, ImportError):  # in a container a user may have a number only
        user = getpass.getuser()
    with suppress(OSError):
        host = socket.gethostname()
    return identity_of(os.environ, user, host)
