"""Mode `compile`: the numbers of `eager`, and graphs as ops. To compile takes a minute, so tests share what is."""

import pytest
from networks_for_torch import realize, vote_bytes

torch = pytest.importorskip("torch")

from capsbench.backend import Step  # noqa: E402 - after the check that torch is there
from capsbench.measure.steptrace import summarise  # noqa: E402 - likewise

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore"),  # PyTorch's compiler stumbles over warnings of PyTorch's own
]
STEPS = (Step(0, 0.01, 0.5), Step(1, 0.01, 0.5))


def losses(ours, placed):
    """Those of the first two train steps."""
    return [float(ours.train_step(placed, step)) for step in STEPS]


@pytest.fixture(scope="module")
def compiled():
    """A realization that has taken two steps, their losses, its batch and its bound network."""
    ours, placed, bound = realize("em-tiny", "compile", iterations=1)
    return ours, losses(ours, placed), placed, bound


def test_compile_equals_eager(compiled):
    """torch.compile changes no loss by more than float32 rounding."""
    eager, placed, _ = realize("em-tiny", "eager", iterations=1)
    assert compiled[1] == pytest.approx(losses(eager, placed), rel=1e-4)


@pytest.mark.exhaustive
def test_compile_equals_eager_over_iterations():
    """Nor where the graph goes through routing more than once."""
    eager, compiled = (losses(*realize("em-tiny", mode)[:2]) for mode in ("eager", "compile"))
    assert compiled == pytest.approx(eager, rel=1e-4)


def test_compiled_steps(compiled):
    """A compiled step and a compiled evaluation have their graphs as ops, under a name that does not vary."""
    ours, _, placed, bound = compiled
    ours.forward(placed)
    used = ours.memory(placed, STEPS[0])
    for step in (STEPS[0], None):
        profile = summarise(ours.profile(placed, step), vote_bytes(bound, 2))
        assert 0 <= profile.unattributed_bytes <= 0.05 * profile.allocated_bytes
        graphs = [event for event in profile.events if event.native == "CompiledFxGraph"]
        assert {event.op for event in graphs} == {"Compiled"}
        assert sum(event.calls for event in graphs) > 0
        assert sum(event.allocated_bytes for event in graphs) > 0.2 * profile.allocated_bytes
        assert not any("##" in event.native for event in profile.events)
        if step is not None:
            assert (used.peak_bytes, used.allocated_bytes) == (profile.peak_bytes, profile.allocated_bytes)
