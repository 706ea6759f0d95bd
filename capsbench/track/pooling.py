"""Several records of one case, each of a run with one timing round, as the one record that a longer run would leave."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Final

from capsbench.measure.optable import OpEvent, StepProfile
from capsbench.record.pairs import APART
from capsbench.record.schema import Metric, Record
from capsbench.stats.interval import median_interval

_CONTENDED: Final = re.compile(r"([0-9]+) of ([0-9]+) timing samples were contended")


def pooled(records: Sequence[Record]) -> Record:
    """What is exact from the first record that has it, samples from all; it ends as the first that failed ended.

    Seconds of ops are medians over the records that have an op table, so that one bad moment does not stand for a
    commit; calls and bytes are the first one's.
    """
    first = records[0]
    end = next((record for record in records if record.status != "ok"), first)
    tables = [record for record in records if record.ops]
    shown = tables[0] if tables else first
    forwards = [record.forward_profile for record in tables if record.forward_profile is not None]
    return replace(
        first,
        status=end.status,
        reason=end.reason,
        metrics=dict(_metrics(records)),
        ops=_median_seconds([record.ops for record in tables]) if tables else (),
        step_profile_seconds=_median(record.step_profile_seconds for record in tables),
        step_profile_bytes=shown.step_profile_bytes,
        step_bare_seconds=_median(record.step_bare_seconds for record in tables),
        alive_at_peak=shown.alive_at_peak,
        forward_profile=_forward(forwards) if forwards else None,
        notes=tuple(_notes(records)),
    )


def with_fresh_times(record: Record, fresh: Record, rounds: int) -> Record:
    """As `with_times`, of rounds that were taken because the times before them looked worse; a note says so."""
    told = f"times are those of {rounds} fresh rounds, as those before them looked worse"
    found = with_times(record, fresh)
    return replace(found, notes=(*found.notes, told))


def with_times(record: Record, fresh: Record) -> Record:
    """A record whose times, and op table where there is a fresh one, are those of a later series of rounds."""
    times = {name: metric for name, metric in fresh.metrics.items() if metric.kind == "sampled"}
    kept = [note for note in record.notes if not _is_of_times(note)]
    told = [note for note in fresh.notes if _is_of_times(note)]
    profile = fresh if fresh.ops else record
    return replace(
        record,
        status=fresh.status,
        reason=fresh.reason,
        metrics={**record.metrics, **times},
        ops=profile.ops,
        step_profile_seconds=profile.step_profile_seconds,
        step_bare_seconds=profile.step_bare_seconds,
        forward_profile=profile.forward_profile,
        notes=(*kept, *told),
    )


def _is_of_times(note: str) -> bool:
    return note == APART or _CONTENDED.fullmatch(note) is not None


def _metrics(records: Sequence[Record]) -> Iterator[tuple[str, Metric]]:
    for name in dict.fromkeys(name for record in records for name in record.metrics):
        found = [record.metrics[name] for record in records if name in record.metrics]
        yield name, _pooled_metric(found) if found[0].kind == "sampled" else found[0]


def _pooled_metric(metrics: Sequence[Metric]) -> Metric:
    samples = tuple(sample for metric in metrics for sample in metric.samples)
    if not samples:
        return metrics[0]
    interval = median_interval(samples)
    return replace(
        metrics[0],
        value=median(samples),
        samples=samples,
        interval=(interval.low, interval.high),
        contended=sum(metric.contended for metric in metrics),
    )


def _median_seconds(tables: Sequence[Sequence[OpEvent]]) -> tuple[OpEvent, ...]:
    seconds: defaultdict[object, list[float]] = defaultdict(list)
    for table in tables:
        for event in table:
            seconds[_key(event)].append(event.self_seconds)
    return tuple(replace(event, self_seconds=median(seconds[_key(event)])) for event in tables[0])


def _key(event: OpEvent) -> object:
    return event.op, event.native, event.layer, event.phase, event.routing_iteration


def _forward(profiles: Sequence[StepProfile]) -> StepProfile:
    return replace(
        profiles[0],
        events=_median_seconds([profile.events for profile in profiles]),
        step_seconds=median(profile.step_seconds for profile in profiles),
        bare_seconds=_median(profile.bare_seconds for profile in profiles),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _notes(records: Sequence[Record]) -> Iterator[str]:
    """Every note once; how many samples were contended is added up."""
    contended = total = 0
    for note in dict.fromkeys(note for record in records for note in record.notes):
        if not _CONTENDED.fullmatch(note):
            yield note
    for match in (_CONTENDED.fullmatch(note) for record in records for note in record.notes):
        if match:
            contended, total = contended + int(match[1]), total + int(match[2])
    if contended:
        yield f"{contended} of {total} timing samples were contended"
