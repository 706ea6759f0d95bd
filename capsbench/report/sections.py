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
from capsbench.report.groups import Wanted, Which, by_group, every_title
from capsbench.report.iterations import cost_tables, slope_tables, sloped_networks
from capsbench.report.ops import By, Sort, op_tables
from capsbench.report.peak import peak_tables
from capsbench.report.roofline import roofline_tables
from capsbench.report.routing import routing_tables
from capsbench.report.rows import few
from capsbench.report.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """Which tables, and how they look at a step.

    Attributes:
        ops: ops by phase; of one phase, or of an evaluation, which is all forward, by op.
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

    ops: bool = False
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
    wanted: Wanted = every_title,
) -> Iterator[Table]:
    """The tables asked for, one after another.

    Args:
        records: of a run.
        asked: which.
        ceilings: of the machine that the run was on, for the layers.
        ledger: the published numbers, for the claims.
        wanted: by title, which tables of profiled steps; of others no step is read.
    """
    makers = dict(_of_a_group(records, asked, ceilings))
    # Group by group, so that of each record ops and layers are read once for all sections.
    tables = by_group(records, makers, wanted)
    yield from few(tables, None if asked.most is None else asked.most * len(makers))
    if asked.iterations:
        yield from slope_tables(records)
    if asked.histograms:
        yield from distribution_tables(records)
    if asked.claims and ledger is not None:
        yield from claims_table(records, ledger)


def _of_a_group(
    records: Sequence[Record], asked: Sections, ceilings: Sequence[DeviceCeilings]
) -> Iterator[tuple[str, Callable[[Sequence[Record]], Iterable[Table]]]]:
    """What makes tables of cases that do the same work, and what these are called."""
    top, sort, phase, which = asked.top, asked.sort, asked.phase, asked.which
    if asked.ops:
        by: By = "phase" if phase is None and which == "train_step" else "op"
        yield ops.TITLES[by], partial(op_tables, by=by, top=top, sort=sort, phase=phase, which=which)
    if asked.layers:
        yield ops.TITLES["layer"], partial(op_tables, by="layer", top=top, sort=sort, phase=phase, which=which)
        yield roofline.TITLE, partial(roofline_tables, ceilings=ceilings, which=which)
    if asked.iterations:
        yield iterations.TITLE, partial(cost_tables, phase=phase, which=which, sloped=sloped_networks(records))
        yield routing.TITLE, routing_tables
    if asked.peak:
        yield peak.TITLE, partial(peak_tables, top=top, which=which)
