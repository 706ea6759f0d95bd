import pytest
from conftest import make_case, write_mnist

from capsbench.worker.messages import Place, RoundPart
from capsbench.worker.prepare import prepare
from capsbench.worker.timing import time_round

pytest.importorskip("pytest_benchmark")


def test_harness_overhead(benchmark, tmp_path):
    """A timing pass over 5 ms steps spends at most 5 % of its time outside the realization."""
    parts = []
    case = make_case("slow", measure=("time",))
    prepared = prepare(case, Place(data_root=str(write_mnist(tmp_path))), parts.append)
    benchmark.pedantic(time_round, args=(prepared, parts.append), rounds=3)
    shares = sorted(part.overhead_share for part in parts if isinstance(part, RoundPart))
    benchmark.extra_info["overhead_share"] = shares
    assert shares[0] <= 0.05
