"""`capsbench continuous`: the same suites at two git revisions in turns, and what the newer one made worse, and why."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from capsbench import plugins
from capsbench.cli.compare import FailOn, fails
from capsbench.cli.options import (
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    EXIT_WORSE,
    DataOption,
    ResultsOption,
    check_device,
    modes,
)
from capsbench.cli.run import check_data
from capsbench.errors import BadInput
from capsbench.record.noise import kept_noise
from capsbench.record.pairs import Pairing
from capsbench.report.comparison import apart, comparison_tables, noise_notes, summary
from capsbench.report.console import console, print_notes, print_table
from capsbench.report.explanation import explanations
from capsbench.report.format import label
from capsbench.suite.schema import Suite, load_suite
from capsbench.track.bisection import Where, driver_outside, line, worth_a_search
from capsbench.track.cells import cells, without_times
from capsbench.track.continuous import Plan, compare_revisions
from capsbench.track.interleave import SIDES, Findings, SideName
from capsbench.track.keep import Kept, keep_runs
from capsbench.track.progress import VisitProgress
from capsbench.track.revisions import Repository, Revision, commits_between, find_repository, resolve, uncommitted

EXAMPLE = "capsbench continuous main --suite suites/quickstart.yaml --fail-on worse"
_USUAL_SUITE = "suites/quick.yaml"
_MOST_NAMED = 3


def continuous(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Older revision: branch, tag or hash.")],
    head: Annotated[
        str | None,
        typer.Argument(metavar="HEAD", help="Newer revision; default: the working tree.", show_default=False),
    ] = None,
    *,
    suite: Annotated[
        list[Path] | None,
        typer.Option("--suite", metavar="SUITE", help=f"Suite file, default {_USUAL_SUITE}; repeatable."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only cases whose id, network or backend:mode matches.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="D", help="auto, cpu, cuda or cuda:N; overrides the suite.")
    ] = None,
    times: Annotated[
        bool,
        typer.Option("--times/--no-times", help="Measure time, or only deterministic metrics (bytes, calls, FLOPs)."),
    ] = True,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Number of timing rounds; default: the fewest that can decide.")
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
        typer.Option(help="Exit with 1 if any metric is worse; worse-exact ignores times.", show_default=False),
    ] = None,
    data: DataOption = Path("data"),
    results: ResultsOption = Path("results"),
) -> None:
    """Compare two git revisions: run the same suites at both and explain regressions.

    Both revisions are checked out into temporary worktrees and measured in
    turns. Deterministic metrics are compared after one run of each; times
    that look worse are measured again before they are reported. The exit
    code is 2 if a case failed on either side.
    """
    repository = find_repository(Path.cwd())
    revisions: dict[SideName, Revision] = {
        "base": resolve(repository, base),
        "head": resolve(repository, head or "HEAD"),
    }
    files = suite or [_usual_suite(repository)]
    if head is None:
        _refuse_uncommitted(repository, files)
    installed = plugins.discover()
    chosen = _read(files, device)
    planned = cells(chosen, modes(installed), only)
    check_data((cell.case for cell in planned), data)
    plan = Plan(
        repository=repository,
        revisions=revisions,
        cells=planned if times else without_times(planned),
        rounds=rounds,
        margin=margin,
        noise=kept_noise(results),
        data=data,
    )
    kept = keep_runs(results, repository, revisions, chosen)
    findings = _measure(plan, kept)
    _print(findings, plan, kept, results, everything=everything)
    _exit(findings, fail_on)


def _usual_suite(repository: Repository) -> Path:
    path = repository.root / repository.project / _USUAL_SUITE
    if not path.is_file():
        raise BadInput(f"there is no {path}; name the suites to run with --suite SUITE", "--suite")
    return path


def _read(files: Sequence[Path], device: str | None) -> list[tuple[Path, Suite]]:
    """The suites as they stand in the user's files, with the device that the command line names."""
    suites = [(path, load_suite(path)) for path in files]
    return suites if device is None else [(path, replace(suite, device=check_device(device))) for path, suite in suites]


def _refuse_uncommitted(repository: Repository, suites: Sequence[Path]) -> None:
    """Refuse to measure the commit that is checked out where somebody may mean the files.

    Raises:
        BadInput: names some of the files.
    """
    changed = uncommitted(repository, suites)
    if changed:
        more = f" and {len(changed) - _MOST_NAMED:,} more" if len(changed) > _MOST_NAMED else ""
        raise BadInput(
            f"{', '.join(changed[:_MOST_NAMED])}{more} differ from the last commit, and commits are what is measured: "
            "commit or stash the changes, or name HEAD as the second revision to measure it without them",
            str(repository.root),
        )


def _measure(plan: Plan, kept: Mapping[SideName, Kept]) -> Findings:
    """Measure; an interrupted comparison says where what has ended lies."""
    try:
        with VisitProgress(Console(stderr=True)) as progress:
            return compare_revisions(plan, kept, progress)
    except KeyboardInterrupt:
        ids = " and ".join(each.store.run_id for each in kept.values() if each.store.finished())
        ended = f"what has ended is in {ids}" if ids else "nothing had ended"
        sys.stderr.write(f"capsbench: interrupted; {ended}\n")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        for each in kept.values():
            each.store.discard_empty()


def _print(findings: Findings, plan: Plan, kept: Mapping[SideName, Kept], results: Path, *, everything: bool) -> None:
    screen, pairing = console(), Pairing(findings.pairs, (), ())
    for table in comparison_tables(findings.changes, everything=everything, margin=plan.margin):
        print_table(table, screen)
    print_notes([*explanations(findings.changes), *_confirmation(findings), *_failures(findings)], screen)
    print_notes(list(_other_specs(findings)), screen)
    held = noise_notes(findings.changes, plan.known_noise, interleaved=True)
    print_notes([*held, *summary(findings.changes, pairing), *apart(pairing)], screen)
    searches = list(_searches(findings, plan, kept, results))
    if searches:
        screen.print()
        print_notes(["to find the commit (and then: git bisect reset):"], screen)
    for search in searches:
        screen.print(search, soft_wrap=True)
    screen.print()
    for name, side in zip("AB", SIDES, strict=True):
        screen.print(f"{name}: {kept[side].store.run_id}  {_described(plan.revisions[side])}", soft_wrap=True)


def _described(revision: Revision) -> str:
    called = "" if revision.commit.startswith(revision.name) else f"{label(revision.name)} "
    return f"{called}{revision.short}  {label(revision.subject)}"


def _confirmation(findings: Findings) -> Iterator[str]:
    if findings.suspected:
        looked = "1 time" if findings.suspected == 1 else f"{findings.suspected:,} times"
        yield f"{looked} looked worse; fresh rounds alone say so of {findings.confirmed:,}"


def _other_specs(findings: Findings) -> Iterator[str]:
    """A sentence on each network that the revisions write down differently."""
    names = {
        pair.new.case.network
        for pair in findings.pairs
        if pair.base.status == pair.new.status == "ok" and pair.base.fingerprint.network != pair.new.fingerprint.network
    }
    for name in sorted(names):
        yield f"{name}: its spec is another one in A and in B, or has other fields; what differs may come from that"


def _failures(findings: Findings) -> Iterator[str]:
    for pair in findings.pairs:
        for name, record in (("A", pair.base), ("B", pair.new)):
            if record.status != "ok":
                case = record.case.id.rpartition("-")[0] or record.case.id
                yield f"{name}, {label(case)}: {record.status}, {label(record.reason)}"


def _searches(findings: Findings, plan: Plan, kept: Mapping[SideName, Kept], results: Path) -> Iterator[str]:
    """A line a case that has git look for the commit, where there is more than one that it could be."""
    worse = worth_a_search(findings.changes)
    base, head = plan.revisions["base"], plan.revisions["head"]
    if not worse or commits_between(plan.repository, base, head) < 2:
        return
    store = kept["head"].store
    driver = driver_outside(plan.repository, store.folder / "driver")
    runs = {"base_run": kept["base"].store.run_id, "head_run": store.run_id}
    where = Where(**runs, base=base, head=head, results=results, data=plan.data)
    for change in worse[:_MOST_NAMED]:
        yield line(change, where, driver)


def _exit(findings: Findings, fail_on: FailOn | None) -> None:
    if any(record.status != "ok" for pair in findings.pairs for record in (pair.base, pair.new)):
        raise typer.Exit(EXIT_SOME_FAILED)
    if any(fails(change.verdict, change.kind, fail_on) for change in findings.changes):
        raise typer.Exit(EXIT_WORSE)
