"""Revisions made ready to be visited, for as long as they are needed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from capsbench.runner.interrupt import ending_on_signals
from capsbench.track.checkout import prepare
from capsbench.track.revisions import Repository, Revision, worktrees
from capsbench.track.visit import Side, Surroundings

Name = TypeVar("Name", bound=str)


@contextmanager
def ready_sides(
    repository: Repository, revisions: Mapping[Name, Revision], data: Path
) -> Iterator[tuple[dict[Name, Side], Surroundings]]:
    """Check revisions out and make them importable; nothing of it is left afterwards, not even after SIGTERM.

    Args:
        repository: the user's.
        revisions: by side.
        data: folder of the data sets.

    Raises:
        BadInput: git cannot check one out.
    """
    with ending_on_signals(), worktrees(repository, revisions) as folders:
        sides = {}
        for name, root in folders.items():
            checkout = prepare(root / repository.project, root.with_name(f"{name}-meta"))
            sides[name] = Side(name=name, revision=revisions[name], root=root, checkout=checkout)
        scratch = next(iter(folders.values())).with_name("scratch")
        scratch.mkdir()
        yield sides, Surroundings(repository=repository, data=data.resolve(), scratch=scratch)
