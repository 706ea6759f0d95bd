"""Cases on several devices, from end to end: their turns beside one device, their records."""

import json

import pytest
from recorder import MemoryStore, Recorder

from capsbench.record.codec import decode, encode
from capsbench.runner.group import sides
from capsbench.runner.schedule import run_cases


@pytest.fixture
def run(mnist_root, tmp_path):
    """A function that runs a case and returns its record, the listener and the folder of its artifacts."""

    def run(case):
        store, listener = MemoryStore(tmp_path / "artifacts"), Recorder()
        run_cases([case], data_root=mnist_root, cache=tmp_path, store=store, listener=listener)
        (record,) = store.records
        return record, listener, store.artifacts(case.id)

    return run


def test_a_case_on_two_devices(run, make_case):
    """It is trained, and timed in turns with one device; what it gains is in its record, which comes back as it was."""
    case = make_case("steady", devices=2, measure=("time", "accuracy"))
    record, listener, artifacts = run(case)
    assert (record.status, record.reason, record.case.devices) == ("ok", "", 2)
    assert record.data_parallel.passed
    metrics = record.metrics
    for name in ("images_per_second", "one_device_images_per_second", "scaling_efficiency"):
        assert len(metrics[name].samples) == 2
    gains = [metrics[name].samples for name in ("images_per_second", "one_device_images_per_second")]
    assert max(gains[0]) < 8 / 0.01  # each of two takes half as long
    assert max(gains[1]) < 8 / 0.02
    assert metrics["scaling_efficiency"].samples == pytest.approx(
        [two / (2 * one) for two, one in zip(*gains, strict=True)]
    )
    assert "accuracy" in metrics
    rounds = json.loads((artifacts / "timing.json").read_text())
    assert [[each["devices"] for each in rounds[side]] for side in ("rounds", "one_device")] == [[2, 2], [1, 1]]
    details = [detail for _, stage, _, _, detail in listener.stages if stage == "time" and "round" in detail]
    assert any(detail.startswith("round 1 of 2, one device, ") for detail in details) or not details
    assert decode(encode(record), "") == record


def test_turns_are_taken_both_ways(make_case):
    """A B in even rounds, B A in odd ones; one device has nobody to take turns with."""
    case = make_case(devices=4)
    turns = [[each.devices for each in sides(case, number)] for number in range(3)]
    assert turns == [[4, 1], [1, 4], [4, 1]]
    assert sides(make_case(), 1) == (make_case(),)


def test_what_differs_is_not_timed(run, make_case):
    """The case ends with its check; how far off it was stands in its record."""
    record, listener, _ = run(make_case("unweighted", devices=3, measure=("time",)))
    assert record.status == "parity_failed"
    assert record.data_parallel.loss_max_relative_deviation > 1e-4
    assert [stage for _, stage, _ in listener.starts()] == ["check"]
    assert not {"images_per_second", "scaling_efficiency"} & record.metrics.keys()


def test_a_killed_case_is_a_crash(run, make_case):
    """As on one device."""
    record, _, _ = run(make_case("half-dead", devices=2, measure=("time",)))
    assert (record.status, record.data_parallel) == ("crash", None)
    assert record.reason.startswith("killed by signal 9")
