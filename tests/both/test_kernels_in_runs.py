"""One kernel in two frameworks, in a whole run: records say which it was, and both count what it takes."""

import pytest
from whole_runs import run

pytest.importorskip("torch")
pytest.importorskip("tensorflow")
pytest.importorskip("numba")

# In short: test_torch_fused.py and test_tensorflow_fused.py, each against the oracle, with what is counted and noted.
pytestmark = pytest.mark.exhaustive

SUITE = """\
name: kernels
dataset: {name: toys, train_limit: 60, test_limit: 30, transform: {resize: 28}}
networks: [em-tiny]
backends: ["torch:fused", "torch:chunked", "tensorflow:fused"]
batch: [15]
device: cpu
threads: 2
measure: [parity, memory, ops, accuracy]
train: {epochs: 2}
"""
MODES = ("torch:fused", "torch:chunked", "tensorflow:fused")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The records of a run by backend and mode, and what it printed."""
    printed, records = run(tmp_path_factory.mktemp("kernels"), SUITE)
    return {f"{each['case']['backend']}:{each['case']['mode']}": each for each in records}, printed


def test_all_modes_come_through(records):
    """Every stage works with kernels, parity first."""
    found, _ = records
    assert {name: record["status"] for name, record in found.items()} == dict.fromkeys(MODES, "ok")
    assert all(record["parity"]["passed"] for record in found.values())


def test_records_say_which_kernel_ran(records):
    """The library and the width of its vectors stand beside the numbers, on the screen as well."""
    found, out = records
    for name, words in {"torch:fused": "Numba", "torch:chunked": "NumPy", "tensorflow:fused": "Numba"}.items():
        mode = name.partition(":")[2]
        [note] = [note for note in found[name]["notes"] if note.startswith(f"{mode}: routed by")]
        assert words in note
    assert "float32 lanes a register" in " ".join(out.split())


def test_training_is_the_same(records):
    """Two frameworks and two kernels train to the same losses, to float32 rounding."""
    found, _ = records
    first, *others = (found[name]["losses"] for name in MODES)
    for losses in others:
        assert losses == pytest.approx(first, rel=1e-3)


def test_both_count_what_the_kernel_takes(records):
    """The kernel's op has the same bytes in both frameworks, whoever handed them out, in each layer and phase."""
    found, _ = records
    taken = [
        {
            (op["layer"], op["phase"]): op["allocated_bytes"]
            for op in found[name]["ops"]
            if op["op"] in {"EMRouting", "EMRoutingGrad"}
        }
        for name in ("torch:fused", "tensorflow:fused")
    ]
    assert len(taken[0]) == 4
    assert taken[0].keys() == taken[1].keys()
    for key, size in taken[0].items():
        assert taken[1][key] == pytest.approx(size, rel=0.02), key
