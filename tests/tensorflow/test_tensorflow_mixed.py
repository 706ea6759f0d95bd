"""Mixed precision in TensorFlow: what is multiplied in bfloat16, and what never is."""

from dataclasses import replace

import numpy as np
import pytest
from resuming import assert_same, train

pytest.importorskip("tensorflow")

import tensorflow as tf
from networks_for_tensorflow import STEP

from capsbench.backend import Setting
from capsbench.network import zoo
from capsbench.network.layers import BatchNorm
from capsbench.network.network import with_routing_iterations
from capsbench.network.objective import Reconstruction
from capsbench.network.parameters import draw_parameters, dropout_masks
from capsbench.network.shapes import bind
from capsbench.suite.schema import TrainChoice
from capsbench_tensorflow.backend import BACKEND
from capsbench_tensorflow.mixed import bias_add, products

pytestmark = pytest.mark.tensorflow

IMAGE, CLASSES = (28, 28, 1), 10
CONVOLUTIONS = {"Conv2D", "Conv2DBackpropFilter", "Conv2DBackpropInput"}
# What may be in bfloat16: products, and what spreads, clips and moves their factors and results.
ROUNDED = {*CONVOLUTIONS, "MatMul", "BatchMatMulV2", "Cast", "Relu", "ReluGrad", "Reshape", "Transpose", "Tile", "Mul"}
ROUNDED |= {"ExpandDims", "Sum", "Identity", "StridedSlice", "StridedSliceGrad", "Squeeze", "AddN", "IdentityN", "Fill"}
ROUNDED |= {"ShapeN", "Const", "MatrixDiagV3", "MaxPool", "MaxPoolGrad"}


def network(name):
    """A network of the zoo with moving statistics and a decoder, where it has capsules; em-tiny on fewer positions."""
    found = zoo.load(name)
    objective, (first, *others) = found.objective, found.layers
    if found.routing is not None:
        objective = replace(objective, reconstruction=Reconstruction(hidden=(16,)))
    if name == "em-tiny":
        first = replace(first, channels=4, stride=5)
    return replace(found, layers=(BatchNorm(name="norm"), first, *others), objective=objective)


def realize(name, mode="graph", precision="mixed_bfloat16", batch=4):
    """The network with a random batch placed."""
    bound = bind(network(name), IMAGE, CLASSES)
    realization = BACKEND.realize(bound, draw_parameters(bound, 0), Setting(mode, precision=precision, threads=2))
    images = np.random.default_rng(0).random((batch, *IMAGE), dtype=np.float32)
    return realization, realization.place(images, np.arange(batch) % CLASSES, dropout_masks(bound, batch, 0, 0))


def ops_of_a_step(name, mode, precision):
    """Of every op in a train step's graph: its type, its name, and whether it reads or makes bfloat16."""
    realization, placed = realize(name, mode, precision)
    scalars = [tf.constant(0.0)] * realization._optimizer.scalars
    arguments = (placed.images, placed.labels, placed.masks, tf.constant(0.4), scalars)
    graph = realization._train.get_concrete_function(*arguments).graph
    for op in graph.get_operations():
        yield op.type, op.name, tf.bfloat16 in {tensor.dtype for tensor in (*op.inputs, *op.outputs)}


@pytest.mark.parametrize(
    ("name", "mode"), [("em-tiny", "graph"), ("em-tiny", "tiled"), ("cnn-tiny", "graph"), ("dynamic-small", "graph")]
)
def test_products_are_in_bfloat16_and_statistics_are_not(name, mode):
    """All convolutions and products are rounded but for those in routing, where nothing is; no other arithmetic is."""
    ops = list(ops_of_a_step(name, mode, "mixed_bfloat16"))
    assert {kind for kind, _, rounded in ops if rounded} <= ROUNDED
    for kind, at, rounded in ops:
        # Where votes are cast, routing's gradients with respect to them are collected, in float32.
        if kind in CONVOLUTIONS | {"MatMul"} or (kind == "BatchMatMulV2" and at.partition("/")[2].startswith("votes/")):
            assert rounded, at
        if "iteration" in at or at.startswith("optimizer"):
            assert not rounded, at


def test_nothing_is_rounded_in_float32():
    """The same network in float32 has no cast to bfloat16 in it."""
    assert not any(rounded for _, _, rounded in ops_of_a_step("em-tiny", "graph", "float32"))


def test_losses_stay_close_to_those_of_float32():
    """Over some steps on one batch, by a hundredth; but they are others, and parameters stay float32."""
    losses = {}
    for precision in ("float32", "mixed_bfloat16"):
        realization, placed = realize("em-tiny", precision=precision)
        losses[precision] = [float(realization.train_step(placed, replace(STEP, number=i))) for i in range(4)]
    assert losses["mixed_bfloat16"] == pytest.approx(losses["float32"], rel=1e-2)
    assert losses["mixed_bfloat16"] != losses["float32"]
    assert losses["mixed_bfloat16"][-1] < losses["mixed_bfloat16"][0]
    arrays = [*realization.parameters().values(), *realization.optimizer_state().values()]
    assert {array.dtype for array in arrays} <= {np.dtype(np.float32), np.dtype(float)}


@pytest.mark.parametrize("name", ["em-tiny", "cnn-tiny"])
def test_what_is_handed_out_is_float32(name):
    """Outputs, gradients and what layers show, which has the numbers of `forward`; NumPy knows no bfloat16."""
    realization, placed = realize(name)
    output = realization.forward(placed)
    states = realization.inspect(placed, votes=True)
    _, gradients = realization.loss_and_gradients(placed, STEP)
    arrays = [output.scores, output.activations, *gradients.values()]
    arrays += [part for state in states.values() for part in (state.activations, state.poses, state.votes)]
    assert {array.dtype for array in arrays if array is not None} == {np.dtype(np.float32)}
    if name == "em-tiny":
        np.testing.assert_array_equal(states["class_caps"].activations, output.activations)


def test_gradients_of_biases_are_summed_in_float32():
    """A thousand ones are a thousand, which TensorFlow's own kernel for bfloat16 takes for 256."""

    @tf.function(autograph=False)
    def gradient(biases):
        with tf.GradientTape() as tape, products(mixed=True):
            tape.watch(biases)
            total = tf.reduce_sum(tf.cast(bias_add(tf.ones((1000, 4), tf.bfloat16), biases), tf.float32))
        return tape.gradient(total, biases)

    np.testing.assert_array_equal(gradient(tf.zeros(4)), np.full(4, 1000.0, np.float32))


def test_kernels_refuse_and_no_peak_is_foretold():
    """The kernels compute in float32 and float64 only; what is kept in which width, the forecast does not know."""
    bound = bind(zoo.load("em-tiny"), IMAGE, CLASSES)
    for mode in BACKEND.modes:
        setting = Setting(mode, precision="mixed_bfloat16")
        reason = BACKEND.unsupported(bound, setting)
        if mode in {"fused", "chunked"}:
            assert "has no kernel for mixed_bfloat16" in reason
        else:
            assert reason is None
        assert BACKEND.forecast_peak(bound, setting, 8) is None


def test_resumed_trainings_are_bit_equal(make_case, mnist_root, tmp_path):
    """Parameters, moving statistics, losses and accuracies, killed in the second of two epochs."""
    changes = {
        "network": with_routing_iterations(network("em-tiny"), 1),
        "train": TrainChoice(epochs=2),
        "batch": 24,
        "threads": 2,
    }
    case = make_case("graph", backend="tensorflow", precision="mixed_bfloat16", **changes)
    assert train(case, mnist_root, tmp_path / "whole") == []
    train(case, mnist_root, tmp_path / "killed", dies_at=3)
    [note] = train(case, mnist_root, tmp_path / "killed")
    assert note.startswith("training resumed after epoch 1:")
    assert_same(tmp_path / "whole", tmp_path / "killed")
