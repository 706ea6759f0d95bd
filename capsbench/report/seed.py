"""The claims of the 2018 study that capsbench grew from, each beside what a run found.

Matar, Yang, "EM based Capsnet Performance Analysis" (2018), after the repository maomran/CapsNet; its accuracies and
distributions are read off its plots.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from statistics import fmean
from typing import Final

from capsbench.measure.distribution import Distribution, Quantity
from capsbench.record.claims import packaged_ledger
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.finding import UNCHECKED, Finding, verdict
from capsbench.report.seed_profile import TOLERANCE, profile_findings
from capsbench.report.table import Cell, Column, Table, text_cell

SUITE: Final = "seed"
ACCURACY_CLAIMS: Final = {"mnist": "seed-mnist", "fashion-mnist": "seed-fashion", "smallnorb": "seed-smallnorb"}
"""The study's claims in the ledger by the data set that they are on."""

_NETWORK: Final = "em-seed"
_ORIENTED: Final = ("smallnorb", "toys")
_FIRST, _SECOND = "conv_caps1", "conv_caps2"
_NOTES: Final = (
    f"bytes, memory, time: one evaluation, tensorflow:tiled, batch 50; within {100 * TOLERANCE:g} % holds for bytes.",
    "accuracies: the study tested on 10 % of the test images; less by up to two standard errors of those holds.",
)


def is_seed_study(header: Mapping[str, object]) -> bool:
    """Whether a run's header (run.json) says that the suite `seed` is among its suites."""
    suites = header.get("suites")
    entries = [entry.get("suite") for entry in suites if isinstance(entry, dict)] if isinstance(suites, list) else []
    return any(isinstance(suite, dict) and suite.get("name") == SUITE for suite in entries)


def seed_table(records: Sequence[Record]) -> Table:
    """Every claim of the study with its number, ours, and the verdict."""
    columns = (
        Column("claim", "key", "left"),
        Column("2018"),
        Column("here"),
        Column("why", "value", "left"),
        Column("verdict", "status", "left"),
    )
    rows = tuple(_cells(finding) for finding in seed_findings(records))
    return Table("The claims of the 2018 study", columns, rows, notes=_NOTES)


def seed_findings(records: Sequence[Record]) -> tuple[Finding, ...]:
    """What the records of a run say of each claim."""
    ours = [record for record in records if record.case.network == _NETWORK]
    return (*profile_findings(ours), _sparser(ours), _wider(ours), *_accuracies(ours))


def _cells(finding: Finding) -> tuple[Cell, ...]:
    return tuple(map(text_cell, (finding.claim, finding.theirs, finding.ours, finding.why, finding.verdict)))


def _sparser(records: Sequence[Record]) -> Finding:
    claim, theirs = "activations are sparser with depth, on an oriented data set", "0.06 → 0"
    for record in _oriented(records):
        first, second = (_distribution(record, layer, "activations") for layer in (_FIRST, _SECOND))
        if first is not None and second is not None:
            ours = f"{first.hoyer:.2f} → {second.hoyer:.2f}"
            shares = f"{fmt.percent(first.sparse_share)} → {fmt.percent(second.sparse_share)} %"
            why = (
                f"where most activations of {_FIRST} and {_SECOND} lay; here Hoyer's sparsity, {_where(record)}, "
                f"and below 0.01 {shares}{_stand_in(record)}"
            )
            holds = first.hoyer < second.hoyer
            return Finding(claim=claim, theirs=theirs, ours=ours, verdict=verdict(holds=holds), why=why)
    return Finding(claim=claim, theirs=theirs, why=f"this run has no activations of {_NETWORK} on smallnorb or toys")


def _wider(records: Sequence[Record]) -> Finding:
    claim, theirs = f"poses of {_FIRST} are wider on an oriented data set than on MNIST", "±0.07 → ±0.8"
    upright = [record for record in records if record.case.dataset == "mnist" and _poses(record)]
    oriented = [record for record in _oriented(records) if _poses(record)]
    if not upright or not oriented:
        names = " or ".join(_ORIENTED) if upright else "mnist"
        return Finding(claim=claim, theirs=theirs, why=f"this run has no poses of {_NETWORK} on {names}")
    first = upright[0]
    # The same realization where there is one, so that nothing else differs.
    other = next((r for r in oriented if _realization(r) == _realization(first)), oriented[0])
    before, after = _poses(first), _poses(other)
    assert before is not None  # noqa: S101 - filtered above
    assert after is not None  # noqa: S101 - likewise
    ours = f"{before.deviation:.2g} → {after.deviation:.2g}"
    why = f"standard deviations, {_where(first)} → {_where(other)}{_stand_in(other)}"
    holds = before.deviation < after.deviation
    return Finding(claim=claim, theirs=theirs, ours=ours, verdict=verdict(holds=holds), why=why)


def _accuracies(records: Sequence[Record]) -> Iterator[Finding]:
    yield _accuracy(records, "mnist", "accuracy on MNIST")
    fashion = _mean_accuracy(records, "fashion-mnist")
    why = 'the study read MNIST\'s files under the name of "Fashion-MNIST"'
    ours = fmt.NOTHING if fashion is None else _percent(fashion)
    theirs = packaged_ledger().claim(ACCURACY_CLAIMS["fashion-mnist"])
    theirs_text = f"{theirs.text} %"
    yield Finding(claim='accuracy on "Fashion-MNIST"', theirs=theirs_text, ours=ours, why=why)
    yield _accuracy(records, "smallnorb", "accuracy on smallNORB")


def _accuracy(records: Sequence[Record], dataset: str, claim: str) -> Finding:
    entry = packaged_ledger().claim(ACCURACY_CLAIMS[dataset])
    published, images = entry.value / 100, entry.tested_on or 1
    theirs, ours = _percent(published), _mean_accuracy(records, dataset)
    if ours is None:
        toys = _mean_accuracy(records, "toys") if dataset in _ORIENTED else None
        beside = "" if toys is None else f"; toys are synthetic and stand in, at {_percent(toys)}"
        return Finding(claim=claim, theirs=theirs, why=f"this run has no accuracy of {_NETWORK} on {dataset}{beside}")
    slack = 2 * sqrt(published * (1 - published) / images)
    part = _part_of_training(records, dataset)
    holds = ours >= published - slack
    difference = f"{100 * abs(ours - published):.2f} points {'less' if ours < published else 'more'}"
    why = "; ".join(filter(None, [f"{difference}, up to {100 * slack:.2f} less holds", part]))
    # What was trained on less than the study trained on cannot refute it.
    found = UNCHECKED if part and not holds else verdict(holds=holds)
    return Finding(claim=claim, theirs=theirs, ours=_percent(ours), verdict=found, why=why)


def _mean_accuracy(records: Sequence[Record], dataset: str) -> float | None:
    """Over all backends, modes and seeds that were trained."""
    metrics = (record.metrics.get("accuracy") for record in records if record.case.dataset == dataset)
    values = [metric.value for metric in metrics if metric is not None]
    return fmean(values) if values else None


def _part_of_training(records: Sequence[Record], dataset: str) -> str:
    """Says so where a case was trained on a part of the training images."""
    for record in records:
        facts = record.data.get("train") if record.case.dataset == dataset else None
        if facts is not None and facts.count < facts.full_count:
            return f"trained on {fmt.count(facts.count)} of {fmt.count(facts.full_count)} images"
    return ""


def _oriented(records: Sequence[Record]) -> list[Record]:
    """Cases on a data set of objects seen from many sides, the study's own before its stand-in."""
    found = [record for record in records if record.case.dataset in _ORIENTED]
    return sorted(found, key=lambda record: _ORIENTED.index(record.case.dataset))


def _poses(record: Record) -> Distribution | None:
    return _distribution(record, _FIRST, "poses")


def _distribution(record: Record, layer: str, quantity: Quantity) -> Distribution | None:
    held = (told for told in record.distributions if (told.layer, told.quantity) == (layer, quantity))
    return next(held, None)


def _realization(record: Record) -> tuple[str, str]:
    return record.case.backend, record.case.mode


def _where(record: Record) -> str:
    return f"{record.case.dataset} with {record.case.backend}:{record.case.mode}"


def _stand_in(record: Record) -> str:
    return "; toys are synthetic and stand in for smallNORB" if record.case.dataset == "toys" else ""


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
