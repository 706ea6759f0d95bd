"""A published number beside what a run measured: whether the two may be compared at all, and what comes of it.

Careful on purpose: unless the claim's network, protocol, sizes of the splits and preparation are known and the run's
own, the verdict is `not comparable`, with the reasons.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from operator import attrgetter
from statistics import fmean
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from capsbench.dataset import protocols
from capsbench.dataset.transform import Transform
from capsbench.record.claims import TIMES, Claim
from capsbench.record.grouping import distinct, grouped
from capsbench.record.schema import Record, SplitFacts
from capsbench.report import format as fmt
from capsbench.stats.interval import wilson_interval
from capsbench.store.records import sample_count, values_of

Verdict = Literal["agrees", "differs", "not comparable"]
Transforms = Mapping[str, Transform | None]
"""How a run's suites prepare each data set by name; None where they do so in several ways."""

# A suite's data sets by the one that they are variants of, as the literature calls it.
_FAMILIES: Final = {"affine-mnist": "affnist"}
_VARIANTS: Final = ("smallnorb", "toys")
_TOLD: Final = 2
"""Reasons that are told before the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A claim and the records of one realization that it concerns.

    Attributes:
        claim: what was published.
        records: which differ in their seed only; for parameters all that have the same number, and where the two are
            not comparable all of which that is true for the same reasons.
        value: the mean of what they measured, in the claim's unit.
        interval: what holds it, in the claim's unit; None where no interval is known.
        verdict: of the two.
        why: what it rests on.
    """

    claim: Claim
    records: Sequence[Record]
    value: float
    interval: tuple[float, float] | None
    verdict: Verdict
    why: str

    @property
    def realization(self) -> str:
        """`backend:mode`, or how many there are; parameters are the network's, whatever realizes it."""
        if self.claim.metric == "parameters":
            return fmt.NOTHING
        names = distinct(self.records, lambda record: f"{record.case.backend}:{record.case.mode}")
        return names[0] if len(names) == 1 else f"{len(names)} modes"


def family(dataset: str) -> str:
    """The data set that one of a suite is a variant of: smallnorb of smallnorb-novel-azimuth."""
    for name in _VARIANTS:
        if dataset == name or dataset.startswith(f"{name}-"):
            return name
    return _FAMILIES.get(dataset, dataset)


def concerns(claim: Claim, record: Record) -> bool:
    """Whether a claim is on the network of a record and on its data set."""
    named = record.case.network in {claim.zoo, claim.network}
    return named and family(record.case.dataset) == family(claim.dataset)


def transforms_of(header: Mapping[str, object]) -> dict[str, Transform | None]:
    """How the suites of a run (run.json) prepare each data set; what is of another make is left out."""
    found: dict[str, Transform | None] = {}
    suites = header.get("suites")
    for entry in suites if isinstance(suites, list) else ():
        suite = entry.get("suite") if isinstance(entry, dict) else None
        chosen = suite.get("dataset") if isinstance(suite, dict) else None
        for choice in chosen if isinstance(chosen, list) else [chosen]:
            written = {"name": choice} if isinstance(choice, str) else choice
            if isinstance(written, dict) and isinstance(name := written.get("name"), str):
                transform = _transform(name, written.get("transform"))
                found[name] = transform if found.get(name, transform) == transform else None
    return found


def transform_words(transform: Transform) -> str:
    """What a transform does, in the words of a suite, without the amounts of augmentation."""
    sizes = [f"{name} {getattr(transform, name)}" for name in ("resize", "canvas", "crop") if getattr(transform, name)]
    kinds = [name for name in ("standardise", "shift", "brightness", "contrast") if getattr(transform, name)]
    return ", ".join([*sizes, *kinds]) or "as they are"


def compare(claims: Sequence[Claim], records: Sequence[Record], transforms: Transforms) -> Iterator[Comparison]:
    """Every claim beside every realization that measured what it claims, in the order of the claims.

    Args:
        claims: any.
        records: of a run.
        transforms: how that run prepared its images.
    """
    alike = grouped(records, attrgetter("case.network", "case.dataset"))
    known: dict[tuple[object, ...], list[_Measured]] = {}
    for claim in claims:
        concerned = [key for key, found in alike.items() if concerns(claim, found[0])]
        # Of claims on one metric of one network the same is measured.
        key = (claim.metric, claim.unit, *concerned)
        if key not in known:
            known[key] = list(_measured(claim, [record for each in concerned for record in alike[each]]))
        yield from _merged(claim, known[key], transforms)


@dataclass(frozen=True)
class _Measured:
    """What records measured of a metric, in a claim's unit.

    Attributes:
        records: those that measured it.
        values: of each.
        images: that each was tested on; empty where not all tell.
        value: the mean.
        interval: what holds it; None where that is not known.
    """

    records: Sequence[Record]
    values: Sequence[float]
    images: tuple[int, ...]
    value: float
    interval: tuple[float, float] | None

    @cached_property
    def first(self) -> Record:
        """Stands for what they share."""
        return self.records[0]

    @cached_property
    def epochs(self) -> int:
        """How long the first was trained."""
        return sample_count(self.first.metrics, "epoch_seconds")

    @cached_property
    def differing(self) -> tuple[object, ...]:
        """What `_differences` looks at."""
        case = self.first.case
        splits = *self.trained_on, None, *self.tested_on
        return case.network, case.dataset, case.routing_iterations, case.batch, self.epochs, *splits

    @cached_property
    def trained_on(self) -> Sequence[SplitFacts | None]:
        """The different images."""
        return distinct(self.records, lambda record: record.data.get("train"))

    @cached_property
    def tested_on(self) -> Sequence[SplitFacts | None]:
        """Likewise."""
        return distinct(self.records, lambda record: record.data.get("test"))


def _measured(claim: Claim, records: Sequence[Record]) -> Iterator[_Measured]:
    """Each realization that measured what a claim is on."""
    values = [_value(claim, value) for value in values_of(records, claim.metric)]
    measured = [each for each in zip(records, values, strict=True) if math.isfinite(each[1])]

    def alike(each: tuple[Record, float]) -> tuple[object, ...]:
        return _group(claim, each[0]), each[1] if claim.metric == "parameters" else None

    for group in grouped(measured, alike).values():
        yield _of_values(claim, *map(tuple, zip(*group, strict=True)))


def _images(record: Record) -> int | None:
    """How many it was tested on, where it tells."""
    tested = record.data.get("test")
    return None if tested is None else tested.count


def _of_values(claim: Claim, records: Sequence[Record], values: Sequence[float]) -> _Measured:
    images = tuple(count for record in records if (count := _images(record)) is not None)
    held = images if len(images) == len(records) else ()
    return _Measured(records, values, held, fmean(values), _interval(claim, values, held))


def _merged(claim: Claim, found: Sequence[_Measured], transforms: Transforms) -> Iterator[Comparison]:
    """What comes of each realization; those that cannot be compared for the same reasons are one, the first of them."""
    alike: dict[tuple[object, ...], list[tuple[Comparison, _Measured]]] = {}
    known: dict[tuple[object, ...], list[str]] = {}
    for number, measured in enumerate(found):
        if measured.differing not in known:
            known[measured.differing] = list(_differences(claim, measured, transforms))
        each = _comparison(claim, measured, known[measured.differing])
        case = measured.first.case
        apart = () if each.verdict == "not comparable" else (number,)
        alike.setdefault((each.why, case.network, case.dataset, *apart), []).append((each, measured))
    for same in alike.values():
        first, _ = same[0]
        if len(same) == 1:
            yield first
            continue
        parts = [(measured.records, measured.values) for _, measured in same]
        joined = _of_values(claim, *(list(chain.from_iterable(part)) for part in zip(*parts, strict=True)))
        yield replace(first, records=joined.records, value=joined.value, interval=joined.interval)


def _comparison(claim: Claim, measured: _Measured, reasons: Sequence[str]) -> Comparison:
    records, value, interval = measured.records, measured.value, measured.interval
    if reasons:
        verdict, why = _not_comparable(reasons)
    elif claim.metric == "parameters":
        agrees = abs(value - claim.value) <= claim.slack
        verdict, why = ("agrees" if agrees else "differs"), f"published to the nearest {claim.resolution:,.0f}"
    elif interval is None:
        verdict, why = _not_comparable(["how sure the measured number is cannot be told"])
    else:
        low, high = interval
        agrees = low <= claim.value + claim.slack and claim.value - claim.slack <= high
        verdict, why = ("agrees" if agrees else "differs"), _basis(claim, records)
    return Comparison(claim=claim, records=records, value=value, interval=interval, verdict=verdict, why=why)


def _not_comparable(reasons: Sequence[str]) -> tuple[Verdict, str]:
    more = len(reasons) - _TOLD
    rest = [f"and {more} more"] if more > 0 else []
    return "not comparable", "; ".join([*reasons[:_TOLD], *rest])


def _basis(claim: Claim, records: Sequence[Record]) -> str:
    """What the interval rests on, and what of the training the source leaves open."""
    seeds = len({record.case.seed for record in records})
    images = fmt.count(records[0].data["test"].count)
    told = "one seed" if seeds == 1 else f"{seeds} seeds"
    length = "" if claim.epochs else "; how long the published one was trained is not told"
    return f"{told}, by chance on {images} test images{length}"


def _differences(claim: Claim, measured: _Measured, transforms: Transforms) -> Iterator[str]:
    """Why the two cannot be compared, what weighs most first."""
    first = measured.first
    yield from claim.reasons
    protocol = claim.protocol or claim.dataset
    if protocol != first.case.dataset:
        yield f"on {protocol}, not on {first.case.dataset}"
    if claim.variant:
        yield f"another variant: {claim.variant}"
    if claim.metric == "parameters":
        return
    ours, theirs = first.case.routing_iterations, claim.routing_iterations
    if ours is not None and ours != theirs:
        yield f"routed {_times(ours)}, the claim's network {_times(theirs)}"
    if claim.metric in TIMES:
        if claim.batch != first.case.batch:
            yield f"batch {first.case.batch}, the claim's {claim.batch or 'not told'}"
        yield f"times of another device ({claim.device})"
        return
    yield from _split_differences("tested", claim.tested_on, measured.tested_on)
    yield from _split_differences("trained", claim.trained_on, measured.trained_on)
    yield from _preparation_difference(claim, transforms.get(first.case.dataset))
    if claim.epochs and measured.epochs != claim.epochs:
        yield f"trained for {measured.epochs or 'an unknown number of'} epochs, the claim's for {claim.epochs}"


def _split_differences(done: str, theirs: int | None, ours: Sequence[SplitFacts | None]) -> Iterator[str]:
    for facts in ours:
        if facts is None:
            yield f"on how many images this was {done} is not recorded"
        elif theirs is None:
            yield f"on how many images the claim's was {done} is not told"
        elif facts.count != theirs:
            part = f" of {fmt.count(facts.full_count)}" if facts.count < facts.full_count else ""
            yield f"{done} on {fmt.count(facts.count)}{part} images, the claim's on {fmt.count(theirs)}"
        else:
            continue
        return


def _preparation_difference(claim: Claim, ours: Transform | None) -> Iterator[str]:
    """The same images in the test, and the same kinds of augmentation in training, whatever their amounts."""
    theirs = claim.transform
    if theirs is None:
        how = f"in a way of its own ({claim.preparation})" if claim.preparation else "in a way that is not told"
        yield f"the claim's images were prepared {how}"
    elif ours is None:
        yield "how this run's images were prepared is not recorded"
    elif _kinds(ours) != _kinds(theirs):
        yield f"images: {transform_words(ours)}, the claim's: {transform_words(theirs)}"


def _kinds(transform: Transform) -> tuple[object, ...]:
    augmentation = (transform.shift, transform.brightness, transform.contrast)
    return (transform.resize, transform.canvas, transform.crop, transform.standardise, *map(bool, augmentation))


def _times(iterations: int | None) -> str:
    if iterations is None:
        return "as often as it does not tell"
    return "once" if iterations == 1 else f"{iterations} times"


def _value(claim: Claim, value: float | None) -> float:
    """What a record measured of a claim's metric, in the claim's unit; NaN where it did not."""
    if value is None:
        return math.nan
    return 100 * value if claim.unit == "%" else float(value)


def _interval(claim: Claim, values: Sequence[float], images: Sequence[int]) -> tuple[float, float] | None:
    """Wilson's of each seed's share of the test images, from the lowest end to the highest."""
    if claim.unit != "%" or not images:
        return None
    held: dict[int, list[float]] = {}
    for value, count in zip(values, images, strict=True):
        held.setdefault(count, []).append(value / 100)
    # Of as many images a larger share has the higher ends.
    ends = [(min(shares), max(shares), count) for count, shares in held.items()]
    low = min(wilson_interval(least * count, count).low for least, _, count in ends)
    return 100 * low, 100 * max(wilson_interval(most * count, count).high for _, most, count in ends)


def _group(claim: Claim, record: Record) -> tuple[object, ...]:
    case = record.case
    if claim.metric == "parameters":
        return case.network, case.dataset
    setting = (case.device, case.threads, case.devices, case.precision, case.allocator)
    return case.network, case.dataset, case.backend, case.mode, case.batch, case.routing_iterations, *setting


def _transform(name: str, written: object) -> Transform | None:
    """What a suite says, or its protocol where it says nothing."""
    if written is None:
        return protocols.load(name).transform if name in protocols.names() else None
    try:
        return TypeAdapter(Transform).validate_python(written)
    except ValidationError:  # of a newer capsbench, or no transform at all
        return None
