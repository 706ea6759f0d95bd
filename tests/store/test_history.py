"""A metric over all runs: what is one row, what is left out, and in which order."""

import json
from dataclasses import replace

import pytest
from test_run import SCHEMA_1, record

from capsbench.errors import BadInput
from capsbench.measure.optable import OpEvent
from capsbench.record.codec import encode
from capsbench.record.history import read_history
from capsbench.record.schema import SCHEMA, Metric

EVENT = OpEvent("Mul", "mul", None, "forward", None, 7, 0.1, 1)


def number(value, unit="B", kind="exact", direction="lower"):
    """A metric."""
    return Metric(value=value, unit=unit, direction=direction, kind=kind)


def case(case_id="a", *, protocol="b", status="ok", seed=0, **metrics):
    """A record with some metrics."""
    found = record(case_id, status, metrics=metrics)
    return replace(
        found,
        case=replace(found.case, seed=seed),
        fingerprint=replace(found.fingerprint, protocol=protocol),
    )


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Store a run: its number is the hour in which it began, its lines are records or bytes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def store(hour, *lines, machine="one", commit="c" * 40, dirty=False, **packages):
        name = f"20261126T{hour:02d}0000Z-00000{hour % 10}"
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        environment = {
            "machine": {"processor": machine, "cores": 2},
            "packages": packages,
            "commit": {"hash": commit, "dirty": dirty},
        }
        header = {"run": name, "started": f"2026-11-26T{hour:02d}:00:00+00:00", "environment": environment}
        (folder / "run.json").write_text(json.dumps(header), encoding="utf-8")
        whole = [line if isinstance(line, bytes) else encode(line) for line in lines]
        (folder / "records.jsonl").write_bytes(b"".join(whole))
        return folder

    return store


def test_numbers_follow_each_other_in_time(keep, tmp_path):
    """By when the runs began, whatever the folders are called; of several records of a case in one the last counts."""
    late = keep(9, case(peak_bytes=number(3)), dirty=True)
    late.rename(late.with_name("a-name-of-my-own"))
    keep(7, case(peak_bytes=number(1)), case(peak_bytes=number(2)), commit="d" * 40)
    keep(8, case(loss=number(1.0)))
    history = read_history(tmp_path, "peak_bytes")
    assert [(stop.commit[0], stop.dirty) for stop in history.stops] == [("d", False), ("c", True)]
    [trend] = history.trends
    assert trend.points == {0: 2, 1: 3}
    assert (history.unit, history.direction, history.exact, history.skipped) == ("B", "lower", True, ())


def test_ids_play_no_part_unless_a_run_has_several(keep, tmp_path):
    """A case measured for longer goes on in its row; two of one run that do the same work are rows of their own."""
    keep(1, case("short", peak_bytes=number(1)))
    keep(2, case("long", peak_bytes=number(2)))
    assert [trend.points for trend in read_history(tmp_path, "peak_bytes").trends] == [{0: 1, 1: 2}]
    keep(3, case("short", peak_bytes=number(3)), case("long", peak_bytes=number(4)))
    assert [trend.points for trend in read_history(tmp_path, "peak_bytes").trends] == [{0: 1, 2: 3}, {1: 2, 2: 4}]


def test_machines_are_told_apart_where_they_matter(keep, tmp_path):
    """Times of another machine are another row; bytes go on, and the row says from which machines."""
    for hour, machine in enumerate(["one", "two", "one"]):
        metrics = {"peak_bytes": number(hour), "step_seconds": number(hour, "s", "sampled")}
        keep(hour, case(**metrics), machine=machine)
    times, sizes = (read_history(tmp_path, name) for name in ("step_seconds", "peak_bytes"))
    assert [(trend.points, trend.machines) for trend in times.trends] == [({0: 0, 2: 2}, (1,)), ({1: 1}, (2,))]
    assert [(trend.points, trend.machines) for trend in sizes.trends] == [({0: 0, 1: 1, 2: 2}, (1, 2))]
    assert [machine["processor"] for machine in sizes.machines] == ["one", "two"]
    assert not times.exact


def test_other_trainings_are_other_rows(keep, tmp_path):
    """What training came to is set beside the same training only; bytes know nothing of it."""
    for hour, protocol in enumerate(["short", "long", "short"]):
        keep(hour, case(protocol=protocol, error_rate=number(hour / 10, "1"), peak_bytes=number(hour)))
    assert [t.points for t in read_history(tmp_path, "error_rate").trends] == [{0: 0.0, 2: 0.2}, {1: 0.1}]
    assert len(read_history(tmp_path, "peak_bytes").trends) == 1


def test_failures_and_what_is_not_finite_are_no_numbers(keep, tmp_path):
    """They stand in the row by how they ended; no number at all is no row, and what was not measured no point."""
    keep(1, case(status="oom"), case("never", seed=1, status="crash"))
    keep(2, case(loss=number(1.5, "1", "sampled")))
    keep(3, case(loss=number(float("nan"), "1", "sampled")))
    keep(4, case(peak_bytes=number(1)))
    history = read_history(tmp_path, "loss")
    [trend] = history.trends
    assert (trend.points, trend.failures) == ({1: 1.5}, {0: "oom", 2: "not finite"})
    assert len(history.stops) == 3


def test_what_cannot_be_read_costs_nothing_else(keep, tmp_path):
    """Damaged lines, those of a newer version, a broken run.json: skipped and told; old versions are read."""
    newer = encode(replace(case(peak_bytes=number(9)), schema=SCHEMA + 1))
    keep(1, case(peak_bytes=number(1)), b"{}\n", newer, b'{"schema": 3, "ru')
    broken = keep(2, case(peak_bytes=number(2)))
    (broken / "run.json").write_text("{", encoding="utf-8")
    keep(3, case(peak_bytes=number(3)))
    keep(4, SCHEMA_1.read_bytes())
    history = read_history(tmp_path, "peak_bytes")
    assert history.trends[0].points == {0: 1, 1: 2, 2: 3}
    assert [stop.commit is None for stop in history.stops] == [False, True, False, False]
    assert len(history.trends) == 2
    told = "\n".join(history.skipped)
    assert "that are damaged were skipped: 2, 4" in told
    assert "that are of a newer capsbench were skipped: 3" in told
    assert "its commit and machine are unknown" in told


def test_calls_are_counted(keep, tmp_path):
    """The calls of the profiled step have a history as well, as they have a row in a comparison."""
    keep(1, replace(case(), ops=(EVENT, EVENT)))
    assert read_history(tmp_path, "op_calls").trends[0].points == {0: 14}


def test_a_history_of_nothing_is_refused(keep, tmp_path):
    """No run, no case, no such metric, no such case: one sentence each, with what would be legal."""
    with pytest.raises(BadInput, match="there is no run in"):
        read_history(tmp_path, "peak_bytes")
    keep(1)
    with pytest.raises(BadInput, match="has ended yet"):
        read_history(tmp_path, "peak_bytes")
    keep(2, case(peak_bytes=number(1), loss=number(1.0)), replace(case("b"), ops=(EVENT,)))
    with pytest.raises(BadInput, match=r"'peak_byte', legal are loss, op_calls, peak_bytes; did you mean 'peak_bytes'"):
        read_history(tmp_path, "peak_byte")
    with pytest.raises(BadInput, match=r"no case like 'x\*' has peak_bytes"):
        read_history(tmp_path, "peak_bytes", "x*")
    assert len(read_history(tmp_path, "peak_bytes", "em-tiny").trends) == 1
