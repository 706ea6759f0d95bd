"""What changed between two runs: one number of one case in each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from capsbench.record.pairs import Pair
from capsbench.stats.shift import Shift
from capsbench.stats.verdict import Difference, Verdict, samples_needed

Kind = Literal["status", "exact", "bytes", "time", "rate", "error"]
Word = Verdict | Literal["changed"]
"""A verdict, or that an exact number of no direction is another one."""

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


def counts(changes: Sequence[Change]) -> Mapping[tuple[Word, Kind], int]:
    """How many numbers came out how, by how they were compared."""
    return Counter((each.verdict, each.kind) for each in changes)
