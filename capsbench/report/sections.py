"""From what a person asks to see of a run to tables."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from capsbench.measure.optable import Phase
from capsbench.record.ceilings import DeviceCeilings
from capsbench.record.claims import Ledger
from capsbench.record.schema import Record
from capsbench.report import iterations, ops, peak, roofline, routing
from capsbench.report.claims import claims_table
from capsbench.report.distributions import distribution_tables
from capsbench.report.groups import Group, Makers, Which, by_group
from capsbench.report.iterations import slope_tables, sloped_networks
from capsbench.report.ops import By, Sort, View
from capsbench.report.rows import few
from capsbench.report.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """Which tables, and how they look at a step.

    Attributes:
        ops: the most expensive ops, by op or by phase.
        layers: layers, alone and against the equations.
        iterations: routing iterations, the slope, the routing metrics.
        peak: what is alive when memory is at its peak.
        histograms: distributions of activations and poses.
        claims: what was published on the networks, in full.
        top: rows of ops, layers and tensors before the others are summed up.
        sort: order of ops and layers.
        phase: the only one of the step that is taken apart.
        which: a train step or an evaluation.
        most: rows that will be shown of a table, which `few` makes tables of a kind of; None for all.
    """

    ops: By | None = None
    layers: bool = False
    iterations: bool = False
    peak: bool = False
    histograms: bool = False
    claims: bool = False
    top: int = 10
    sort: Sort = "share"
    phase: Phase | None = None
    which: Which = "train_step"
    most: int | None = None


def section_tables(
    records: Sequence[Record],
    asked: Sections,
    ceilings: Sequence[DeviceCeilings] = (),
    ledger: Ledger | None = None,
) -> Iterator[Table]:
    """The tables asked for, one after another.

    Args:
        records: of a run.
        asked: which.
        ceilings: of the machine that the run was on, for the layers.
        ledger: the published numbers, for the claims.
    """
    makers = group_makers(records, asked, ceilings)
    # Group by group, so that of each record ops and layers are read once for all sections.
    yield from few(by_group(records, makers), None if asked.most is None else asked.most * len(makers))
    yield from closing_tables(records, asked, ledger)


def closing_tables(records: Sequence[Record], asked: Sections, ledger: Ledger | None = None) -> Iterator[Table]:
    """The tables asked for that are not of one group of cases."""
    if asked.iterations:
        yield from slope_tables(records)
    if asked.histograms:
        yield from distribution_tables(records)
    if asked.claims and ledger is not None:
        yield from claims_table(records, ledger)


def group_makers(records: Sequence[Record], asked: Sections, ceilings: Sequence[DeviceCeilings]) -> Makers[Table]:
    """What makes the tables asked for of cases that do the same work."""
    return dict(_makers(records, asked, ceilings))


def _makers(
    records: Sequence[Record], asked: Sections, ceilings: Sequence[DeviceCeilings]
) -> Iterator[tuple[str, Callable[[Group], Iterable[Table]]]]:
    top, sort, phase, which = asked.top, asked.sort, asked.phase, asked.which
    if asked.ops:
        yield ops.TITLES[asked.ops], partial(ops.of_group, view=View(asked.ops, top, sort, phase, which))
    if asked.layers:
        yield ops.TITLES["layer"], partial(ops.of_group, view=View("layer", top, sort, phase, which))
        yield roofline.TITLE, partial(roofline.of_group, ceilings=ceilings, which=which)
    if asked.iterations:
        sloped = sloped_networks(records)
        yield iterations.TITLE, partial(iterations.of_group, phase=phase, which=which, sloped=sloped)
        yield routing.TITLE, routing.of_group
    if asked.peak:
        yield peak.TITLE, partial(peak.of_group, top=top, which=which)
