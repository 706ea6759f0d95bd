"""The table "Measured beside published", and the claims in full with their sources and caveats."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from capsbench.record.claims import Claim, Ledger
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.correspondence import Comparison, compare, concerns, transform_words, transforms_of
from capsbench.report.rows import Field, table_of_items
from capsbench.report.seed import ACCURACY_CLAIMS, is_seed_study
from capsbench.report.table import Cell, Column, Table, text_cell

_NOTES = (
    "published: with its standard deviation, where it has one; (q): read where it is quoted, not in its source.",
    "interval: Wilson's, 95 %, of the share of the test images; of several seeds from lowest to highest.",
    "agrees: that interval meets the published number, give or take its deviation or half of its last digit.",
    "`capsbench show RUN --claims` has the sources and what must be known of them.",
)


def published_tables(records: Sequence[Record], ledger: Ledger, header: Mapping[str, object]) -> tuple[Table, ...]:
    """What was published on the networks of a run, beside what it measured; no table where nothing was.

    Args:
        records: of the run.
        ledger: the published numbers.
        header: the run's (run.json). Where its suites include the 2018 study, the study's own table has its accuracies.
    """
    told_already = frozenset(ACCURACY_CLAIMS.values()) if is_seed_study(header) else frozenset[str]()
    claims = [claim for claim in ledger.claims if claim.id not in told_already]
    found = tuple(compare(claims, records, transforms_of(header)))
    if not found:
        return ()
    fields: tuple[Field[Comparison], ...] = (
        Field(Column("claim", "key", "left"), lambda each: text_cell(f"{each.claim.id}, {_metric(each.claim)}")),
        Field(Column("network", "key", "left", shared="{}"), lambda each: text_cell(each.records[0].case.network)),
        Field(Column("data set", "key", "left", shared="{}"), lambda each: text_cell(each.records[0].case.dataset)),
        Field(Column("backend:mode", "key", "left", shared="{}"), lambda each: text_cell(each.realization)),
        Field(Column("published", group="numbers"), partial(_published_cell, ledger)),
        Field(Column("here", group="numbers"), lambda each: Cell(_measured(each.claim, each.value), each.value)),
        Field(Column("interval", group="numbers"), _interval_cell),
        Field(Column("seeds", group="numbers", shared="seeds {}"), _seeds_cell),
        Field(Column("why", "value", "left"), lambda each: text_cell(each.why)),
        Field(Column("verdict", "status", "left"), lambda each: text_cell(each.verdict)),
    )
    return (table_of_items("Measured beside published", fields, found, _NOTES),)


def claims_table(records: Sequence[Record], ledger: Ledger) -> Iterator[Table]:
    """The claims on the networks and data sets of a run in full, whatever it measured; no table without any."""
    firsts = {(record.case.network, record.case.dataset): record for record in records}.values()
    concerned = [claim for claim in ledger.claims if any(concerns(claim, record) for record in firsts)]
    rows = tuple(
        (text_cell(name if not number else ""), text_cell(part), text_cell(text))
        for claim in concerned
        for number, (name, part, text) in enumerate(_full(claim, ledger))
    )
    columns = (Column("claim", "key", "left"), Column("", "key", "left"), Column("what is known", "value", "left"))
    if rows:
        yield Table("Published claims", columns, rows)


def _published_cell(ledger: Ledger, comparison: Comparison) -> Cell:
    claim = comparison.claim
    return Cell(_published(claim, quoted=ledger.source(claim).quoted), claim.value)


def _interval_cell(comparison: Comparison) -> Cell:
    if comparison.interval is None:
        return Cell(fmt.NOTHING)
    text = "{:.2f}–{:.2f} %".format(*comparison.interval)
    return Cell(text, text)


def _seeds_cell(comparison: Comparison) -> Cell:
    seeds = len({record.case.seed for record in comparison.records})
    return Cell(fmt.NOTHING if comparison.claim.metric == "parameters" else fmt.count(seeds), seeds)


def _full(claim: Claim, ledger: Ledger) -> Iterator[tuple[str, str, str]]:
    """Lines on one claim: (id, what, text)."""
    source = ledger.source(claim)
    variant = f", {claim.variant}" if claim.variant else ""
    said = f"{_metric(claim)} {_published(claim)} of {claim.network}{variant} on {claim.protocol or claim.dataset}"
    parts: list[tuple[str, str]] = [("claim", said)]
    settings = ", ".join(_settings(claim))
    if settings:
        parts.append(("setting", settings))
    parts += [("source", source.citation), ("place", f"{claim.place} ({claim.kind})"), ("url", source.url)]
    parts += [("read in", source.read_in)]
    parts += [("caveat", caveat) for caveat in claim.caveats]
    parts += [("never", reason) for reason in claim.reasons]
    yield from ((claim.id, part, text) for part, text in parts)


def _settings(claim: Claim) -> Iterator[str]:
    if claim.routing_iterations:
        yield f"{claim.routing_iterations} routing iteration{'s' * (claim.routing_iterations > 1)}"
    for text, value in (
        ("trained on {} images", claim.trained_on),
        ("tested on {} images", claim.tested_on),
        ("{} epochs", claim.epochs),
        ("batch {}", claim.batch),
    ):
        if value:
            yield text.format(fmt.count(value))
    if claim.preparation or claim.transform:
        yield f"images: {transform_words(claim.transform) if claim.transform else claim.preparation}"
    if claim.device:
        yield f"device: {claim.device}"


def _published(claim: Claim, *, quoted: bool = False) -> str:
    deviation = f" ± {claim.deviation:g}" if claim.deviation else ""
    number = f"{claim.text}{deviation}"
    return _unit(claim, number) + (" (q)" if quoted else "")


def _measured(claim: Claim, value: float) -> str:
    """As exactly as it is known, however many digits were published."""
    if claim.unit == "%":
        return f"{value:.2f} %"
    return fmt.count(value) if claim.metric == "parameters" else fmt.seconds(value)


def _unit(claim: Claim, number: str) -> str:
    return number if claim.unit == "1" else f"{number} {claim.unit}"


def _metric(claim: Claim) -> str:
    words = claim.metric.removesuffix("_rate").removesuffix("_seconds").replace("_", " ")
    return f"{words} of {claim.op}" if claim.op else words
