"""Cases that do the same work: which records stand side by side in one table, and what each is called there."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Literal, TypeVar

from capsbench.measure.optable import StepProfile
from capsbench.record.grouping import distinct, grouped
from capsbench.record.schema import CaseKey, Record
from capsbench.report import format as fmt
from capsbench.store.records import may_have, whole_of

T = TypeVar("T")

Wanted = Callable[[str], bool]
"""Whether a table with such a title is wanted."""
Which = Literal["train_step", "forward"]

STEP_NAMES: dict[Which, str] = {"train_step": "one train step", "forward": "one evaluation"}
_WORK = attrgetter("case.network", "case.dataset", "case.batch", "case.routing_iterations")
_SETTINGS = ("device", "threads", "precision", "allocator")


@dataclass(frozen=True, slots=True)
class Side:
    """One realization of a group, by its first record that has what a table is about."""

    name: str
    record: Record


@dataclass(frozen=True, slots=True)
class Step(Side):
    """One realization of a group, by its first record of which a step was profiled, and that step."""

    profile: StepProfile


@dataclass(frozen=True)
class Group:
    """Records of one network, data set, batch and iteration count.

    Attributes:
        records: in the order given.
    """

    records: Sequence[Record]

    @cached_property
    def case(self) -> CaseKey:
        """Of the first record."""
        return self.records[0].case

    @cached_property
    def names(self) -> Sequence[str]:
        """Of each record, `backend:mode` and whatever else tells the realizations of the group apart.

        Records that differ in their seed only share a name.
        """
        return realization_names(self.records)

    @cached_property
    def realizations(self) -> tuple[Side, ...]:
        """Each by its first record."""
        return sides(self, lambda _: True)

    @cached_property
    def train_steps(self) -> tuple[Step, ...]:
        """What was profiled of each realization, read once for all tables of the group."""
        return _steps(self, "train_step")

    @cached_property
    def evaluations(self) -> tuple[Step, ...]:
        """Likewise."""
        return _steps(self, "forward")

    def steps(self, which: Which) -> tuple[Step, ...]:
        """The train steps or the evaluations."""
        return self.evaluations if which == "forward" else self.train_steps


Makers = Mapping[str, Callable[[Group], Iterable[T]]]
"""What makes tables of a group, by what `title` is given to call them."""


def groups(records: Sequence[Record]) -> tuple[Group, ...]:
    """The records by what they do, in the order in which each first comes."""
    return tuple(map(Group, grouped(records, _WORK).values()))


def by_group(records: Sequence[Record], makers: Makers[T]) -> Iterator[T]:
    """The tables of one group after the other, made when they are asked for."""
    return (table for found in grouped(records, _WORK).values() for table in tables_of(Group(found), makers))


def tables_of(group: Group, makers: Makers[T], wanted: Wanted = lambda _: True) -> Iterator[T]:
    """The tables of a group; of one whose title is not wanted nothing is read."""
    for text, make in makers.items():
        if wanted(title(text, group)):
            yield from make(group)


def sides(
    group: Group, has: Callable[[Record], object], may_have: Callable[[Record], object] = lambda _: True
) -> tuple[Side, ...]:
    """The realizations of a group that have something to show.

    Args:
        group: of records.
        has: whether a record has it.
        may_have: whether it may, as far as is known without reading its line.
    """
    return _first_of_each(group, lambda name, record: Side(name, record) if has(record) else None, may_have)


def _steps(group: Group, which: Which) -> tuple[Step, ...]:
    def step(name: str, record: Record) -> Step | None:
        whole = whole_of(record)
        profile = _profile(whole, which)
        return None if profile is None else Step(name, whole, profile)

    return _first_of_each(group, step, lambda record: _may_have_step(record, which))


def _first_of_each(
    group: Group, find: Callable[[str, Record], T | None], may_have: Callable[[Record], object]
) -> tuple[T, ...]:
    """Of each realization what is found first, in the order of the records that it is found in."""
    found: dict[str, T] = {}
    for name, record in zip(group.names, group.records, strict=True):
        if name not in found and may_have(record) and (one := find(name, record)) is not None:
            found[name] = one
    return tuple(found.values())


def realization_names(records: Sequence[Record]) -> tuple[str, ...]:
    """For each record `backend:mode`, and the settings in which the records differ."""
    varying = [name for name in _SETTINGS if len(distinct(records, attrgetter(f"case.{name}"))) > 1]

    def name_of(record: Record) -> str:
        case = record.case
        return fmt.label(", ".join([case.realization, *(f"{name} {getattr(case, name)}" for name in varying)]))

    return tuple(map(name_of, records))


def title(text: str, group: Group) -> str:
    """A table's title: what it shows, and of which network."""
    return f"{text}: {fmt.label(group.case.network)}"


def context(group: Group, *more: str) -> tuple[str, ...]:
    """What all records of a group share."""
    case = group.case
    iterations = "no routing" if case.routing_iterations is None else f"iterations {case.routing_iterations}"
    return fmt.label(case.dataset), f"batch {fmt.count(case.batch)}", iterations, *more


def seed_notes(group: Group) -> Iterator[str]:
    """A sentence on the seed shown, where there are several."""
    if len({record.case.seed for record in group.records}) > 1:
        yield f"seed {group.case.seed}; the others do the same work."


def _may_have_step(record: Record, which: Which) -> bool:
    """Whether the profiler may have seen a train step, or an evaluation; without reading the record's line."""
    return may_have(record, "ops" if which == "train_step" else "forward_profile")


def _profile(record: Record, which: Which) -> StepProfile | None:
    """What the profiler saw of a step; None where it saw no op."""
    if which == "forward":
        return record.forward_profile if record.forward_profile and record.forward_profile.events else None
    if record.step_profile_seconds is None or record.step_profile_bytes is None or not record.ops:
        return None
    return StepProfile(
        events=record.ops,
        step_seconds=record.step_profile_seconds,
        allocated_bytes=record.step_profile_bytes,
        bare_seconds=record.step_bare_seconds,
        peak_bytes=sum(tensor.bytes for tensor in record.alive_at_peak) if record.alive_at_peak else None,
        alive_at_peak=record.alive_at_peak,
    )
