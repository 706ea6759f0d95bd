"""How many numbers the kernels put side by side, on which processor."""

import pytest

from capsbench_fused import lanes


@pytest.fixture
def on(monkeypatch, tmp_path):
    """A function that says how many there are on a processor with some features, with some environment variables."""

    def on(flags, **environment):
        cpu_info = tmp_path / "cpuinfo"
        cpu_info.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n", encoding="utf-8")
        monkeypatch.setattr(lanes, "_CPU_INFO", cpu_info)
        for name in ("CAPSBENCH_FUSED_LANES", "NUMBA_CPU_FEATURES", "NUMBA_CPU_NAME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        lanes._processor_has.cache_clear()
        return lanes.lanes()

    yield on
    lanes._processor_has.cache_clear()


def test_a_processor_with_wide_registers_fills_them(on):
    """Sixteen with AVX-512, eight without."""
    assert on("avx2 avx512f") == 16
    assert on("avx2") == 8


def test_the_compiler_may_be_told_otherwise(on):
    """What the compiler is told to compile for counts, and our own variable before all; nonsense does not."""
    assert on("avx512f", NUMBA_CPU_NAME="haswell") == 8
    assert on("avx512f", NUMBA_CPU_FEATURES="+avx2") == 8
    assert on("avx2", NUMBA_CPU_FEATURES="+avx2,+avx512f") == 16
    assert on("avx2", CAPSBENCH_FUSED_LANES="16") == 16
    assert on("avx2", CAPSBENCH_FUSED_LANES="12") == 8


def test_an_unknown_processor_has_eight(on, monkeypatch, tmp_path):
    """Where the system lists no features."""
    on("avx512f")
    monkeypatch.setattr(lanes, "_CPU_INFO", tmp_path / "none")
    lanes._processor_has.cache_clear()
    assert lanes.lanes() == 8
