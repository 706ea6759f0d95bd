"""The columns of a catalog: whole and real numbers, a row a line, and what these point to, once for all that agree."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from capsbench.record.packed import Layout, PackedMetrics
from capsbench.record.schema import CaseKey, DataParallel, Fingerprint, Parity, SplitFacts, Status

ParityErrorName = Literal["forward_max_relative_error", "gradient_relative_error"]
"""Of the numbers in which parities of one kind of case differ."""

NO_CALLS: Final = -(2**63)
"""Stands among calls where no step was profiled."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line lies: its number (from 1), its first byte, how many it has."""

    number: int
    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Kind:
    """What many records have in common.

    Attributes:
        schema: as in `Record`, and so are those that are not told of here.
        lacks: which of the fields left out are empty.
        op_names: of the profiled step.
    """

    schema: int
    run: str
    status: Status
    reason: str
    lacks: frozenset[str]
    op_names: frozenset[str]
    data: dict[str, SplitFacts]
    notes: tuple[str, ...]
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class Checks:
    """What was checked before anything was timed; of a parity, but for its errors, many records have it in common."""

    parity: Parity | None
    data_parallel: DataParallel | None = None

    def bare(self) -> "Checks":
        """Without the errors of the parity."""
        return self.with_errors(0.0, 0.0)

    def with_errors(self, forward: float, gradient: float) -> "Checks":
        """With other errors of the parity, where there is one."""
        if self.parity is None:
            return self
        parity = replace(self.parity, forward_max_relative_error=forward, gradient_relative_error=gradient)
        return replace(self, parity=parity)


@dataclass(frozen=True, slots=True)
class Shared:
    """What the columns point to, and the ids of the cases.

    Attributes:
        ids: of the case of each row; None for a line of another make, which must be read whole.
        settings: cases without their ids and seeds.
        checks: without the errors of their parity.
        kinds: everything else that rows have in common.
        layouts: of metrics.
    """

    ids: list[str | None] = field(default_factory=list)
    settings: list[CaseKey] = field(default_factory=list)
    checks: list[Checks] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    layouts: tuple[Layout, ...] = ()


def _whole() -> "array[int]":
    return array("q")


def _real() -> "array[float]":
    return array("d")


@dataclass(frozen=True, slots=True)
class Columns:
    """A row a line that holds something.

    Attributes:
        lines: their numbers, from 1.
        starts: where they begin, in bytes.
        sizes: in bytes.
        seeds: of the cases.
        op_calls: of all ops of the profiled step, or NO_CALLS.
        setting_of: index among the settings; this and the next three are -1 for a line of another make.
        checks_of: index among the checks.
        kind_of: index among the kinds.
        layout_of: number of the layout of its metrics.
        forward_errors: of the parity; 0 where there is none.
        gradient_errors: likewise.
    """

    lines: "array[int]" = field(default_factory=_whole)
    starts: "array[int]" = field(default_factory=_whole)
    sizes: "array[int]" = field(default_factory=_whole)
    seeds: "array[int]" = field(default_factory=_whole)
    op_calls: "array[int]" = field(default_factory=_whole)
    setting_of: "array[int]" = field(default_factory=_whole)
    checks_of: "array[int]" = field(default_factory=_whole)
    kind_of: "array[int]" = field(default_factory=_whole)
    layout_of: "array[int]" = field(default_factory=_whole)
    forward_errors: "array[float]" = field(default_factory=_real)
    gradient_errors: "array[float]" = field(default_factory=_real)

    @property
    def each(self) -> "tuple[array[Any], ...]":
        """All columns."""
        return tuple(getattr(self, each.name) for each in fields(self))

    def place(self, at: int) -> Place:
        """Where the line of a row lies."""
        return Place(self.lines[at], self.starts[at], self.sizes[at])


class Row:
    """What a catalog says of a line.

    Args:
        at: which row of the columns it is.
        columns: of the catalog.
        shared: likewise.
        case: which case it is of.
        metrics: of the record.

    Attributes:
        case: which case it is of.
        kind: what its record has in common with others.
        metrics: of the record.
    """

    __slots__ = ("_at", "_columns", "_shared", "case", "kind", "metrics")

    def __init__(self, at: int, columns: Columns, shared: Shared, case: CaseKey, metrics: PackedMetrics) -> None:
        self._at = at
        self._columns = columns
        self._shared = shared
        self.case = case
        self.kind = shared.kinds[columns.kind_of[at]]
        self.metrics = metrics

    @property
    def place(self) -> Place:
        """Where the line lies."""
        return self._columns.place(self._at)

    @property
    def op_calls(self) -> int | None:
        """Of all ops of the profiled step; None where it was not profiled."""
        calls = self._columns.op_calls[self._at]
        return None if calls == NO_CALLS else calls

    @property
    def checks(self) -> Checks:
        """What was checked, made anew whenever it is asked for."""
        known, at = self._columns, self._at
        return self._bare.with_errors(known.forward_errors[at], known.gradient_errors[at])

    def parity_error(self, name: ParityErrorName) -> float | None:
        """One of the errors of the parity; None where there was none."""
        if self._bare.parity is None:
            return None
        known = self._columns
        return (known.forward_errors if name.startswith("forward") else known.gradient_errors)[self._at]

    @property
    def _bare(self) -> Checks:
        return self._shared.checks[self._columns.checks_of[self._at]]


def whole_numbers(column: "array[int]") -> NDArray[np.int64]:
    """A column, not copied; it cannot grow while that is kept."""
    return np.frombuffer(column, dtype=np.int64) if column else np.zeros(0, dtype=np.int64)


def case_maker(setting: CaseKey) -> Callable[[str, int], CaseKey]:
    """Makes cases of a setting, of an id and a seed: quicker than their constructor, of which many would be called."""
    put = {each.name: getattr(CaseKey, each.name).__set__ for each in fields(CaseKey)}
    put_id, put_seed = put.pop("id"), put.pop("seed")
    fixed = [(put_fixed, getattr(setting, name)) for name, put_fixed in put.items()]

    def case(name: str, seed: int) -> CaseKey:
        made = object.__new__(CaseKey)
        for put_fixed, value in fixed:
            put_fixed(made, value)
        put_id(made, name)
        put_seed(made, seed)
        return made

    return case
