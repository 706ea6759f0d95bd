"""`capsbench show`: the tables of a stored run, or a metric over all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from capsbench.cli.options import ROWS, HistoryOption, ResultsOption, RowsOption, RunArgument, rows_of
from capsbench.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsbench.record.ceilings import DeviceCeilings
    from capsbench.record.claims import Ledger
    from capsbench.record.schema import Record
    from capsbench.report.sections import Sections
    from capsbench.report.tables import Report
    from capsbench.store.run import RunStore

EXAMPLE = "capsbench show latest --case 'em-*' --ops --sort time"

Sort = Literal["share", "bytes", "time"]
Phase = Literal["forward", "backward", "optimizer"]

CaseOption = Annotated[str | None, typer.Option(metavar="GLOB", help="Only cases like this.", show_default=False)]
TopOption = Annotated[
    int, typer.Option(min=1, help="Rows of ops, layers, tensors before the others are summed up; runs of a history.")
]
SortOption = Annotated[Sort, typer.Option(help="Order of ops and layers; share is the larger of the other two's.")]
PhaseOption = Annotated[Phase | None, typer.Option(help="Only this phase of the step.", show_default=False)]


def show(
    run: RunArgument = None,
    *,
    history: HistoryOption = None,
    ops: Annotated[bool, typer.Option("--ops", help="Ops by phase of the train step.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Layers, and what their equations ask for.")] = False,
    iterations: Annotated[bool, typer.Option("--iterations", help="Routing iterations, one by one.")] = False,
    peak: Annotated[bool, typer.Option("--peak", help="What is alive when memory is at its peak.")] = False,
    histograms: Annotated[
        bool, typer.Option("--histograms", help="Spread and sparsity of activations, poses.")
    ] = False,
    claims: Annotated[bool, typer.Option("--claims", help="Published numbers on the networks, with sources.")] = False,
    forward: Annotated[bool, typer.Option("--forward", help="An evaluation, not the train step.")] = False,
    phase: PhaseOption = None,
    sort: SortOption = "share",
    top: TopOption = 10,
    rows: RowsOption = str(ROWS),
    case: CaseOption = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Print the tables of a stored run, and those of its sections that are asked for.

    With --history METRIC it is one metric over all stored runs and their commits; --case picks cases there, too.
    """
    from capsbench.record.claims import ledger_path, read_ledger
    from capsbench.report.sections import Sections
    from capsbench.store.runs import open_run

    if history is not None:
        if run is not None or ops or layers or iterations or peak or histograms or claims or forward or phase:
            raise BadInput("it looks at all runs and goes with --case, --top and --results only", "--history")
        _print_history(results, history, case, top)
        return
    if run is None:
        raise BadInput("missing argument 'RUN'; see capsbench show --help")
    if forward and phase not in {None, "forward"}:
        raise BadInput(f"an evaluation (--forward) has no {phase} phase, legal is forward", "--phase")
    taken_apart = layers or iterations or peak
    # A phase or an evaluation that is asked for alone is asked for as ops.
    ops = ops or ((forward or phase is not None) and not taken_apart)
    asked = Sections(
        ops=("op" if forward or phase else "phase") if ops else None,
        layers=layers,
        iterations=iterations,
        peak=peak,
        histograms=histograms,
        claims=claims,
        top=top,
        sort=sort,
        phase=phase,
        which="forward" if forward else "train_step",
        most=rows_of(rows),
    )
    store = open_run(results, run)
    _print(store.stored_records(case), asked, store, results, read_ledger(ledger_path(results)))


def _print(records: Sequence[Record], asked: Sections, store: RunStore, results: Path, ledger: Ledger) -> None:
    from capsbench.report.console import console, print_notes, print_report, print_table
    from capsbench.report.sections import section_tables

    screen, ceilings = console(), known_ceilings(store, results)
    if not records:
        print_notes([f"no case of {store.run_id} has ended yet."], screen)
    else:
        print_report(whole_report(records, asked, store, ceilings, ledger), screen, asked.most)
    for table in section_tables(records, asked, ceilings, ledger):
        print_table(table, screen, asked.most)
    if store.damaged_lines:
        numbers = ", ".join(map(str, store.damaged_lines))
        print_notes([f"damaged lines of records.jsonl were skipped: {numbers}"], screen)
    screen.print(str(store.folder), soft_wrap=True)


def _print_history(results: Path, metric: str, case: str | None, top: int) -> None:
    from capsbench.record.history import read_history
    from capsbench.report.console import console, print_notes, print_table
    from capsbench.report.trend import said, trend_tables

    screen, history = console(), read_history(results, metric, case)
    for table in trend_tables(history, top=top, ascii_only=screen.options.ascii_only):
        print_table(table, screen)
    print_notes([*said(history)], screen)


def whole_report(
    records: Sequence[Record],
    asked: Sections,
    store: RunStore,
    ceilings: Sequence[DeviceCeilings],
    ledger: Ledger,
    *,
    with_ops: bool = True,
) -> Report:
    """The tables that the run ended with, from what it left on the disk; `with_ops` as in `report`."""
    from capsbench.report.claims import published_tables
    from capsbench.report.history import read_histories
    from capsbench.report.seed import is_seed_study
    from capsbench.report.tables import report

    header = store.header()
    return report(
        records,
        ceilings=ceilings,
        top=asked.top,
        sort=asked.sort,
        seed_study=is_seed_study(header),
        histories=read_histories(records, store.artifacts),
        published=published_tables(records, ledger, header),
        most=asked.most,
        with_ops=with_ops,
    )


def known_ceilings(store: RunStore, results: Path) -> tuple[DeviceCeilings, ...]:
    """Those of the machine that the run was on: as known when it began, or else as they have been measured since."""
    from pydantic import TypeAdapter, ValidationError

    from capsbench.measure.environment import Machine
    from capsbench.record.ceilings import DeviceCeilings, read_ceilings

    header = store.header()
    try:
        known = TypeAdapter(tuple[DeviceCeilings, ...]).validate_python(header.get("ceilings", ()))
        return known or read_ceilings(results, TypeAdapter(Machine).validate_python(header["environment"]["machine"]))
    except (ValidationError, KeyError, TypeError):  # a run.json of another make
        return ()
