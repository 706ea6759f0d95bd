"""`capsbench compare`: what changed from one run to another, and whether that is anything."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import TypeAdapter, ValidationError

from capsbench.cli.options import EXIT_WORSE, ROWS, ResultsOption, RowsOption, rows_of
from capsbench.errors import BadInput
from capsbench.measure.environment import Machine, describe_machine, machine_class
from capsbench.record.changes import Kind, Word, counts
from capsbench.record.compare import compare as changes_of
from capsbench.record.noise import Noise, from_header, kept_noise
from capsbench.record.pairs import Pairing, pair_cases
from capsbench.report.comparison import apart, comparison_tables, noise_notes, summary, verdict_table
from capsbench.report.console import console, print_notes, print_table
from capsbench.report.explanation import explanations
from capsbench.report.export import WRITERS
from capsbench.store.run import RunStore
from capsbench.store.runs import open_run

EXAMPLE = "capsbench compare 20261120T080000Z latest --fail-on worse"

FailOn = Literal["worse", "worse-exact"]

_RUN = "Run folder, run id or its beginning, or latest."


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_RUN)],
    b: Annotated[str, typer.Argument(metavar="B", help=_RUN)],
    *,
    case: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Only cases whose id, network or backend:mode matches.", show_default=False),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=10.0,
            help="Relative differences of times below this, or below the noise floor, count as same.",
        ),
    ] = 0.05,
    everything: Annotated[bool, typer.Option("--all", help="Also show metrics that are the same.")] = False,
    fail_on: Annotated[
        FailOn | None,
        typer.Option(
            help="Exit with 1 if any metric is worse; worse-exact only considers deterministic metrics and statuses.",
            show_default=False,
        ),
    ] = None,
    format_: Annotated[
        Literal["csv", "json", "md", "latex"] | None,
        typer.Option("--format", help="Write in this format instead of printing to the terminal.", show_default=False),
    ] = None,
    rows: RowsOption = str(ROWS),
    results: ResultsOption = Path("results"),
) -> None:
    """Compare two runs: every metric they share, with ratio, interval and verdict.

    Deterministic metrics (bytes, calls, FLOPs) are compared exactly, times
    by a rank test over processes, error rates seed by seed. A time counts as
    changed only beyond the margin and the noise floor of its machine. The
    two sides of a `capsbench continuous` are compared round by round.
    """
    most = rows_of(rows)
    stores = open_run(results, a), open_run(results, b)
    pairing = _paired(*stores, case)
    noise, told = _noise(stores, results)
    in_turns = _took_turns(*stores)
    changes = changes_of(pairing.pairs, margin=margin, noise=noise, interleaved=in_turns)
    shown = None if format_ else most
    tables = comparison_tables(changes, everything=everything, margin=margin, most=shown)
    held = [*noise_notes(changes, noise, interleaved=in_turns), *told]
    told_apart = apart(pairing, most)
    said = [*explanations(changes), *held, *summary(changes, pairing), *told_apart, *_surroundings(*stores)]
    if format_ is not None:
        verdicts = verdict_table(changes, tuple(store.run_id for store in stores), said)
        sys.stdout.writelines(WRITERS[format_].text([verdicts, *tables]))
    else:
        screen = console()
        for table in tables:
            print_table(table, screen, most)
        print_notes(said, screen)
    if any(fails(word, kind, fail_on) for word, kind in counts(changes)):
        raise typer.Exit(EXIT_WORSE)


def _paired(a: RunStore, b: RunStore, case: str | None) -> Pairing:
    """The cases of both runs, those that are in both as pairs.

    Raises:
        BadInput: there are none.
    """
    pairing = pair_cases(a.stored_records(case), b.stored_records(case))
    if not pairing.pairs:
        raise BadInput(
            f"{a.run_id} and {b.run_id} have no case in common; a case is known by its network, "
            "data set, batch, seed, backend, mode and setting"
        )
    return pairing


def fails(word: Word, kind: Kind, fail_on: FailOn | None) -> bool:
    """Whether a verdict on a kind of number is what `--fail-on` asks for."""
    gated = fail_on == "worse" or (fail_on == "worse-exact" and kind in {"exact", "status"})
    return gated and word == "worse"


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
