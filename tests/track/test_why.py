"""A number that moved is explained by the op that moved most, named by op, layer and routing iteration."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from capsbench.record.compare import compare
from capsbench.record.pairs import Pair
from capsbench.record.why import UNATTRIBUTED, explain
from capsbench.report.explanation import explanations
from capsbench.track.pooling import pooled

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from sample_records import ALIVE, EVENTS, FORWARD, event, exact, metrics, record, sampled

VOTES = 7_372_800


def changes(new, base=None):
    """What changed, by metric."""
    return {change.metric: change for change in compare([Pair(base or record(), new)])}


def with_copies(*iterations):
    """A record whose step copies the votes in some routing iterations."""
    copies = [event("Copy", "aten::clone", "forward", 1, 0.0, VOTES, iteration=i) for i in iterations]
    more = VOTES * len(copies)
    numbers = metrics() | {"allocated_bytes": exact(1_650_300_333 + more, "B")}
    return record(metrics=numbers, ops=(*EVENTS, *copies), step_profile_bytes=record().step_profile_bytes + more)


@pytest.mark.parametrize("iterations", [(1,), (0, 1, 2)])
def test_one_extra_copy_of_the_votes_is_named(iterations):
    """By op, layer, phase and the iterations that have it, in bytes and in calls."""
    found = changes(with_copies(*iterations))
    for metric, after in (("allocated_bytes", VOTES * len(iterations)), ("op_calls", len(iterations))):
        assert found[metric].verdict == "worse"
        mover = explain(found[metric])
        assert (mover.op, mover.layer, mover.phase, mover.routing_iterations) == (
            "Copy",
            "conv_caps1",
            "forward",
            iterations,
        )
        assert (mover.before, mover.after, mover.calls) == (0, after, (0, len(iterations)))
    told = list(explanations(list(found.values())))
    assert any("Copy in conv_caps1, forward, routing iteration" in sentence for sentence in told)
    assert any("0 → 1 calls" in sentence for sentence in told) == (iterations == (1,))


def test_what_got_better_is_explained_by_what_got_less():
    """The mover moves the way of the number, not against it."""
    mover = explain(changes(record(), base=with_copies(1))["allocated_bytes"])
    assert (mover.op, mover.before, mover.after) == ("Copy", VOTES, 0)


def test_bytes_without_an_op_are_said_to_have_none():
    """Where no op moved, what no op is known for did."""
    numbers = metrics() | {"allocated_bytes": exact(1_650_300_333 + 64, "B")}
    new = record(metrics=numbers, step_profile_bytes=record().step_profile_bytes + 64)
    assert explain(changes(new)["allocated_bytes"]).op == UNATTRIBUTED


def test_the_peak_is_explained_by_what_is_alive_at_it():
    """Votes that are alive twice are the votes, not the op that made them."""
    numbers = metrics() | {"peak_bytes": exact(163_123_456 + 92_160_000, "B")}
    alive = (replace(ALIVE[0], bytes=2 * ALIVE[0].bytes, count=2), *ALIVE[1:])
    mover = explain(changes(record(metrics=numbers, alive_at_peak=alive))["peak_bytes"])
    assert (mover.op, mover.layer, mover.quantity, mover.after) == ("votes", "conv_caps1", "live bytes", 184_320_000)


def slower(seconds, *, op=0.0):
    """Seven samples of a step and of a forward pass, and an op that takes `op` seconds longer."""
    times = {
        name: sampled([value * (1 + i / 1000) for i in range(7)])
        for name, value in (("train_step_seconds", seconds), ("forward_seconds", seconds / 4))
    }
    ops = (replace(EVENTS[0], self_seconds=EVENTS[0].self_seconds + op), *EVENTS[1:])
    forward = replace(FORWARD, events=(replace(ops[0]), *FORWARD.events[1:]), step_seconds=FORWARD.step_seconds + op)
    step = record().step_profile_seconds + op
    return record(metrics=metrics() | times, ops=ops, forward_profile=forward, step_profile_seconds=step)


def test_a_slower_op_explains_a_slower_step():
    """The op whose own time grew by a good part of what the step's did, in the step and in the forward pass."""
    found = changes(slower(0.25, op=0.04), base=slower(0.2))
    for metric in ("train_step_seconds", "forward_seconds"):
        mover = explain(found[metric])
        assert (found[metric].verdict, mover.op, mover.layer) == ("worse", "BatchMatMul", "conv_caps1")
        assert mover.after - mover.before == pytest.approx(0.04)


def test_what_ops_do_not_explain_is_not_explained():
    """An op that moved by next to nothing is not blamed, and without tables the sentence says so."""
    found = changes(slower(0.25, op=0.001), base=slower(0.2))
    assert explain(found["train_step_seconds"]) is None
    assert explain(found["forward_seconds"]) is None
    told = " ".join(explanations([found["train_step_seconds"]]))
    assert "nothing in the op tables explains it" in told
    bare = changes(replace(slower(0.25), ops=()), base=replace(slower(0.2), ops=()))
    assert "measure ops" in " ".join(explanations([bare["train_step_seconds"]]))


def test_rounds_pool_into_one_record():
    """Samples of all rounds, exact numbers of the first, medians of ops' seconds, contention added up."""
    rounds = [
        replace(slower(0.2, op=op), notes=("a subset", f"{n} of 10 timing samples were contended"))
        for n, op in ((1, 0.0), (2, 9.0), (3, 0.01))
    ]
    found = pooled(rounds)
    assert len(found.metrics["train_step_seconds"].samples) == 21
    assert found.metrics["peak_bytes"] == rounds[0].metrics["peak_bytes"]
    assert found.ops[0].self_seconds == pytest.approx(EVENTS[0].self_seconds + 0.01)
    assert found.ops[0].allocated_bytes == EVENTS[0].allocated_bytes
    assert found.notes == ("a subset", "6 of 30 timing samples were contended")
    failed = pooled([rounds[0], record(status="timeout", reason="too long")])
    assert (failed.status, failed.reason) == ("timeout", "too long")
