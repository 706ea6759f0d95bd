"""What the user got wrong, or the disk would not take, in one sentence: what, where, and what would be legal."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

EXIT_BAD_INPUT = 64
EXIT_UNAVAILABLE = 69
EXIT_UNWRITTEN = 74


class BadInput(ValueError):  # noqa: N818 - it is the user's input that is bad; "Error" would say that we failed
    """Raised for anything a user can put right; the command line prints it and exits with code 64.

    The message is one sentence. Where the mistake stands in a file, `where` is `file:line:key`.
    """

    def __init__(self, message: str, where: str | None = None) -> None:
        super().__init__(message if where is None else f"{where}: {message}")
        self.where = where


class Unwritten(Exception):  # noqa: N818 - as above; it is the disk that is full
    """Results could not be written; the command line prints it and exits with code 74.

    The message is one sentence.

    Args:
        path: the file or folder that could not be written.
        error: what the system said.
        kept: what was to be written then is safe: room held for that case was given to it.
    """

    def __init__(self, path: Path, error: OSError, *, kept: bool = False) -> None:
        rest = "; the last record went into room held for it" if kept else ""
        super().__init__(f"cannot write to {path}: {error.strerror or error}{rest}")


class Unavailable(Exception):  # noqa: N818 - as above; it is somebody else's service that failed
    """A service or program that a run depends on cannot be used; the command line prints it and exits with code 69.

    The message is one sentence.
    """


def unknown_name(what: str, name: str, legal: Iterable[str], where: str | None = None) -> BadInput:
    """Say that `name` is no `what`, which names are legal, and which of them lies nearest."""
    names = sorted(legal)
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return BadInput(f"unknown {what} {name!r}, legal are {', '.join(names) or 'none'}{hint}", where)
