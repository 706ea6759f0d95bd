"""Which numbers of two runs are set side by side, and what is made of them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_records import EVENTS, case, exact, metrics, noise_recording, record, sampled

from capsbench.measure.environment import Machine
from capsbench.metrics import OP_CALLS
from capsbench.record.changes import TESTED
from capsbench.record.compare import compare
from capsbench.record.noise import Noise
from capsbench.record.pairs import APART, Pair, pair_cases
from capsbench.record.schema import Fingerprint
from capsbench.report.comparison import comparison_tables, noise_notes
from capsbench.stats.verdict import least_pairs

NEUTRAL = ("parameters", "train_step_flops")


def word(changes, metric):
    """The verdict on a metric, the only one of that name."""
    [found] = [change for change in changes if change.metric == metric]
    return found.verdict


def compared(base, new):
    """The changes of one pair of records."""
    return compare([Pair(base, new)])


def with_metrics(**changed):
    """A record some of whose metrics are others."""
    return record(metrics=metrics() | changed)


def test_the_same_run_twice_is_the_same():
    """Every exact number and the error rate are the same; three samples a side decide no time."""
    changes = compared(record(ops=EVENTS), record(ops=EVENTS))
    assert {change.metric: change.verdict for change in changes} == {
        "error_rate": "same",
        "parameters": "same",
        "train_step_flops": "same",
        "peak_bytes": "same",
        "allocated_bytes": "same",
        OP_CALLS: "same",
        "forward_seconds": "undecided",
        "train_step_seconds": "undecided",
        "images_per_second": "undecided",
        "epoch_seconds": "undecided",
    }


@pytest.mark.parametrize("name", ["peak_bytes", "allocated_bytes"])
def test_one_byte_more_is_worse(name):
    """What repeats exactly is compared exactly, and directions are known."""
    value = metrics()[name].value
    assert word(compared(record(), with_metrics(**{name: exact(value + 1, "B")})), name) == "worse"
    assert word(compared(record(), with_metrics(**{name: exact(value - 1, "B")})), name) == "better"


def test_numbers_of_no_direction_only_change():
    """More parameters are neither better nor worse."""
    assert word(compared(record(), with_metrics(parameters=exact(1, "1", "none"))), "parameters") == "changed"


def test_one_call_more_is_worse():
    """The calls of the profiled step are an exact number of their own."""
    more = (replace(EVENTS[0], calls=EVENTS[0].calls + 1), *EVENTS[1:])
    assert word(compared(record(ops=EVENTS), record(ops=more)), OP_CALLS) == "worse"


@pytest.mark.parametrize(("factor", "verdict"), [(1.10, "same"), (1.25, "worse"), (0.8, "better")])
def test_bytes_that_do_not_repeat_have_a_margin(factor, verdict):
    """A framework whose peak moves by itself is held to what it was seen to move by."""
    base, new = (sampled([value], "B") for value in (1e8, 1e8 * factor))
    assert word(compared(with_metrics(peak_bytes=base), with_metrics(peak_bytes=new)), "peak_bytes") == verdict


def test_times_are_compared_by_processes():
    """Ten processes a side that are all a fifth slower are worse, and the ratio is the fifth."""
    steps = [0.2 + 0.001 * i for i in range(10)]
    slow = with_metrics(train_step_seconds=sampled([1.2 * step for step in steps]))
    changes = compared(with_metrics(train_step_seconds=sampled(steps)), slow)
    [found] = [change for change in changes if change.metric == "train_step_seconds"]
    assert found.verdict == "worse"
    assert found.ratio == pytest.approx(1.2, rel=0.02)
    assert found.needed is None


def test_rounds_that_took_turns_are_compared_pair_by_pair():
    """A fifth is found beneath moments that differ by more, the ratio is that of the rounds, and the table says how."""
    moments = [0.2 * 1.3 ** (i % 5) for i in range(10)]
    slow = [1.2 * (1 + i / 1000) * moment for i, moment in enumerate(moments)]
    sides = [with_metrics(train_step_seconds=sampled(times)) for times in (moments, slow)]
    found = {}
    for interleaved in (True, False):
        changes = compare([Pair(*sides)], interleaved=interleaved)
        [found[interleaved]] = [change for change in changes if change.metric == "train_step_seconds"]
        [table] = comparison_tables(changes, everything=True, margin=0.05)
        assert ("signed-rank" in table.notes[0]) == interleaved
    assert (found[True].verdict, found[False].verdict) == ("worse", "undecided")
    assert found[True].ratio == pytest.approx(1.2 * 1.0045, rel=1e-4)
    assert found[True].seen.high - found[True].seen.low < 0.01
    assert found[False].needed > 10


def test_three_rounds_in_turns_ask_for_more():
    """Times a fifth worse after three rounds are undecided, and the number of pairs that would do is said."""
    times = [0.2, 0.21, 0.22]
    sides = [with_metrics(train_step_seconds=sampled([factor * t for t in times])) for factor in (1.0, 1.2)]
    changes = compare([Pair(*sides)], interleaved=True)
    [found] = [change for change in changes if change.metric == "train_step_seconds"]
    assert found.verdict == "undecided"
    assert found.needed == least_pairs(found.rows) > 3


def test_a_round_that_one_side_lacks_leaves_no_pairs():
    """Sides of unequal many rounds are compared as any others."""
    sides = [with_metrics(train_step_seconds=sampled([0.2 + i / 1000 for i in range(n)])) for n in (9, 10)]
    together, apart = (compare([Pair(*sides)], interleaved=interleaved) for interleaved in (True, False))
    assert [change.seen for change in together if change.metric == "train_step_seconds"] == [
        change.seen for change in apart if change.metric == "train_step_seconds"
    ]


def noise_of(in_turns, in_a_row, **changes):
    """A machine whose train steps differ by so much, with any number of processes."""
    recording = noise_recording(in_turns, in_a_row)
    machine = Machine(processor="Abacus", cores=2, memory_bytes=1, system="Linux", architecture="wood")
    return Noise(machine=machine, recordings=(replace(recording, **changes),))


@pytest.mark.parametrize(
    ("noise", "interleaved", "verdict", "margin"),
    [
        ([noise_of(0.03, 0.10)], False, "worse", 0.10),
        ([noise_of(0.10, 0.25)], True, "worse", 0.10),
        ([noise_of(0.10, 0.25)], False, "same", 0.25),
        ([noise_of(0.03, 0.04), noise_of(0.10, 0.25)], False, "same", 0.25),
        ([noise_of(0.03, 0.04)], False, "worse", 0.05),
        ([noise_of(0.10, 0.25, device="cuda:0")], False, "worse", 0.05),
    ],
)
def test_a_time_must_pass_the_floor(noise, interleaved, verdict, margin):
    """A fifth more is worse beyond the floor and the same within it; the larger of margin and floors counts."""
    steps = [0.2 + 0.0001 * i for i in range(10)]
    pair = Pair(
        with_metrics(train_step_seconds=sampled(steps)),
        with_metrics(train_step_seconds=sampled([1.2 * step for step in steps])),
    )
    changes = compare([pair], noise=noise, interleaved=interleaved)
    [found] = [change for change in changes if change.metric == "train_step_seconds"]
    assert (found.verdict, found.margin) == (verdict, margin)
    assert {change.margin for change in changes if change.kind not in TESTED} == {None}


@pytest.mark.parametrize(("notes", "verdict", "how"), [((), "worse", "taking turns"), ((APART,), "same", "one after")])
def test_turns_that_were_not_side_by_side_are_held_to_the_larger_floor(notes, verdict, how):
    """What a machine shows of processes that run at the same time is too little for others."""
    steps = [0.2 + 0.0001 * i for i in range(10)]
    base, new = (with_metrics(train_step_seconds=sampled([by * step for step in steps])) for by in (1.0, 1.2))
    noise = [noise_of(0.10, 0.25)]
    changes = compare([Pair(base, replace(new, notes=notes))], noise=noise, interleaved=True)
    assert word(changes, "train_step_seconds") == verdict
    [told] = noise_notes(changes, noise, interleaved=True)
    assert how in told


def test_what_times_were_held_against_is_said():
    """The floors by metric, how the sides ran and when it was recorded; that there is none; which margin was raised."""
    pair = Pair(record(), record())
    noise = [noise_of(0.07, 0.123)]
    changes = compare([pair], noise=noise)
    [told] = noise_notes(changes, noise, interleaved=False)
    assert told == (
        "noise floor of Abacus: 12.30 % of train_step_seconds with 3 processes a side, one after the other "
        "(recorded 2026-11-26)"
    )
    [table] = comparison_tables(changes, everything=True, margin=0.05)
    assert table.notes[-1] == (
        "margin: within 5.00 % a time is the same, or 12.30 % where the machine's noise floor is more."
    )
    [told] = noise_notes(changes, [], interleaved=False)
    assert "none is known" in told
    assert list(noise_notes([], noise, interleaved=False)) == []
    [told] = noise_notes(changes, [noise_of(0.1, 0.1, device="cuda:0")], interleaved=True)
    assert "none of what is compared here was recorded" in told


def test_a_better_error_rate_is_better():
    """Seeds are paired; a gain that all show is better, and what seeds scatter by plays no part."""
    rates = [0.02, 0.04, 0.03, 0.05]
    gains = [0.010, 0.011, 0.0105, 0.0095]
    sides = [
        [record(case(seed=seed), metrics=metrics(accuracy=1 - rate)) for seed, rate in enumerate(of)]
        for of in (rates, [rate - gain for rate, gain in zip(rates, gains, strict=True)])
    ]
    for side, verdict in ((sides, "better"), (sides[::-1], "worse")):
        changes = compare(pair_cases(*side).pairs)
        assert word(changes, "error_rate") == verdict


def test_other_trainings_are_not_compared():
    """An error rate from another protocol says nothing about the change."""
    other = replace(record().fingerprint, protocol="another")
    changes = compared(record(), replace(record(), fingerprint=other))
    assert "error_rate" not in {change.metric for change in changes}


@pytest.mark.parametrize(
    ("before", "after", "verdict"), [("ok", "oom", "worse"), ("crash", "ok", "better"), ("oom", "crash", "changed")]
)
def test_how_a_case_ended_is_a_row(before, after, verdict):
    """A case that fails in B is worse, one that failed in A is better, another failure is a change."""
    [found] = [c for c in compared(record(status=before), record(status=after)) if c.kind == "status"]
    assert (found.verdict, found.text) == (verdict, f"{before} → {after}")


def test_cases_are_matched_by_what_they_do():
    """Ids, which also hash how long was measured, play no part; another network of the same name does."""
    one, two = record(case(seed=0)), record(case(seed=1))
    renamed = replace(one, case=replace(one.case, id="measured-longer"))
    spec = replace(two, fingerprint=Fingerprint(network="other", protocol="p", environment="e"))
    pairing = pair_cases([one, two], [spec, renamed])
    assert pairing.pairs == (Pair(one, renamed),)
    assert pairing.only_base == (two,)
    assert pairing.only_new == (spec,)


def test_cases_that_do_the_same_are_told_apart_by_their_ids():
    """Two suites may hold a case each that differ in their protocol only."""
    short, long = (replace(record(), case=replace(record().case, id=name)) for name in ("short", "long"))
    pairing = pair_cases([short, long], [long, short])
    assert {(pair.base.case.id, pair.new.case.id) for pair in pairing.pairs} == {("short", "short"), ("long", "long")}
    assert pair_cases([short, long], [long]).only_base == (short,)


@given(st.lists(st.integers(0, 20), unique=True), st.lists(st.integers(0, 20), unique=True))
def test_every_case_is_somewhere(of_a, of_b):
    """Pairs and those left alone are all there are, each once."""
    base, new = ([record(case(seed=seed)) for seed in seeds] for seeds in (of_a, of_b))
    pairing = pair_cases(base, new)
    assert sorted(p.base.case.seed for p in pairing.pairs) == sorted(set(of_a) & set(of_b))
    assert {r.case.seed for r in pairing.only_base} == set(of_a) - set(of_b)
    assert {r.case.seed for r in pairing.only_new} == set(of_b) - set(of_a)


def test_neutral_numbers_are_as_assumed():
    """The records these tests are made of hold what they are said to hold."""
    assert all(metrics()[name].direction == "none" for name in NEUTRAL)
