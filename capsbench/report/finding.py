"""A published claim beside what a run found."""

from dataclasses import dataclass
from typing import Final, Literal

from capsbench.report.format import NOTHING

Verdict = Literal["holds", "does not hold", "cannot be checked here"]

UNCHECKED: Final[Verdict] = "cannot be checked here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One claim.

    Attributes:
        claim: in a few words.
        theirs: the published number, with its unit.
        ours: the measured one.
        verdict: whether the claim holds in this run.
        why: what the verdict rests on.
    """

    claim: str
    theirs: str
    ours: str = NOTHING
    verdict: Verdict = UNCHECKED
    why: str


def verdict(*, holds: bool) -> Verdict:
    """The verdict on a claim that could be checked."""
    return "holds" if holds else "does not hold"
