"""Rounds go A B, B A; what looks worse is called so only where fresh rounds alone say so."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from capsbench.metrics import METRICS
from capsbench.network.text import dump
from capsbench.record.compare import compare
from capsbench.record.pairs import APART, Pair
from capsbench.suite.schema import load_suite
from capsbench.track.cells import cells, without_times
from capsbench.track.interleave import (
    LEAST_FRESH_ROUNDS,
    Series,
    confirm,
    findings_of,
    first_round,
    later_rounds,
    suspects,
    usual_rounds,
)
from capsbench.track.rounds import take_round

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from sample_records import EVENTS, case, exact, record, sampled

SUITE = """\
name: tests
dataset: mnist
networks: [cnn-tiny]
backends: ["torch:eager", {use: "torch:tiled", measure: [memory]}]
batch: [8, 16]
measure: [memory, time, ops]
"""


@pytest.fixture
def planned(tmp_path):
    """Four cases: two that are timed, two of which bytes alone are measured."""
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    return cells([(path, load_suite(path))], {}, None)


class Machine:
    """Visits that take as long as a function of side, purpose and number says; remembers them."""

    def __init__(self, seconds, status="ok"):
        self.turns = []
        self._seconds, self._status = seconds, status

    def take(self, turns):
        """Make the visits of a round."""
        return list(map(self._visit, turns))

    def _visit(self, turn):
        self.turns.append(turn)
        key = case(mode=turn.cell.case.mode, batch=turn.cell.case.batch)
        metrics = {"allocated_bytes": exact(1_000, "B")}
        if "time" in turn.measure:
            noise = 1 + turn.number / 1000 + len(self.turns) / 1e6
            seconds = self._seconds(turn) * noise
            metrics["train_step_seconds"] = sampled([seconds])
            metrics["images_per_second"] = sampled([8 / seconds], "images/s", "higher")
        status = self._status(turn) if callable(self._status) else self._status
        ops = EVENTS if "ops" in turn.measure else ()
        return record(key, status=status, metrics=metrics, ops=ops, reason="" if status == "ok" else "so it is")

    def sides(self, purpose):
        """Whose turns for a purpose, by their first letters."""
        return [turn.side[0] for turn in self.turns if turn.purpose == purpose]


def alike(turn):
    return 0.1


def slower_head(turn):
    return 0.12 if turn.side == "head" and turn.cell.case.batch == 8 else 0.1


def fluke(turn):
    return slower_head(turn) if turn.purpose != "again" else 0.1


def compared(planned, machine, rounds):
    series = first_round(planned, machine.take)
    later_rounds(series, rounds, machine.take)
    return series, findings_of(series, compare)


def test_rounds_are_taken_in_turns(planned):
    """Everything of A and B first, then A B, B A, A B; of those only times, and only where they are asked for."""
    machine = Machine(alike)
    _, findings = compared(planned[:1], machine, 3)
    assert [turn.side for turn in machine.turns] == ["base", "head", "base", "head", "head", "base", "base", "head"]
    assert [turn.measure for turn in machine.turns[:3]] == [("memory", "time", "ops")] * 2 + [("time",)]
    assert len(findings.pairs[0].new.metrics["train_step_seconds"].samples) == 3
    machine = Machine(alike)
    compared(planned, machine, 2)
    assert len(machine.sides("first")) == 8
    assert len(machine.sides("times")) == 8


@pytest.mark.parametrize(
    ("changes", "beside"),
    [({}, True), ({"device": "cuda:0"}, False), ({"rss": 1e15}, False)],
    ids=["a processor", "a GPU", "too little memory"],
)
def test_rounds_are_side_by_side_where_there_is_room(planned, changes, beside):
    """Both processes of a round are there at once on processors whose memory holds both."""
    series = Series(planned[0])
    held = {"peak_rss_bytes": sampled([changes.get("rss", 1e6)])}
    for side in ("base", "head"):
        series.first[side] = record(case(device=changes.get("device", "cpu")), metrics=held)
    machine = Machine(alike)
    later_rounds([series], 2, machine.take)
    assert [turn.beside for turn in machine.turns[:2]] == [beside] * 2
    assert not Series(planned[0]).fits_beside


@pytest.mark.parametrize(("knows", "device"), [(True, "cpu"), (False, "cpu"), (False, "cuda:0")])
def test_rounds_that_could_not_be_side_by_side_are_noted(planned, knows, device):
    """On processors, whose floor is recorded side by side; the note goes with the times into the case's record."""
    sides = {side: SimpleNamespace(checkout=SimpleNamespace(takes_turns=knows)) for side in ("base", "head")}
    seen = []

    def visit(turn, turns):
        seen.append(turns)
        return record(case(device=device))

    series = Series(planned[0])
    first_round([planned[0]], lambda turns: take_round(turns, visit, sides))
    assert seen == [None, None]
    series.first.update(base=record(case(device=device)), head=record(case(device=device)))
    later_rounds([series], 2, lambda turns: take_round(turns, visit, sides))
    noted = not knows and device == "cpu"
    assert series.pair().beside != noted
    assert all((APART in each.notes) == noted for side in series.rounds.values() for each in side)
    assert all((turns is None) == (not knows) for turns in seen[2:])


@pytest.mark.parametrize("count", range(1, 7))
def test_usual_rounds_can_call_every_time_worse(planned, count):
    """All times of so many cases are slower on one side: with these rounds each is found, and with one less none is."""
    names = [known.name for known in METRICS.values() if known.measure == "time" and known.unit in {"s", "images/s"}]
    series = [Series(planned[0]) for _ in range(count)]

    def timed(seed, factor, rounds):
        found = {}
        for name in names:
            known = METRICS[name]
            power = 1 if known.direction == "lower" else -1
            samples = [(factor * (1 + number / 1000)) ** power for number in range(rounds)]
            found[name] = sampled(samples, known.unit, known.direction)
        return record(case(seed=seed), metrics=found)

    for seed, each in enumerate(series):
        each.first.update(base=timed(seed, 1.0, 1), head=timed(seed, 1.3, 1))
    rounds = usual_rounds(series)
    for enough in (True, False):
        taken = rounds if enough else rounds - 1
        pairs = [Pair(timed(seed, 1.0, taken), timed(seed, 1.3, taken)) for seed in range(count)]
        changes = [change for change in compare(pairs, interleaved=True) if change.kind in {"time", "rate"}]
        assert len(changes) == count * len(names)
        assert {change.verdict for change in changes} == {"worse" if enough else "undecided"}


def test_identical_sides_are_not_worse(planned):
    """Nothing is suspected where both sides take the same time."""
    _, findings = compared(planned, Machine(alike), 7)
    assert suspects(findings) == []
    assert {change.verdict for change in findings.changes} == {"same"}


@pytest.mark.parametrize(("seconds", "verdict", "confirmed"), [(slower_head, "worse", 1), (fluke, "same", 0)])
def test_fresh_rounds_have_the_last_word(planned, seconds, verdict, confirmed):
    """A planted 20 % stays worse; a fluke that later samples do not show is cleared, and only its case runs again."""
    machine = Machine(seconds)
    series, findings = compared(planned, machine, 7)
    assert [change.metric for change in suspects(findings)] == ["train_step_seconds"]
    found = confirm(series, findings, LEAST_FRESH_ROUNDS, machine.take, compare)
    assert (found.suspected, found.confirmed) == (1, confirmed)
    for metric in ("images_per_second", "train_step_seconds"):  # a rate is cleared with the time that it follows from
        judged = [change for change in found.changes if change.metric == metric]
        assert [change.verdict for change in judged] == [verdict, "same"]
    assert machine.sides("again").count("h") == machine.sides("again").count("b") == LEAST_FRESH_ROUNDS
    assert {turn.cell.case.batch for turn in machine.turns if turn.purpose == "again"} == {8}
    fresh = judged[0].pair.new
    assert len(fresh.metrics["train_step_seconds"].samples) == LEAST_FRESH_ROUNDS
    assert fresh.ops == EVENTS
    assert len(findings.pairs) == len(found.pairs) == 4


def test_a_case_that_cannot_run_again_is_not_called_worse(planned):
    """Where the fresh rounds fail, the time is undecided and the failure is told."""
    machine = Machine(slower_head, lambda turn: "oom" if turn.purpose == "again" else "ok")
    series, findings = compared(planned, machine, 7)
    found = confirm(series, findings, LEAST_FRESH_ROUNDS, machine.take, compare)
    assert found.confirmed == 0
    assert "worse" not in {change.verdict for change in found.changes if change.kind in {"time", "rate"}}
    assert [pair.new.status for pair in found.pairs] == ["oom", "ok", "ok", "ok"]
    assert len(machine.sides("again")) == 2


def test_a_side_that_fails_leaves_the_rest(planned):
    """A failure of one case on one side is a status, takes no further rounds, and keeps no other from being timed."""
    machine = Machine(alike, lambda t: "crash" if (t.side, t.cell.case.batch) == ("base", 8) else "ok")
    _, findings = compared(planned, machine, 7)
    assert [pair.base.status for pair in findings.pairs] == ["crash", "crash", "ok", "ok"]
    assert findings.pairs[0].base.reason == "so it is"
    assert {turn.cell.case.batch for turn in machine.turns if turn.purpose == "times"} == {16}


def test_cases_can_do_without_times(planned):
    """What else is measured stays."""
    assert [cell.suite.measure for cell in without_times(planned)] == [("memory", "ops"), ("memory",)] * 2


def test_a_glob_picks_cases_and_each_comes_once(tmp_path):
    """Iterations that a network has not give no second case; `only` is that of `run`."""
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE + "routing_iterations: [1, 2]\n")
    suite = load_suite(path)
    assert [cell.label for cell in cells([(path, suite), (path, replace(suite, seeds=(0,)))], {}, "*tiled*b8*")] == [
        "cnn-tiny.mnist.torch-tiled.b8.s0"
    ]


def test_several_devices_are_cases_of_their_own(tmp_path):
    """Each count is a suite of one case, in which one device, as older revisions know it, is not written."""
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE + "devices: [1, 2]\n")
    found = cells([(path, load_suite(path))], {}, "*tiled*b8*")
    assert [(cell.label, cell.suite.devices) for cell in found] == [
        ("cnn-tiny.mnist.torch-tiled.b8.s0", 1),
        ("cnn-tiny.mnist.torch-tiled.b8.d2.s0", 2),
    ]
    assert "devices" not in dump(found[0].suite)
