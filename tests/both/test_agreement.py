"""The two frameworks in whole runs: same start, same data, same losses; tables and records of both."""

import pytest
from whole_runs import AGREEMENT, run

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

SUITE = f"""\
{AGREEMENT}
networks: [NETWORK]
measure: [parity, memory, time, ops, accuracy]
time: {{rounds: 1, min_samples: 3, max_seconds: 0.3}}
"""


# In short, the losses of a network without routing are in test_agreement_of_a_cnn.py.
@pytest.fixture(scope="module", params=["em-tiny", pytest.param("cnn-tiny", marks=pytest.mark.exhaustive)])
def finished(tmp_path_factory, request):
    """A run of a network in both frameworks: its name, its standard output, its records."""
    printed, records = run(tmp_path_factory.mktemp("agreement"), SUITE.replace("NETWORK", request.param))
    return request.param, printed, {record["case"]["backend"]: record for record in records}


def test_losses_agree(finished):
    """Over 20 train steps in float32, augmentation included, losses agree to 1e-3 relative."""
    _, _, records = finished
    losses = records["torch"]["losses"]
    assert len(losses) == 20
    assert losses == pytest.approx(records["tensorflow"]["losses"], rel=1e-3)
    assert len(set(losses)) > 10


def test_same_data(finished):
    """Both frameworks saw the same images: equal hashes and counts for both splits."""
    _, _, records = finished
    assert records["torch"]["data"] == records["tensorflow"]["data"]
    assert records["torch"]["data"]["train"]["count"] == 300


def test_records_are_whole(finished):
    """Every case ended well, passed parity, and has exact counts, memory, times, ops and accuracy."""
    _, _, records = finished
    assert set(records) == {"torch", "tensorflow"}
    for record in records.values():
        assert record["status"] == "ok"
        assert record["parity"]["passed"]
        assert {"accuracy", "peak_bytes", "allocated_bytes", "train_step_seconds", "forward_seconds"} <= set(
            record["metrics"]
        )
        assert sum(op["allocated_bytes"] for op in record["ops"]) <= record["step_profile_bytes"]
        assert {op["phase"] for op in record["ops"]} == {"forward", "backward", "optimizer"}


def test_tables_set_the_frameworks_side_by_side(finished):
    """The op table has a column for each framework, and the tables name every case."""
    network, output, _ = finished
    for title in ("Accuracy", "Cost", f"Most expensive ops: {network}"):
        assert title in output
    assert "tensorflow:graph" in output
    assert "torch:eager" in output
    assert "300 of 24,300" in output
