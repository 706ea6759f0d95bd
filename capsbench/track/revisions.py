"""A git repository's revisions, and temporary worktrees of them; the user's own tree is looked at, never touched."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from capsbench.errors import BadInput

Name = TypeVar("Name", bound=str)

_PROJECT: Final = "pyproject.toml"
# Looking must not write into the repository, and its hooks are for those who work in it.
_GIT: Final = ("git", "--no-optional-locks", "-c", f"core.hooksPath={os.devnull}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A checkout that belongs to the user.

    Attributes:
        root: its topmost folder.
        project: the folder below it that holds pyproject.toml, relative to it; the root itself where none does.
    """

    root: Path
    project: Path

    def relative(self, path: Path) -> Path | None:
        """Where a file lies below the root; None for one outside."""
        whole = path.resolve()
        return whole.relative_to(self.root) if whole.is_relative_to(self.root) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A commit: what the user called it, its full hash, and the first line of its message."""

    name: str
    commit: str
    subject: str

    @property
    def short(self) -> str:
        """The first digits of the hash."""
        return self.commit[:10]


def find_repository(folder: Path) -> Repository:
    """The repository that a folder lies in.

    Raises:
        BadInput: it lies in none, or git is not there.
    """
    try:
        root = Path(_git(folder, "rev-parse", "--show-toplevel")).resolve()
    except _GitError as error:
        raise BadInput(f"{folder.resolve()} is in no git repository that can be read: {error}") from None
    here = folder.resolve()
    holding = (each for each in (here, *here.parents) if each.is_relative_to(root) and (each / _PROJECT).is_file())
    return Repository(root=root, project=next(holding, root).relative_to(root))


def resolve(repository: Repository, name: str) -> Revision:
    """The commit that a name means.

    Raises:
        BadInput: none.
    """
    try:
        commit = _git(repository.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        subject = _git(repository.root, "log", "-1", "--format=%s", commit)
    except _GitError:
        hint = "; this clone is shallow, `git fetch --unshallow` brings the rest" if _is_shallow(repository) else ""
        raise BadInput(
            f"{name!r} is no revision here; a branch, a tag, a hash or HEAD~3 would be one{hint}", str(repository.root)
        ) from None
    return Revision(name=name, commit=commit, subject=subject)


def commits_between(repository: Repository, base: Revision, head: Revision) -> int:
    """How many commits HEAD has that BASE has not."""
    return int(_git(repository.root, "rev-list", "--count", f"{base.commit}..{head.commit}"))


def uncommitted(repository: Repository, but: Iterable[Path] = ()) -> tuple[str, ...]:
    """Tracked files that differ from the last commit, relative to the root; `but` are not looked at."""
    told = _git(repository.root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=no")
    names = [entry[3:] for entry in told.split("\0") if entry]
    ignored = {str(inside) for path in but if (inside := repository.relative(path)) is not None}
    return tuple(name for name in names if name not in ignored)


@contextmanager
def worktrees(repository: Repository, revisions: Mapping[Name, Revision]) -> Iterator[dict[Name, Path]]:
    """Check revisions out, each into a temporary worktree that is gone afterwards, whatever happens.

    The paths are equally long where the keys are, because a process's layout in memory may hang on their length.

    Args:
        repository: which lends its objects.
        revisions: by the name of the folder to make.

    Yields:
        The folders by key, beside each other in one that is temporary, too.

    Raises:
        BadInput: git cannot check one out.
    """
    folder = Path(tempfile.mkdtemp(prefix="capsbench-")).resolve()
    made: list[Path] = []
    try:
        for key, revision in revisions.items():
            made.append(folder / key)
            try:
                _git(repository.root, "worktree", "add", "--quiet", "--detach", str(made[-1]), revision.commit)
            except _GitError as error:
                raise BadInput(f"git cannot check out {revision.name} ({revision.short}): {error}") from None
        yield {key: folder / key for key in revisions}
    finally:
        with _undisturbed():
            for path in made:
                _remove(repository, path)
            shutil.rmtree(folder, ignore_errors=True)


class _GitError(Exception):
    """What git has to say, in one line."""


def _git(folder: Path, *arguments: str) -> str:
    """What git prints.

    Raises:
        _GitError: it is not there, or ends with an error.
        BadInput: it is not installed.
    """
    command = [*_GIT, *arguments]
    try:
        # A session of its own: Ctrl-C is ours to answer, and no command is left half done.
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, start_new_session=True)
    except FileNotFoundError:
        if folder.is_dir():
            raise BadInput("git is not installed, or not on the PATH; revisions cannot be read without it") from None
        raise _GitError(f"there is no folder {folder}") from None
    except OSError as error:
        raise _GitError(error.strerror or str(error)) from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise _GitError(lines[-1].removeprefix("fatal: ") if lines else f"git ended with {done.returncode}")
    return done.stdout.decode(errors="surrogateescape").strip("\n")


def _remove(repository: Repository, path: Path) -> None:
    """Take a worktree away, also one that was only begun."""
    for _ in range(2):  # an interrupted checkout may be locked, which --force twice overrides
        try:
            _git(repository.root, "worktree", "remove", "--force", "--force", str(path))
        except (_GitError, BadInput):
            continue
        return


def _is_shallow(repository: Repository) -> bool:
    return _git(repository.root, "rev-parse", "--is-shallow-repository") == "true"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not keep us from tidying up after the first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
