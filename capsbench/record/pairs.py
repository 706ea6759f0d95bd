"""Cases of two runs side by side: which are the same work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capsbench.record.grouping import grouped
from capsbench.record.schema import CaseKey, Fingerprint, Record

APART: Final = "rounds of its times were taken one after the other, not side by side"
"""A note on a case whose sides were not there at the same time, though they took turns."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A case of A and the same case of B."""

    base: Record
    new: Record

    @property
    def beside(self) -> bool:
        """Whether both were there at the same time, if they took turns."""
        return APART not in self.base.notes and APART not in self.new.notes


@dataclass(frozen=True, slots=True)
class Pairing:
    """The cases that both runs have, and those that one has alone."""

    pairs: Sequence[Pair]
    only_base: Sequence[Record]
    only_new: Sequence[Record]


def setting(case: CaseKey, fingerprint: Fingerprint) -> tuple[object, ...]:
    """What makes cases the same work, all but the seed."""
    what = (case.network, fingerprint.network, case.dataset, case.batch, case.routing_iterations)
    return (*what, case.backend, case.mode, case.device, case.threads, case.devices, case.precision, case.allocator)


def setting_of(record: Record) -> tuple[object, ...]:
    """Likewise."""
    return setting(record.case, record.fingerprint)


def pair_cases(base: Sequence[Record], new: Sequence[Record]) -> Pairing:
    """Match cases by what they do: network, data set, realization and setting, and the hash of the network's spec.

    Cases that do the same by all of those, as those of two suites may, are told apart by their ids.
    """
    in_base, in_new = grouped(base, _work), grouped(new, _work)
    matched: list[Pair] = []
    for work, cases in in_base.items():
        others = in_new.get(work, [])
        if len(cases) == len(others) == 1:
            matched.append(Pair(cases[0], others[0]))
        elif others:
            by_id = {other.case.id: other for other in others}
            matched += [Pair(case, by_id[case.case.id]) for case in cases if case.case.id in by_id]
    paired = {id(record) for pair in matched for record in (pair.base, pair.new)}
    alone = (tuple(record for record in side if id(record) not in paired) for side in (base, new))
    return Pairing(tuple(matched), *alone)


def _work(record: Record) -> tuple[object, ...]:
    return *setting_of(record), record.case.seed
