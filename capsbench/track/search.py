"""One step of git's search for a commit: measure the one that is checked out, and say which side it is like."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capsbench.errors import BadInput
from capsbench.metrics import metric_type
from capsbench.record.pairs import Pair
from capsbench.record.schema import Record
from capsbench.store.run import RunStore
from capsbench.track.bisection import Likeness, likeness, likeness_in_time, measures
from capsbench.track.cells import Cell, cells
from capsbench.track.interleave import Series, SideName, Turn, later_rounds
from capsbench.track.keep import commits_of, read_cell
from capsbench.track.revisions import Repository, Revision, resolve
from capsbench.track.rounds import take_round
from capsbench.track.sides import ready_sides
from capsbench.track.visit import Turns, visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is searched for.

    Attributes:
        kept: the case at BASE and at HEAD.
        cell: what the revisions were asked to run.
        metric: which number moved, or `status`.
        base: the commit of BASE.
    """

    kept: Pair
    cell: Cell
    metric: str
    base: Revision


def question(stores: tuple[RunStore, RunStore], case: str, metric: str, repository: Repository) -> Question:
    """What two kept runs leave to be asked.

    Args:
        stores: A and B.
        case: a glob that one case is like.
        metric: its name, or `status`.
        repository: the user's.

    Raises:
        BadInput: the runs are no sides of one comparison, or the glob means no case or several.
    """
    commits = [commits_of(store) for store in stores]
    if commits[0] != commits[1]:
        raise BadInput(f"{stores[0].run_id} and {stores[1].run_id} are not the two sides of one comparison")
    # Both sides keep their cases in the same order; ids may differ, as each revision makes its own.
    pairs = [Pair(*both) for both in zip(*(store.latest_records() for store in stores), strict=True)]
    found = [pair for pair in pairs if pair.new.case.is_like(case)]
    if len(found) != 1:
        raise BadInput(f"{len(found)} cases of {stores[1].run_id} are like {case!r}, it must be one", "--case")
    key = found[0].new.case
    asked = read_cell(stores[1], found[0].new, repository)
    cell = cells([asked], {key.backend: (key.mode,)}, None)[0]
    return Question(kept=found[0], cell=cell, metric=metric, base=resolve(repository, commits[0]["base"]))


def answer(asked: Question, repository: Repository, rounds: int, data: Path) -> Likeness | None:
    """Which side the commit that is checked out is like; None where it cannot be measured.

    What repeats is measured once and held against what is kept; a time is taken in turns with BASE, because times of
    another hour say nothing.

    Args:
        asked: see there.
        repository: the user's.
        rounds: of a time.
        data: folder of the data sets.

    Raises:
        BadInput: git cannot check a commit out.
    """
    here = resolve(repository, "HEAD")
    known = metric_type(asked.metric)
    in_time = known.measure == "time" and known.comparison in {"time", "rate"}
    revisions: dict[SideName, Revision] = {"base": asked.base, "head": here} if in_time else {"head": here}
    with ready_sides(repository, revisions, data) as (sides, around):

        def take(turns: Sequence[Turn]) -> list[Record]:
            return take_round(turns, visit_of, sides)

        def visit_of(turn: Turn, turns: Turns | None) -> Record:
            return visit(sides[turn.side], turn.cell, turn.measure, around, turns=turns)

        if not in_time:
            wanted = measures(asked.metric, asked.cell.suite.measure)
            found = visit(sides["head"], asked.cell, wanted, around)
            return likeness(asked.metric, asked.kept, found)
        series = Series(asked.cell, first={"base": asked.kept.base, "head": asked.kept.new})
        later_rounds([series], rounds, take)
        return likeness_in_time(asked.metric, asked.kept, series.pair())
