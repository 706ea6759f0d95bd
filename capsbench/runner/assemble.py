"""From the parts that a case's workers sent to its record."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from capsbench.measure.clock import Sample, Timing, kept
from capsbench.measure.environment import Machine
from capsbench.measure.privacy import scrub
from capsbench.network.hashing import content_hash
from capsbench.network.text import plain
from capsbench.record.measured import sampled
from capsbench.record.schema import Fingerprint, Metric, Record, SplitFacts, Status
from capsbench.suite.cases import Case
from capsbench.worker.messages import (
    DataParallelPart,
    DistributionsPart,
    Done,
    EquationsPart,
    MetricsPart,
    NotesPart,
    OpsPart,
    ParityPart,
    Part,
    ProbePart,
    Received,
    RoundPart,
)

OVERHEAD_SHARE = 0.05

P = TypeVar("P", EquationsPart, DistributionsPart)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What is known of a case's data set.

    Attributes:
        splits: facts by part.
        notes: what a reader must know.
        violations: what its protocol forbids.
        failure: how the worker ended that was to find out, where it did not.
    """

    splits: dict[str, SplitFacts] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    violations: tuple[str, ...] = ()
    failure: Done | None = None


@dataclass(slots=True)
class Draft:
    """A case on its way to a record: what its workers sent so far, and how the last of them ended."""

    case: Case
    data: DataFacts
    parts: list[Part] = field(default_factory=list)
    end: Done = field(default_factory=lambda: Done(status="ok"))
    stderr: str = ""

    @property
    def failed(self) -> bool:
        """Whether nothing more can be measured of the case."""
        return self.end.status != "ok"

    def take(self, received: Received) -> None:
        """Add what a worker left behind."""
        self.parts.extend(received.parts)
        self.end, self.stderr = received.done, scrub(received.stderr)

    def rounds(self) -> tuple[RoundPart, ...]:
        """The timing rounds so far."""
        return self._rounds_on(self.case.devices)

    def rounds_alone(self) -> tuple[RoundPart, ...]:
        """Of a case on several devices, the rounds on one beside which they were taken."""
        return self._rounds_on(1) if self.case.devices > 1 else ()

    def _rounds_on(self, devices: int) -> tuple[RoundPart, ...]:
        return tuple(part for part in self.parts if isinstance(part, RoundPart) and part.devices == devices)


def assemble(draft: Draft, run: str, machine: Machine) -> Record:
    """The record of a case whose last worker has ended."""
    case, parts, rounds = draft.case, draft.parts, draft.rounds()
    ops = next((part for part in parts if isinstance(part, OpsPart)), None)
    metrics = {name: metric for part in parts if isinstance(part, MetricsPart) for name, metric in part.metrics.items()}
    return Record(
        run=run,
        case=case.key(),
        status=_status(draft.end),
        reason=scrub(draft.end.reason),
        parity=next((part.parity for part in parts if isinstance(part, ParityPart)), None),
        data_parallel=next((part.data_parallel for part in parts if isinstance(part, DataParallelPart)), None),
        metrics={**metrics, **timing_metrics(rounds, case.batch), **scaling_metrics(draft)},
        ops=ops.train_step.events if ops else (),
        step_profile_seconds=ops.train_step.step_seconds if ops else None,
        step_profile_bytes=ops.train_step.allocated_bytes if ops else None,
        step_bare_seconds=ops.train_step.bare_seconds if ops else None,
        alive_at_peak=ops.train_step.alive_at_peak if ops else (),
        forward_profile=ops.forward if ops else None,
        equations=_first(parts, EquationsPart, lambda part: part.layers),
        distributions=_first(parts, DistributionsPart, lambda part: part.distributions),
        routing=_first(parts, DistributionsPart, lambda part: part.routing),
        data=draft.data.splits,
        notes=tuple(map(scrub, _notes(draft, rounds))),
        fingerprint=_fingerprint(draft, machine),
    )


def _first(parts: Iterable[Part], kind: type[P], what: Callable[[P], tuple[T, ...]]) -> tuple[T, ...]:
    """What the first part of a kind holds; nothing where none came."""
    return next((what(part) for part in parts if isinstance(part, kind)), ())


def timing_metrics(rounds: tuple[RoundPart, ...], batch: int) -> dict[str, Metric]:
    """Times over the rounds: each round's median is one sample, their median the value; none without a round."""
    if not rounds:
        return {}
    steps = _round_medians(rounds, lambda part: part.train_step)
    contended = _contended(part.train_step for part in rounds)
    forward = _round_medians(rounds, lambda part: part.forward)
    return dict(
        (
            sampled("forward_seconds", forward, contended=_contended(part.forward for part in rounds)),
            sampled("train_step_seconds", steps, contended=contended),
            sampled("images_per_second", tuple(batch / seconds for seconds in steps), contended=contended),
            sampled("compile_seconds", tuple(map(_compile_seconds, rounds))),
            sampled("first_step_seconds", tuple(part.train_step.first_seconds for part in rounds)),
            sampled("peak_rss_bytes", tuple(float(part.peak_rss_bytes) for part in rounds)),
        )
    )


def scaling_metrics(draft: Draft) -> dict[str, Metric]:
    """What several devices gain over one, round by round; none for one device, or before both have had a round."""
    case = draft.case
    pairs = tuple(zip(draft.rounds(), draft.rounds_alone(), strict=False))
    if not pairs:
        return {}
    seconds = tuple(tuple(_round_medians(side, lambda part: part.train_step)) for side in zip(*pairs, strict=True))
    contended = tuple(_contended(part.train_step for part in side) for side in zip(*pairs, strict=True))
    many, alone = seconds
    efficiency = tuple(one / (case.devices * each) for each, one in zip(many, alone, strict=True))
    return dict(
        (
            sampled("one_device_images_per_second", tuple(case.batch / each for each in alone), contended=contended[1]),
            sampled("scaling_efficiency", efficiency, contended=sum(contended)),
        )
    )


def _compile_seconds(part: RoundPart) -> float:
    """What the first forward pass and train step took longer than the later ones: compiling, and warming up."""
    timings = (part.forward, part.train_step)
    return sum(max(0.0, timing.first_seconds - median(kept(timing.samples))) for timing in timings)


def _round_medians(rounds: tuple[RoundPart, ...], which: Callable[[RoundPart], Timing]) -> tuple[float, ...]:
    return tuple(median(kept(which(part).samples)) for part in rounds)


def _contended(timings: Iterable[Timing]) -> int:
    return sum(bool(sample.contended) for timing in timings for sample in timing.samples)


def _status(end: Done) -> Status:
    # Bad input that only one case meets (a batch larger than the split) is something this case cannot do.
    return "unsupported" if end.status == "bad_input" else end.status


def _notes(draft: Draft, rounds: tuple[RoundPart, ...]) -> Iterable[str]:
    yield from draft.data.notes
    yield from dict.fromkeys(note for part in draft.parts if isinstance(part, NotesPart) for note in part.notes)
    if "parity" not in draft.case.measure:
        yield "parity was not checked"
    rounds = (*rounds, *draft.rounds_alone())
    samples = [sample for part in rounds for timing in (part.forward, part.train_step) for sample in timing.samples]
    yield from _timing_notes(rounds, samples)


def _timing_notes(rounds: tuple[RoundPart, ...], samples: list[Sample]) -> Iterable[str]:
    if any(sample.contended is None for sample in samples):
        yield "this system does not say whether other programs held the processors"
    contended = sum(bool(sample.contended) for sample in samples)
    if contended:
        yield f"{contended} of {len(samples)} timing samples were contended"
    overhead = max((part.overhead_share for part in rounds), default=0.0)
    if overhead > OVERHEAD_SHARE:
        yield f"the harness itself took {overhead:.0%} of a timing pass"


def _fingerprint(draft: Draft, machine: Machine) -> Fingerprint:
    case = draft.case
    versions = next((part.versions for part in draft.parts if isinstance(part, ProbePart)), {})
    hashes = {name: facts.sha256 for name, facts in draft.data.splits.items()}
    protocol = (plain(case.dataset, defaults=True), hashes, case.batch, case.seed, case.precision)
    several = (case.devices,) if case.devices > 1 else ()
    setting = (case.device, case.threads, case.allocator, *several)
    surroundings = (plain(machine, defaults=True), dict(versions), *setting)
    return Fingerprint(
        network=content_hash(case.network),
        protocol=content_hash((protocol, plain((case.train, case.recipe), defaults=True))),
        environment=content_hash(surroundings),
    )
