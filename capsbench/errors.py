"""What the user got wrong, in one sentence: what, where, and what would be legal."""

from collections.abc import Iterable
from difflib import get_close_matches

EXIT_BAD_INPUT = 64


class BadInput(ValueError):  # noqa: N818 - it is the user's input that is bad; "Error" would say that we failed
    """Raised for anything a user can put right; the command line prints it and exits with code 64.

    The message is one sentence. Where the mistake stands in a file, `where` is `file:line:key`.
    """

    def __init__(self, message: str, where: str | None = None) -> None:
        super().__init__(message if where is None else f"{where}: {message}")
        self.where = where


class Unavailable(Exception):  # noqa: N818 - as above; it is somebody else's service that failed
    """What a run depends on has gone; what has ended is kept. The message is one sentence."""


def unknown_name(what: str, name: str, legal: Iterable[str], where: str | None = None) -> BadInput:
    """Say that `name` is no `what`, which names are legal, and which of them lies nearest."""
    names = sorted(legal)
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return BadInput(f"unknown {what} {name!r}, legal are {', '.join(names) or 'none'}{hint}", where)
