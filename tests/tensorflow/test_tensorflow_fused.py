"""Routing by kernels in TensorFlow: the oracle's numbers, its memory written down, its limits said."""

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import tensorflow as tf
from exhaustive import in_short
from forecasts import is_near
from networks_for_tensorflow import (
    SMALLER,
    STEP,
    VARIANTS,
    ZOO,
    case_of,
    relative_error,
    tensors,
    variant,
    zoo_network,
)

from capsbench.backend import Setting
from capsbench.measure.steptrace import summarise
from capsbench.network.shapes import bind
from capsbench.worker.parity import describe_failure
from capsbench_numpy.backend import BACKEND as ORACLE
from capsbench_tensorflow.backend import BACKEND

pytestmark = pytest.mark.tensorflow

COVERED = tuple(name for name in VARIANTS if name not in ("shifted", "damped", "damped_shifted"))


@pytest.mark.parametrize("name", COVERED)
def test_variants_equal_the_graph_and_the_oracle(name):
    """In float64, outputs are the oracle's and gradients those of plain operators, to rounding."""
    case = case_of(variant(name), 2, image=(20, 20, 1), classes=4)
    oracle = ORACLE.realize(case.bound, case.parameters, Setting("float64"))
    exact = oracle.forward(oracle.place(case.images, case.labels, case.masks))
    realization, placed = case.realize("fused", "float64")
    for mine, true in zip(tensors(realization.forward(placed)), tensors(exact), strict=True):
        assert relative_error(mine, true) <= 1e-10
    plain, there = case.realize("graph", "float64")
    gradients, expected = (
        ours.loss_and_gradients(batch, STEP)[1] for ours, batch in ((realization, placed), (plain, there))
    )
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for tensor, gradient in expected.items():
        assert np.abs(gradient - gradients[tensor]).max() <= 1e-10 * largest, tensor


@pytest.mark.parametrize(
    "name",
    in_short(
        [name for name in ZOO if name.startswith("em") and name != "em-official"],
        lambda name: name in {"em-tiny", "em-68k"},
    ),
)
def test_zoo_networks_hold_in_float32(name):
    """Each network passes the gate in float32; how much it may err there follows from float64's own error."""
    found = case_of(zoo_network(name), 1, image=SMALLER.get(name, (28, 28, 1))).judged("fused")
    assert found.passed, describe_failure(found)


def test_training_goes_the_way_of_the_graph():
    """Losses of several train steps are those of plain operators to float32 rounding."""
    case = case_of(zoo_network("em-tiny"), 4)
    losses = []
    for mode in ("fused", "graph"):
        realization, placed = case.realize(mode)
        losses.append([float(realization.train_step(placed, STEP)) for _ in range(4)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_what_kernels_take_is_counted():
    """Memory from outside TensorFlow's allocator is in the step's bytes and peak, at the op and layer that took it."""
    case = case_of(zoo_network("em-tiny"), 8)
    realization, placed = case.realize("fused")
    for _ in range(2):
        realization.train_step(placed, STEP)
    trace = realization.profile(placed, STEP)
    profile = summarise(trace, {})
    routed = {layer.layer.name for layer in case.bound.layers if layer.routing is not None}
    for op, phase in (("EMRouting", "forward"), ("EMRoutingGrad", "backward")):
        events = [event for event in profile.events if event.op == op]
        assert {(event.layer, event.phase, event.calls) for event in events} == {(layer, phase, 1) for layer in routed}
        assert all(event.allocated_bytes > 0 for event in events)
    assert profile.unattributed_bytes == 0
    use = realization.memory(placed, STEP)
    assert use.peak_bytes == pytest.approx(profile.peak_bytes, rel=0.05)
    assert use.allocated_bytes == pytest.approx(profile.allocated_bytes, rel=0.01)


def test_an_evaluation_keeps_nothing():
    """Evaluated, a layer takes far less than its votes would."""
    case = case_of(zoo_network("em-68k"), 4)
    realization, placed = case.realize("fused")
    realization.forward(placed)
    trace = realization.profile(placed, None)
    votes = max(layer.routing.votes for layer in case.bound.layers if layer.routing is not None)
    assert max(event.size or 0 for event in trace.heap) < 4 * 4 * votes


@pytest.mark.parametrize(
    ("mode", "name", "batch"),
    in_short(
        [
            (mode, name, batch)
            for mode in ("fused", "chunked")
            for name, batch in (("em-tiny", 16), ("em-68k", 8), ("em-seed", 8), ("em-paper", 2))
        ],
        lambda mode, name, _batch: name == "em-tiny" or (mode == "fused" and name == "em-68k"),
    ),
)
def test_the_forecast_is_within_15_percent_of_the_measured_peak(mode, name, batch):
    """Peak memory is foretold from shapes alone, without importing what would compile a kernel."""
    case = case_of(zoo_network(name), batch)
    realization, placed = case.realize(mode)
    for _ in range(2):
        realization.train_step(placed, STEP)
    measured = realization.memory(placed, STEP).peak_bytes
    assert is_near(BACKEND.forecast_peak(case.bound, Setting(mode, threads=2), batch), measured)


def test_it_runs_inside_a_function():
    """The op and its gradient stand in a traced graph, and give the same when it is called again."""
    case = case_of(zoo_network("em-tiny"), 2)
    realization, placed = case.realize("fused")
    first, second = (realization.loss_and_gradients(placed, STEP) for _ in range(2))
    assert first[0] == second[0]
    assert all(np.array_equal(first[1][name], second[1][name]) for name in first[1])


def test_limits_are_said():
    """No kernel for a GPU, none for shifted densities, none under XLA: each is a sentence that names what else runs."""
    bound = bind(zoo_network("em-tiny"), (28, 28, 1), 10)
    assert "graph" in BACKEND.unsupported(bound, Setting("fused", device="cuda:0"))
    assert "shifted" in BACKEND.unsupported(bind(variant("shifted"), (28, 28, 1), 10), Setting("fused"))
    assert BACKEND.forecast_peak(bound, Setting("fused", device="cuda:0"), 4) is None
    assert BACKEND.notes(bound, Setting("fused"))[0].startswith("fused: routed by ")
    assert BACKEND.notes(bound, Setting("graph")) == ()
    assert tf.executing_eagerly()
