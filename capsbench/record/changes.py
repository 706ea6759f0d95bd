"""What changed between two runs: a row for each number that both have, made when it is asked for."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from capsbench.metrics import OP_CALLS
from capsbench.record.pairs import Pair
from capsbench.record.schema import Record
from capsbench.stats.shift import Shift, Shifts
from capsbench.stats.verdict import Difference, Verdict, samples_needed
from capsbench.store.records import op_calls, read_metrics_of, value_of

Kind = Literal["status", "exact", "bytes", "time", "rate", "error"]
Word = Verdict | Literal["changed"]
"""A verdict, or that an exact number of no direction is another one."""
Places = npt.NDArray[np.int64]

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
class Rows:
    """Changes of one metric that were compared alike.

    Attributes:
        metric: its name.
        kind: how it was compared.
        order: of the metric among those of a case.
        pairs: places of the cases, [rows].
        words: places among `WORDS`, [rows].
        shifts: of times, [rows].
        errors: of error rates, [rows].
        margins: of times, what share of each counted for nothing, [rows].
    """

    metric: str
    kind: Kind
    order: int
    pairs: Places
    words: Places
    shifts: Shifts | None = None
    errors: Sequence[ErrorRate] = ()
    margins: npt.NDArray[np.float64] | None = None

    def change(self, row: int, pair: Pair, tested: int) -> Change:
        """The change in a row."""
        metric, kind, word = self.metric, self.kind, WORDS[self.words[row]]
        if kind == "status":
            text = f"{pair.base.status} → {pair.new.status}"
            return Change(pair, metric, kind, None, None, None, word, text=text)
        if kind == "error":
            found = self.errors[row]
            return Change(pair, metric, kind, found.base, found.new, found.seen, word, rows=tested)
        base, new = _number(pair.base, metric), _number(pair.new, metric)
        if self.shifts is None or self.margins is None:
            return Change(pair, metric, kind, base, new, None, word)
        margin = float(self.margins[row])
        return Change(pair, metric, kind, base, new, self.shifts[row], word, margin=margin, rows=tested)


@dataclass(frozen=True, slots=True, eq=False)
class Changes(Sequence[Change]):
    """Changes that are made when they are asked for.

    Attributes:
        pairs: the cases.
        parts: the changes, metric by metric.
        tested: how many were tested together.
        part_of: the part of each change, [changes].
        row_of: its row there, [changes].
    """

    pairs: Sequence[Pair]
    parts: Sequence[Rows]
    tested: int
    part_of: Places
    row_of: Places

    def __len__(self) -> int:
        return len(self.part_of)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204 - of Sequence
        if not isinstance(index, slice):
            return self._change(int(self.part_of[index]), int(self.row_of[index]))
        places = list(zip(self.part_of[index].tolist(), self.row_of[index].tolist(), strict=True))
        pairs = [self.pairs[self.parts[part].pairs[row]] for part, row in places]
        for side in ([pair.base for pair in pairs], [pair.new for pair in pairs]):
            read_metrics_of(side)
        return [self._change(part, row) for part, row in places]

    def _change(self, part: int, row: int) -> Change:
        of = self.parts[part]
        return of.change(row, self.pairs[of.pairs[row]], self.tested)

    def take(self, places: Places) -> "Changes":
        """The changes at some places."""
        return replace(self, part_of=self.part_of[places], row_of=self.row_of[places])

    @property
    def words(self) -> Places:
        """The verdicts, by their places among `WORDS`, [changes]."""
        words = np.concatenate([part.words for part in self.parts] or [_NONE])
        starts = np.cumsum([0, *(len(part.words) for part in self.parts)])
        found: Places = words[starts[self.part_of] + self.row_of]
        return found

    @property
    def kinds(self) -> Places:
        """How each was compared, by the places among `KINDS`, [changes]."""
        kinds = np.array([KINDS.index(part.kind) for part in self.parts], dtype=np.int64)
        found: Places = kinds[self.part_of]
        return found


def in_order(pairs: Sequence[Pair], parts: Sequence[Rows], tested: int) -> Changes:
    """Changes case by case, in each in the order of its metrics; error rates last."""
    sizes = [len(part.pairs) for part in parts]
    part_of = np.repeat(np.arange(len(parts)), sizes)
    row_of = np.concatenate([np.arange(size) for size in sizes] or [_NONE])
    pair_of = np.concatenate([part.pairs for part in parts] or [_NONE])
    metric_of = np.array([part.order for part in parts], dtype=np.int64)[part_of]
    are_errors = np.array([part.kind == "error" for part in parts], dtype=np.bool_)[part_of]
    order = np.lexsort((metric_of, pair_of, are_errors))
    return Changes(pairs, parts, tested, part_of[order], row_of[order])


_NONE: Final = np.zeros(0, dtype=np.int64)


def counts(changes: Sequence[Change]) -> Counter[tuple[Word, Kind]]:
    """How many numbers came out how, by how they were compared."""
    if not isinstance(changes, Changes):
        return Counter((each.verdict, each.kind) for each in changes)
    known = np.bincount(changes.words * len(KINDS) + changes.kinds, minlength=len(WORDS) * len(KINDS)).tolist()
    names = ((word, kind) for word in WORDS for kind in KINDS)
    return Counter({name: count for name, count in zip(names, known, strict=True) if count})


def chosen(
    changes: Sequence[Change], words: Collection[Word], has: Callable[[str], bool] = lambda _: True
) -> Sequence[Change]:
    """The changes with one of some verdicts, in their order; `has` says of which metrics."""
    if not isinstance(changes, Changes):
        return [each for each in changes if each.verdict in words and has(each.metric)]
    parts = np.array([has(part.metric) for part in changes.parts], dtype=np.bool_)
    wanted = np.isin(changes.words, [WORDS.index(word) for word in words]) & parts[changes.part_of]
    return changes.take(np.flatnonzero(wanted))


def worst_first(changes: Sequence[Change]) -> Sequence[Change]:
    """The changes by their verdicts, in the order of `WORDS`."""
    if not isinstance(changes, Changes):
        return sorted(changes, key=lambda each: WORDS.index(each.verdict))
    return changes.take(np.argsort(changes.words, kind="stable"))


def places_of(changes: Sequence[Change], word: Word) -> list[int]:
    """The places of the changes with a verdict."""
    if not isinstance(changes, Changes):
        return [place for place, each in enumerate(changes) if each.verdict == word]
    places: list[int] = np.flatnonzero(changes.words == WORDS.index(word)).tolist()
    return places


class Case(NamedTuple):
    """A case that numbers changed of."""

    pair: Pair


def cases(changes: Sequence[Change]) -> list[Case]:
    """The cases of changes; of stored ones each once."""
    if not isinstance(changes, Changes):
        return [Case(each.pair) for each in changes]
    used = [part.pairs[changes.row_of[changes.part_of == number]] for number, part in enumerate(changes.parts)]
    return [Case(changes.pairs[place]) for place in np.unique(np.concatenate([*used, _NONE])).tolist()]


def seeds(changes: Sequence[Change]) -> set[int]:
    """The seeds of the cases of changes."""
    pairs = changes.pairs if isinstance(changes, Changes) else (each.pair for each in changes)
    return {pair.base.case.seed for pair in pairs}


def tested_examples(changes: Sequence[Change]) -> Sequence[Change]:
    """Changes of times and rates, among which are all metrics, realizations and margins."""
    if not isinstance(changes, Changes):
        return [each for each in changes if each.kind in TESTED]
    found: dict[tuple[object, ...], int] = {}
    tested = np.flatnonzero(np.isin(changes.kinds, [KINDS.index(kind) for kind in TESTED]))
    parts, rows = changes.part_of[tested].tolist(), changes.row_of[tested].tolist()
    for place, part, row in zip(tested.tolist(), parts, rows, strict=True):
        pair = changes.pairs[changes.parts[part].pairs[row]]
        case = pair.base.case
        found.setdefault((part, case.backend, case.mode, case.device, pair.beside), place)
    examples: list[Change] = changes.take(np.array(list(found.values()), dtype=np.int64))[:]
    return examples


def _number(record: Record, metric: str) -> float | None:
    return op_calls(record) if metric == OP_CALLS else value_of(record.metrics, metric)
