"""What changed between two runs: a row for each number that both have, made when it is asked for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from capsbench.metrics import OP_CALLS
from capsbench.record.classes import Classed, Classes, Places, classes_of
from capsbench.record.pairs import Pair, StoredPairs, base_seeds
from capsbench.record.schema import Record
from capsbench.stats.shift import Shift, Shifts
from capsbench.stats.verdict import Difference, Verdict, samples_needed
from capsbench.store.records import op_calls, value_of

Kind = Literal["status", "exact", "bytes", "time", "rate", "error"]
Word = Verdict | Literal["changed"]
"""A verdict, or that an exact number of no direction is another one."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
WORDS: Final[tuple[Word, ...]] = ("worse", "better", "changed", "undecided", "same")
"""The worst first."""
TESTED: Final[tuple[Kind, ...]] = ("time", "rate")
"""What is compared by the samples of processes."""
ERROR_MARGIN: Final = 0.002
"""Error rates this close, as shares of the images, are called the same."""


@dataclass(frozen=True, slots=True)
class Change:
    """One number of one case, in A and in B.

    Attributes:
        pair: the case; of an error rate the first seed's.
        metric: its name, which carries the unit.
        kind: how it was compared.
        base: in A; the mean over seeds of an error rate. None where it is a status.
        new: likewise in B.
        seen: what the verdict was reached from, of a rate that of the times it stands for; None where numbers were
            compared exactly.
        verdict: the outcome.
        text: of a status, both words.
        margin: of a time, what share of it counted for nothing.
        rows: how many were tested together.
    """

    pair: Pair
    metric: str
    kind: Kind
    base: float | None
    new: float | None
    seen: Shift | Difference | None
    verdict: Word
    text: str = ""
    margin: float | None = None
    rows: int = 0

    @property
    def needed(self) -> int | None:
        """Samples a side, or seeds, that would decide what is undecided; None where that cannot be said."""
        if self.verdict != "undecided" or self.seen is None or not self.rows:
            return None
        return samples_needed(self.seen, ERROR_MARGIN if self.margin is None else self.margin, self.rows)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the 95 % interval of the ratio, or of the difference of error rates; None where there is none."""
        if self.seen is None:
            return None
        return (1.0 / self.seen.high, 1.0 / self.seen.low) if self.kind == "rate" else (self.seen.low, self.seen.high)

    @property
    def ratio(self) -> float | None:
        """B over A: of times the estimate over all pairs of samples, else of the two numbers; None where A is 0."""
        if isinstance(self.seen, Shift):
            return 1.0 / self.seen.ratio if self.kind == "rate" else self.seen.ratio
        return self.new / self.base if self.base and self.new is not None else None


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """Error rates of cases that differ in their seed only: means in A and in B, and their difference."""

    base: float
    new: float
    seen: Difference


@dataclass(frozen=True, slots=True)
class Seen:
    """What verdicts were reached from.

    Attributes:
        metrics: their names.
        shifts: of times.
        errors: of error rates.
        rows: how many were tested together.
    """

    metrics: tuple[str, ...]
    shifts: tuple[Shifts, ...]
    errors: tuple[ErrorRate, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class ChangeColumns:
    """A row a change.

    Attributes:
        pairs: places of the cases, [rows].
        metrics: places among the names.
        kinds: places among `KINDS`.
        words: places among `WORDS`.
        sources: of a time which of the shifts, of an error rate which of these it is.
        places: of a time which of those.
        margins: of a time, what share of it counted for nothing; NaN for others.
    """

    pairs: Places
    metrics: Places
    kinds: Places
    words: Places
    sources: Places
    places: Places
    margins: npt.NDArray[np.float64]

    @property
    def each(self) -> tuple[npt.NDArray[Any], ...]:
        """All columns."""
        return self.pairs, self.metrics, self.kinds, self.words, self.sources, self.places, self.margins

    def take(self, rows: Places) -> "ChangeColumns":
        """Some rows."""
        return ChangeColumns(*(each[rows] for each in self.each))


class Changes(Classed[Change]):
    """Changes in columns.

    Args:
        cases: of both runs.
        seen: what verdicts were reached from.
        columns: a row a change.
    """

    def __init__(self, cases: Sequence[Pair], seen: Seen, columns: ChangeColumns) -> None:
        self.cases = cases
        self.seen = seen
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns.pairs)

    def take(self, places: Places) -> Self:
        """The changes at some places."""
        return type(self)(self.cases, self.seen, self.columns.take(places))

    def item(self, place: int) -> Change:
        """The change at a place."""
        known = self.columns
        pair, kind, word = self.cases[int(known.pairs[place])], KINDS[known.kinds[place]], WORDS[known.words[place]]
        metric, rows = self.seen.metrics[known.metrics[place]], self.seen.rows
        if kind == "status":
            text = f"{pair.base.status} → {pair.new.status}"
            return Change(pair, metric, kind, None, None, None, word, text=text)
        if kind == "error":
            found = self.seen.errors[known.sources[place]]
            return Change(pair, metric, kind, found.base, found.new, found.seen, word, rows=rows)
        base, new = _number(pair.base, metric), _number(pair.new, metric)
        if kind not in TESTED:
            return Change(pair, metric, kind, base, new, None, word)
        shift = self.seen.shifts[known.sources[place]][int(known.places[place])]
        margin = float(known.margins[place])
        return Change(pair, metric, kind, base, new, shift, word, margin=margin, rows=rows)

    @cached_property
    def classes(self) -> Classes:
        """Changes are alike that are of the same metric in cases that are alike, with the same verdict and margin."""
        known, cases = self.columns, self.cases
        of = cases.classes.of[known.pairs] if isinstance(cases, StoredPairs) else known.pairs
        margins = np.unique(known.margins, return_inverse=True)[1]
        shifts = np.where(np.isin(known.kinds, [KINDS.index(kind) for kind in TESTED]), known.sources, 0)
        return classes_of(of, known.metrics, known.kinds, known.words, shifts, margins)


@dataclass(slots=True)
class Rows:
    """Changes of one metric, not yet in their order.

    Attributes:
        metric: its name.
        kind: how it was compared.
        cases: places of the cases, [rows].
        positions: places among the numbers of a case, [rows].
        words: places among `WORDS`, [rows].
        source: of times which of the shifts.
        margins: of times, [rows].
        places: of times which rows of that shift; None for all of them in order.
    """

    metric: str
    kind: Kind
    cases: Places
    positions: Places
    words: Places
    source: int = 0
    margins: npt.NDArray[np.float64] | None = None
    places: Places | None = None

    def columns(self, metric: int) -> ChangeColumns:
        """All columns; of error rates each row is of one of its own."""
        count, kind = len(self.cases), KINDS.index(self.kind)
        at = np.arange(count) if self.places is None else self.places
        metrics, kinds, sources = (np.full(count, value) for value in (metric, kind, self.source))
        if self.kind == "error":
            sources = at
        margins = np.full(count, np.nan) if self.margins is None else self.margins
        return ChangeColumns(self.cases, metrics, kinds, self.words, sources, at, margins)


def changes_of(
    pairs: Sequence[Pair], rows: Sequence[Rows], shifts: tuple[Shifts, ...], errors: tuple[ErrorRate, ...], tested: int
) -> Changes:
    """Changes case by case, in each in the order of positions; error rates last."""
    numbers: dict[str, int] = {}
    columns = [each.columns(numbers.setdefault(each.metric, len(numbers))) for each in rows]
    seen = Seen(tuple(numbers), shifts, errors, tested)
    whole = ChangeColumns(*map(np.concatenate, zip(*(each.each for each in columns), strict=True)))
    positions = np.concatenate([each.positions for each in rows])
    return Changes(pairs, seen, whole.take(np.lexsort((positions, whole.pairs, whole.kinds == KINDS.index("error")))))


def _number(record: Record, metric: str) -> float | None:
    return op_calls(record) if metric == OP_CALLS else value_of(record.metrics, metric)


def words(changes: Sequence[Change]) -> Places:
    """The verdicts, by their places among `WORDS`, [changes]."""
    if isinstance(changes, Changes):
        return changes.columns.words
    return np.array([WORDS.index(each.verdict) for each in changes], dtype=np.int64)


def counts(changes: Sequence[Change]) -> Mapping[tuple[Word, Kind], int]:
    """How many numbers came out how, by how they were compared."""
    if not isinstance(changes, Changes):
        return Counter((each.verdict, each.kind) for each in changes)
    known = np.bincount(changes.columns.words * len(KINDS) + changes.columns.kinds, minlength=len(WORDS) * len(KINDS))
    names = ((word, kind) for word in WORDS for kind in KINDS)
    return Counter({name: count for name, count in zip(names, known.tolist(), strict=True) if count})


def seeds(changes: Sequence[Change]) -> set[int]:
    """Of the cases of changes."""
    if isinstance(changes, Changes):
        return set(base_seeds(changes.cases, changes.columns.pairs))
    return {each.pair.base.case.seed for each in changes}
