"""Two revisions in turns: who is visited when, what is compared, and what is looked at again before it is worse.

Every visit is a fresh process of that revision. Rounds go A B, B A, A B, …, so that a machine that drifts treats both
alike. Everything is measured in the first round; the others take times only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from capsbench.record.compare import Change, Pair, compare
from capsbench.record.schema import Record
from capsbench.stats.verdict import least_samples
from capsbench.suite.schema import Measure
from capsbench.track.cells import Cell
from capsbench.track.pooling import pooled, with_fresh_times

SideName = Literal["base", "head"]
Purpose = Literal["first", "times", "again"]
SIDES: Final[tuple[SideName, SideName]] = ("base", "head")

_TIMES_A_CASE: Final = 3
LEAST_FRESH_ROUNDS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A visit: whose, for which case, what for, in which of how many rounds (from 0)."""

    side: SideName
    cell: Cell
    purpose: Purpose
    number: int
    rounds: int

    @property
    def measure(self) -> tuple[Measure, ...]:
        """What is measured now."""
        whole = self.cell.suite.measure
        if self.purpose == "first":
            return whole
        # Times that look worse are explained by op tables, which scatter too: they are taken as often.
        return ("time", "ops") if self.purpose == "again" and "ops" in whole else ("time",)


Take = Callable[[Turn], Record]


@dataclass(slots=True)
class Series:
    """One case's records of both sides so far, a record a round."""

    cell: Cell
    records: Mapping[SideName, list[Record]] = field(default_factory=lambda: {side: [] for side in SIDES})

    @property
    def timed(self) -> bool:
        """Whether further rounds say more: both sides work, and times are asked for."""
        ended = all(record.status == "ok" for records in self.records.values() for record in records)
        return ended and "time" in self.cell.suite.measure

    def pair(self) -> Pair:
        """What there is of both sides."""
        base, head = (pooled(self.records[side]) for side in SIDES)
        return Pair(base, head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What came out.

    Attributes:
        pairs: of all cases, in their order.
        changes: with the last word on each.
        suspected: times that looked worse before fresh rounds were taken.
        confirmed: those of them that the fresh rounds alone called worse.
    """

    pairs: tuple[Pair, ...]
    changes: tuple[Change, ...]
    suspected: int = 0
    confirmed: int = 0


def first_round(cells: Iterable[Cell], take: Take) -> tuple[Series, ...]:
    """Measure everything once on each side; a side that fails does not keep the other from being measured."""
    made = tuple(Series(cell) for cell in cells)
    for series in made:
        for side in SIDES:
            turn = Turn(side=side, cell=series.cell, purpose="first", number=0, rounds=1)
            series.records[side].append(take(turn))
    return made


def usual_rounds(series: Sequence[Series]) -> int:
    """The fewest rounds with which a time can be called worse at all, in a table of so many."""
    return least_samples(max(1, _TIMES_A_CASE * sum(each.timed for each in series)))


def later_rounds(series: Sequence[Series], rounds: int, take: Take, purpose: Purpose = "times") -> None:
    """Add rounds until each series has so many; of one in which a side fails no more are taken."""
    for number in range(rounds):
        for each in series:
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                if each.timed and len(each.records[side]) <= number:
                    turn = Turn(side=side, cell=each.cell, purpose=purpose, number=number, rounds=rounds)
                    each.records[side].append(take(turn))


def judge(series: Sequence[Series], margin: float) -> Findings:
    """Compare what there is."""
    pairs = tuple(each.pair() for each in series)
    return Findings(pairs=pairs, changes=compare(pairs, margin=margin))


def suspects(findings: Findings) -> list[Change]:
    """The times that look worse, and are not to be called so yet."""
    return [change for change in findings.changes if change.kind == "time" and change.verdict == "worse"]


def confirm(series: Sequence[Series], findings: Findings, rounds: int, take: Take, margin: float) -> Findings:
    """Take fresh rounds of the cases whose times look worse, and let those alone decide on these times.

    Samples that raised the suspicion are the worst of many and would confirm it too often.
    """
    doubtful = suspects(findings)
    positions = {id(pair): position for position, pair in enumerate(findings.pairs)}
    again = {positions[id(change.pair)]: Series(series[positions[id(change.pair)]].cell) for change in doubtful}
    later_rounds(list(again.values()), rounds, take, "again")
    pairs, fresh_changes = list(findings.pairs), {}
    fresh = {position: each.pair() for position, each in again.items() if all(each.records.values())}
    wanted = {position: {c.metric for c in doubtful if positions[id(c.pair)] == position} for position in fresh}
    for position, pair in fresh.items():
        old = findings.pairs[position]
        pairs[position] = Pair(
            with_fresh_times(old.base, pair.base, rounds), with_fresh_times(old.new, pair.new, rounds)
        )
    bare = {position: _only(pair, wanted[position]) for position, pair in fresh.items()}
    back = {id(pair): position for position, pair in bare.items()}
    for change in compare(list(bare.values()), margin=margin):
        position = back[id(change.pair)]
        fresh_changes[position, change.metric] = replace(change, pair=pairs[position])
    changes = tuple(_last_word(change, positions, fresh_changes, pairs) for change in findings.changes)
    confirmed = sum(change.verdict == "worse" for key, change in fresh_changes.items() if key[1] != "status")
    return Findings(pairs=tuple(pairs), changes=changes, suspected=len(doubtful), confirmed=confirmed)


def failed(pairs: Iterable[Pair]) -> Iterator[Record]:
    """The records, of either side, of cases that did not end well."""
    return (record for pair in pairs for record in (pair.base, pair.new) if record.status != "ok")


def _only(pair: Pair, metrics: set[str]) -> Pair:
    """A pair that has nothing but some metrics."""
    base, new = (
        replace(side, ops=(), metrics={name: metric for name, metric in side.metrics.items() if name in metrics})
        for side in (pair.base, pair.new)
    )
    return Pair(base, new)


def _last_word(
    change: Change,
    positions: Mapping[int, int],
    fresh: Mapping[tuple[int, str], Change],
    pairs: Sequence[Pair],
) -> Change:
    """The change as the fresh rounds see it; undecided where they were to decide and could not be taken."""
    position = positions[id(change.pair)]
    if (position, change.metric) in fresh:
        return fresh[position, change.metric]
    doubtful = change.kind == "time" and change.verdict == "worse"
    return replace(change, pair=pairs[position], verdict="undecided" if doubtful else change.verdict)
