from dataclasses import replace

import pytest
from conftest import make_case
from hypothesis import given
from hypothesis import strategies as st

from capsbench.measure.clock import Sample, Timing
from capsbench.measure.environment import Machine
from capsbench.record.schema import SplitFacts
from capsbench.runner.assemble import DataFacts, Draft, assemble, timing_metrics
from capsbench.suite.schema import TimeChoice, TrainChoice
from capsbench.worker.messages import Done, NotesPart, ProbePart, Received, RoundPart

MACHINE = Machine(processor="Abacus", cores=2, memory_bytes=1 << 30, system="Linux 1", architecture="wood")


def timing(seconds, contended=()):
    samples = tuple(Sample(s, 1, 0.0, 0, i in contended) for i, s in enumerate(seconds))
    return Timing(9.0, 5, samples, sum(seconds), sum(seconds))


def round_of(seconds, contended=(), overhead=0.0):
    return RoundPart(
        forward=timing([1.0, 1.0, 1.0]),
        train_step=timing(seconds, contended),
        overhead_share=overhead,
        peak_rss_bytes=1000,
    )


def record_of(case, *parts, done=None, sha256="abc", machine=MACHINE):
    draft = Draft(case, DataFacts({"train": SplitFacts(count=48, full_count=48, sha256=sha256)}, ()))
    draft.take(Received(parts, done or Done(status="ok")))
    return assemble(draft, "run", machine)


def test_value_is_the_median_of_round_medians():
    """Rounds are the samples; a round's contended samples do not enter its median, but are counted."""
    rounds = (round_of([2.0, 9.0, 2.2], {1}), round_of([3.0, 3.0, 3.0]), round_of([8.0, 7.0, 9.0], {0, 1, 2}))
    metric = timing_metrics(rounds, 8)["train_step_seconds"]
    assert metric.samples == pytest.approx((2.1, 3.0, 8.0))
    assert (metric.value, metric.interval, metric.contended) == (3.0, (pytest.approx(2.1), 8.0), 4)
    assert timing_metrics(rounds, 8)["images_per_second"].value == pytest.approx(8 / 3.0)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=12), st.integers(1, 512))
def test_images_and_seconds_agree(seconds, batch):
    """Images a second are the batch over the seconds, sample by sample, with the interval turned round."""
    metrics = timing_metrics(tuple(round_of([s]) for s in seconds), batch)
    times, rates = metrics["train_step_seconds"], metrics["images_per_second"]
    assert rates.samples == pytest.approx([batch / s for s in times.samples])
    assert rates.interval == pytest.approx((batch / times.interval[1], batch / times.interval[0]))


def test_compiling_is_what_the_first_calls_take_longer():
    """Of forward pass and train step together; a first call that happens to be faster gives nothing back."""
    slow = replace(round_of([2.0, 2.0]).forward, first_seconds=9.0)
    quick = replace(slow, first_seconds=0.5)
    parts = [replace(round_of([2.0, 2.0]), forward=first, train_step=slow) for first in (slow, quick)]
    assert timing_metrics(tuple(parts), 8)["compile_seconds"].samples == pytest.approx((16.0, 8.0))


def test_without_rounds_there_are_no_times():
    """A case that was not timed has no time of 0."""
    assert record_of(make_case()).metrics == {}


def test_notes_warn_the_reader():
    """Contention, a harness that took too much, a silent system and a parity left out stand beside the numbers."""
    case = make_case(measure=("time",))
    notes = record_of(case, NotesPart(notes=("a", "b")), NotesPart(notes=("b",)), round_of([1.0, 2.0], {1}, 0.07)).notes
    assert notes == (
        "a",
        "b",
        "parity was not checked",
        "1 of 5 timing samples were contended",
        "the harness itself took 7% of a timing pass",
    )
    silent = Timing(1.0, 5, (Sample(1.0, 1, None, None, None),), 1.0, 1.0)
    part = RoundPart(forward=silent, train_step=silent, overhead_share=0.0, peak_rss_bytes=1)
    assert "this system does not say whether other programs held the processors" in record_of(case, part).notes


def test_fingerprints_change_with_what_they_stand_for():
    """Each hash follows its own subject and no other; how long is sampled changes none."""
    case, probe = make_case(), ProbePart(versions={"fake": "1.0"}, devices=("cpu",))
    base = record_of(case, probe).fingerprint
    other_network = replace(case, network=replace(case.network, name="another"))
    changed = {
        "network": record_of(other_network, probe).fingerprint,
        "protocol": record_of(replace(case, train=TrainChoice(epochs=9)), probe).fingerprint,
        "environment": record_of(replace(case, threads=2), probe).fingerprint,
    }
    for name, fingerprint in changed.items():
        same = {field for field in changed if getattr(fingerprint, field) == getattr(base, field)}
        assert same == changed.keys() - {name}
    assert record_of(case, probe, sha256="abd").fingerprint.protocol != base.protocol
    newer = replace(probe, versions={"fake": "1.1"})
    assert record_of(case, newer).fingerprint.environment != base.environment
    assert record_of(case, probe, machine=replace(MACHINE, cores=3)).fingerprint.environment != base.environment
    longer = replace(case, time=TimeChoice(rounds=99), backend="another", mode="slow")
    assert record_of(longer, probe).fingerprint == base


def test_bad_input_becomes_unsupported():
    """What only this case cannot do is its own row."""
    record = record_of(make_case(), done=Done(status="bad_input", reason="too large"))
    assert (record.status, record.reason) == ("unsupported", "too large")
