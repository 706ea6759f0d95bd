"""The processor's arithmetic at its best."""

import pytest

pytest.importorskip("numba")

from capsbench.backend import Setting
from capsbench_fused import peak
from capsbench_numpy.ceilings import multiply_adds


def test_operations_are_counted(monkeypatch):
    """A rate is two operations a number, chain and round of each thread, over the seconds of all of them together."""
    calls = []

    def one_second(call):
        call()
        calls.append(call)
        return 1.0

    monkeypatch.setattr(peak, "least_seconds", one_second)
    monkeypatch.setattr(peak, "_ROUNDS", 100)
    assert peak.fma_flops_per_second(3, "float32") == 2.0 * 12 * peak.LANES * 100 * 3
    assert peak.fma_flops_per_second(1, "float64") == 2.0 * 6 * peak.LANES * 100
    assert len(calls) == 2


def test_it_is_one_of_the_ceilings(monkeypatch):
    """The oracle's backend, which is always there, answers for the processor."""
    monkeypatch.setattr(peak, "_ROUNDS", 1000)
    assert 0.0 < multiply_adds(Setting("float64", threads=2)) < 1e15
