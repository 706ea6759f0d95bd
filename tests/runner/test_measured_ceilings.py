import os
import sys

import pytest

from capsbench.measure.ceilings import SIDE, Ceilings, measure
from capsbench.runner.ceilings import Found, measure_ceilings

BACKENDS = """
from capsbench_fake import FakeBackend
class Backend(FakeBackend):
    def __init__(self, name, outcome):
        self.name, self.outcome = name, outcome
    def ceilings(self, setting):
        return self.outcome(setting)
def refuse(setting):
    raise RuntimeError(f"no {setting.precision} on\\n{setting.device}")
def stop(setting):
    import os
    os.abort()
SILENT, BROKEN, STOPPED = Backend("silent", lambda setting: None), Backend("broken", refuse), Backend("stopped", stop)
"""


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """Three more backends, here and in workers, whose ceilings are None, an error, and the end of the process."""
    info = tmp_path / "strangers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n", encoding="ascii")
    points = [f"{name} = strangers:{name.upper()}" for name in ("silent", "broken", "stopped")]
    (info / "entry_points.txt").write_text("[capsbench.backends]\n" + "\n".join(points), encoding="ascii")
    (tmp_path / "strangers.py").write_text(BACKENDS, encoding="ascii")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    yield
    sys.modules.pop("strangers", None)


def test_a_backend_measures_in_a_worker():
    """What the backend finds comes back as it is."""
    assert measure_ceilings("fake", "cpu", 2, "float32") == Found(Ceilings(2e11, 1e10), "")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("silent", "it does not say"),
        ("broken", "RuntimeError: no float64 on cpu"),
        ("stopped", "killed by signal 6 (SIGABRT)"),
        ("nosuch", "unknown backend 'nosuch'"),
    ],
)
def test_a_backend_that_cannot_is_said(strangers, name, problem):
    """No ceilings, and the reason in one line; nothing is raised."""
    found = measure_ceilings(name, "cpu", 1, "float64")
    assert found.ceilings is None
    assert found.problem.startswith(problem)
    assert "\n" not in found.problem


# In short: tests/numpy/test_numpy_ceilings.py, at sizes that take no time.
@pytest.mark.exhaustive
def test_numpy_finds_ceilings_of_a_processor():
    """A real product and a real copy give rates that a processor can have."""
    found = measure_ceilings("numpy", "cpu", 1, "float32")
    assert found.problem == ""
    assert 1e8 < found.ceilings.flops_per_second < 1e14
    assert 1e8 < found.ceilings.bytes_per_second < 1e13


def test_the_best_call_counts(monkeypatch):
    """Calls that were disturbed do not lower a ceiling."""
    now = 0.0
    seconds = iter([5.0, 9.0, 9.0, *[2.0] * 7, 1.0, *[3.0] * 7, *[1.0] * 17, 0.5])

    def call():
        nonlocal now
        now += next(seconds)

    monkeypatch.setattr("capsbench.measure.ceilings.perf_counter", lambda: now)
    ceilings = measure(call, call)
    assert ceilings.flops_per_second == 2 * SIDE**3 / 1.0
    assert ceilings.bytes_per_second == 2 * (1 << 28) / 0.5
