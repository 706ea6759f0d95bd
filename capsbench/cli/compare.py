"""`capsbench compare`: what changed from one run to another, and whether that is anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from capsbench.cli.options import EXIT_WORSE, ROWS, ResultsOption, RowsOption, rows_of
from capsbench.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsbench.measure.environment import Machine
    from capsbench.record.changes import Change
    from capsbench.record.noise import Noise
    from capsbench.record.pairs import Pairing
    from capsbench.store.run import RunStore

EXAMPLE = "capsbench compare 20261120T080000Z latest --fail-on worse"

FailOn = Literal["worse", "worse-exact"]

_RUN = "Folder, run id or the beginning of one, or latest."


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_RUN)],
    b: Annotated[str, typer.Argument(metavar="B", help=_RUN)],
    *,
    case: Annotated[str | None, typer.Option(metavar="GLOB", help="Only cases like this.", show_default=False)] = None,
    margin: Annotated[
        float, typer.Option(min=0.001, max=10.0, help="What share of a time counts for nothing; or the noise floor.")
    ] = 0.05,
    everything: Annotated[bool, typer.Option("--all", help="Show what is the same, too.")] = False,
    fail_on: Annotated[
        FailOn | None,
        typer.Option(
            help="Exit with 1 where anything is worse; with worse-exact only for what no noise can move: numbers that "
            "repeat exactly, and how cases end.",
            show_default=False,
        ),
    ] = None,
    format_: Annotated[
        Literal["csv", "json", "md", "latex"] | None,
        typer.Option("--format", help="For papers, pages, programs; else for the screen.", show_default=False),
    ] = None,
    rows: RowsOption = str(ROWS),
    results: ResultsOption = Path("results"),
) -> None:
    """Set run B beside run A: every number that both have, with one word for each.

    What repeats exactly (bytes, calls, FLOPs) is compared exactly, times by
    the processes they were measured in, error rates seed by seed. A time
    must differ by more than the margin and the noise floor of its machine.
    The two sides of a `capsbench continuous` are compared round by round.
    """
    from capsbench.record.compare import Unchanged
    from capsbench.record.compare import compare as changes_of
    from capsbench.report.comparison import apart, comparison_tables, noise_notes, summary, verdict_table
    from capsbench.report.console import console, print_notes, print_table
    from capsbench.report.explanation import explanations
    from capsbench.report.export import WRITERS
    from capsbench.store.runs import open_run

    most = rows_of(rows)
    stores = open_run(results, a), open_run(results, b)
    pairing = _paired(*stores, case)
    noise, told = _noise(stores, results)
    unchanged = None if everything else Unchanged()
    in_turns = _took_turns(*stores)
    changes = changes_of(pairing.pairs, margin=margin, noise=noise, interleaved=in_turns, unchanged=unchanged)
    shown = None if format_ else most
    tables = comparison_tables(changes, everything=everything, margin=margin, most=shown, unchanged=unchanged)
    held = [*noise_notes(changes, noise, interleaved=in_turns), *told]
    told_apart = apart(pairing, most)
    said = [*explanations(changes), *held, *summary(changes, pairing, unchanged), *told_apart, *_surroundings(*stores)]
    if format_ is not None:
        counts = verdict_table(changes, tuple(store.run_id for store in stores), said, unchanged)
        sys.stdout.writelines(WRITERS[format_].text([counts, *tables]))
    else:
        screen = console()
        for table in tables:
            print_table(table, screen, most)
        print_notes(said, screen)
    if any(fails(change, fail_on) for change in changes):
        raise typer.Exit(EXIT_WORSE)


def _paired(a: RunStore, b: RunStore, case: str | None) -> Pairing:
    """The cases of both runs, those that are in both as pairs.

    Raises:
        BadInput: there are none.
    """
    from capsbench.record.pairs import pair_cases

    pairing = pair_cases(a.stored_records(case), b.stored_records(case))
    if not pairing.pairs:
        raise BadInput(
            f"{a.run_id} and {b.run_id} have no case in common; a case is known by its network, "
            "data set, batch, seed, backend, mode and setting"
        )
    return pairing


def fails(change: Change, fail_on: FailOn | None) -> bool:
    """Whether a change is what `--fail-on` asks for."""
    gated = fail_on == "worse" or (fail_on == "worse-exact" and change.kind in {"exact", "status"})
    return gated and change.verdict == "worse"


def _took_turns(*stores: RunStore) -> bool:
    """Whether the runs are the two sides of one `capsbench continuous`, whose rounds belong together."""
    headers = [store.header() for store in stores]
    sides = [found if isinstance(found := header.get("continuous"), dict) else {} for header in headers]
    alike = [
        (header.get("started"), side.get("base"), side.get("head")) for header, side in zip(headers, sides, strict=True)
    ]
    return alike[0] == alike[1] and {side.get("side") for side in sides} == {"base", "head"}


def _noise(stores: tuple[RunStore, RunStore], results: Path) -> tuple[list[Noise], list[str]]:
    """What is known of the noise of the runs' machines, of each once and as of B; and what must be said of that."""
    from capsbench.measure.environment import describe_machine, machine_class

    found: dict[Machine, Noise] = {}
    told = []
    for name, store in zip("AB", stores, strict=True):
        noise = known_noise(store, results)
        if noise is None:
            told.append(f"noise floor: none is known of the machine that {name} was on")
        else:
            found[noise.machine] = noise
    here = describe_machine()
    told += [
        f"{machine.processor} is not the machine that you are on"
        for machine in found
        if machine not in {here, machine_class(here)}
    ]
    return list(found.values()), told if found else []


def known_noise(store: RunStore, results: Path) -> Noise | None:
    """The noise of the machine that a run was on: as known when it began, or else as it has been recorded since."""
    from pydantic import TypeAdapter, ValidationError

    from capsbench.measure.environment import Machine
    from capsbench.record.noise import from_header, kept_noise

    header = store.header()
    known = from_header(header)
    if known is not None:
        return known
    try:
        machine = TypeAdapter(Machine).validate_python(header["environment"]["machine"])
    except (ValidationError, KeyError, TypeError):  # a run.json of another make
        return None
    return kept_noise(results, machine)


def _surroundings(a: RunStore, b: RunStore) -> Iterator[str]:
    """What else differs between the runs and may have moved times."""
    environments = [store.header().get("environment") for store in (a, b)]
    first, second = (each if isinstance(each, dict) else {} for each in environments)
    if first.get("machine") != second.get("machine"):
        yield "the runs were on different machines: their times say nothing about the change"
    packages = [each.get("packages") or {} for each in (first, second)]
    moved = sorted(name for name in {*packages[0], *packages[1]} if packages[0].get(name) != packages[1].get(name))
    if moved:
        told = (f"{name} {packages[0].get(name, 'none')} → {packages[1].get(name, 'none')}" for name in moved)
        yield f"other versions: {', '.join(told)}"
    for name, store in (("A", a), ("B", b)):
        if store.damaged_lines:
            yield f"damaged lines of {name}'s records.jsonl were skipped: {', '.join(map(str, store.damaged_lines))}"
