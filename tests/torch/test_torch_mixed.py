"""Mixed precision in PyTorch: what is multiplied in bfloat16, and what never is."""

from dataclasses import replace

import numpy as np
import pytest
from resuming import assert_same, train

pytest.importorskip("torch")

import torch
from networks_for_torch import CLASSES, IMAGE, STEP
from torch.utils._python_dispatch import TorchDispatchMode

from capsbench.backend import Setting
from capsbench.network import zoo
from capsbench.network.layers import BatchNorm
from capsbench.network.objective import Reconstruction
from capsbench.network.parameters import draw_parameters, dropout_masks
from capsbench.network.shapes import bind
from capsbench.suite.schema import TrainChoice
from capsbench_torch.backend import BACKEND

pytestmark = pytest.mark.torch

PRODUCTS = {"convolution", "mm", "addmm", "bmm"}
# Sums, means and elementwise functions that 8 bits are too few for.
EXACT = {"log", "exp", "rsqrt", "sqrt", "_softmax", "_log_softmax", "log_sigmoid_forward", "sigmoid", "var_mean"}
EXACT |= {"mean", "mse_loss", "reciprocal", "div", "linalg_vector_norm", "_fused_adam_", "lerp_"}


class Dtypes(TorchDispatchMode):
    """Notes which floating dtypes each operator is called with."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [each for each in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        name = func.overloadpacket.__name__
        self.seen.append((name, {each.dtype for each in tensors if each.is_floating_point()}))
        return func(*args, **(kwargs or {}))


def network(name):
    """A network of the zoo with moving statistics and a decoder, where it has capsules; em-tiny on fewer positions."""
    found = zoo.load(name)
    objective, (first, *others) = found.objective, found.layers
    if found.routing is not None:
        objective = replace(objective, reconstruction=Reconstruction(hidden=(16,)))
    if name == "em-tiny":
        first = replace(first, channels=4, stride=5)
    return replace(found, layers=(BatchNorm(name="norm"), first, *others), objective=objective)


def realize(name, mode="eager", precision="mixed_bfloat16", batch=4):
    """The network with a random batch placed."""
    bound = bind(network(name), IMAGE, CLASSES)
    realization = BACKEND.realize(bound, draw_parameters(bound, 0), Setting(mode, precision=precision, threads=1))
    images = np.random.default_rng(0).random((batch, *IMAGE), dtype=np.float32)
    return realization, realization.place(images, np.arange(batch) % CLASSES, dropout_masks(bound, batch, 0, 0))


def dtypes_of_a_step(name, mode, precision):
    realization, placed = realize(name, mode, precision)
    with Dtypes() as noted:
        realization.train_step(placed, STEP)
    return realization, noted.seen


@pytest.mark.parametrize(
    ("name", "mode", "narrow"),
    # Convolutions, the votes of two layers and the decoder's layers; dense layers; routing multiplies in float32.
    [
        ("em-tiny", "eager", {"convolution", "bmm", "addmm"}),
        ("em-tiny", "tiled", {"convolution", "bmm", "addmm"}),
        ("cnn-tiny", "eager", {"convolution", "addmm"}),
        ("dynamic-small", "eager", {"convolution", "bmm"}),
    ],
)
def test_products_are_in_bfloat16_and_statistics_are_not(name, mode, narrow):
    """Factors of products are rounded; densities, statistics, losses and the optimizer work on nothing that is."""
    realization, seen = dtypes_of_a_step(name, mode, "mixed_bfloat16")
    rounded = [op for op, dtypes in seen if torch.bfloat16 in dtypes]
    assert narrow <= set(rounded)
    assert all(len(dtypes) == 1 for op, dtypes in seen if op in PRODUCTS)
    assert not EXACT & set(rounded)
    assert {value.dtype for value in realization.parameters().values()} == {np.dtype(np.float32)}
    assert {value.dtype for value in realization.optimizer_state().values()} <= {np.dtype(np.float32), np.dtype(float)}


def test_routing_multiplies_in_float32():
    """Of the batched products only those that cast votes are rounded, forward and backward."""
    _, seen = dtypes_of_a_step("em-tiny", "eager", "mixed_bfloat16")
    bmm = [dtypes for op, dtypes in seen if op == "bmm"]
    rounded = [dtypes for dtypes in bmm if torch.bfloat16 in dtypes]
    assert 0 < len(rounded) < len(bmm)
    # Each of two layers routes by two M-steps of two products and an E-step of one.
    assert len(bmm) - len(rounded) >= 2 * (2 * 2 + 1)


def test_nothing_is_rounded_in_float32():
    """The same network in float32 sees no bfloat16 at all."""
    _, seen = dtypes_of_a_step("em-tiny", "eager", "float32")
    assert not any(torch.bfloat16 in dtypes for _, dtypes in seen)


@pytest.mark.parametrize("name", ["em-tiny", "cnn-tiny"])
def test_losses_stay_close_to_those_of_float32(name):
    """Over some steps on one batch, by a hundredth; but they are others."""
    losses = {}
    for precision in ("float32", "mixed_bfloat16"):
        realization, placed = realize(name, precision=precision)
        losses[precision] = [float(realization.train_step(placed, replace(STEP, number=i))) for i in range(4)]
    assert losses["mixed_bfloat16"] == pytest.approx(losses["float32"], rel=1e-2)
    assert losses["mixed_bfloat16"] != losses["float32"]
    assert losses["mixed_bfloat16"][-1] < losses["mixed_bfloat16"][0]


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


def test_casts_belong_to_their_layer():
    """What casting takes in a profiled step stands with the layer that casts."""
    realization, placed = realize("em-tiny")
    realization.train_step(placed, STEP)
    casts = [span for span in realization.profile(placed, STEP).spans if span.native == "aten::_to_copy"]
    assert {(span.layer, span.phase) for span in casts} >= {
        (layer, phase)
        for layer in ("conv1", "primary", "conv_caps1", "class_caps")
        for phase in ("forward", "backward")
    }
    assert all(span.layer is not None for span in casts if span.phase == "backward")


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
    changes = {"network": network("em-tiny"), "train": TrainChoice(epochs=2), "batch": 24}
    case = make_case("eager", backend="torch", precision="mixed_bfloat16", **changes)
    assert train(case, mnist_root, tmp_path / "whole") == []
    train(case, mnist_root, tmp_path / "killed", dies_at=3)
    [note] = train(case, mnist_root, tmp_path / "killed")
    assert note.startswith("training resumed after epoch 1:")
    assert_same(tmp_path / "whole", tmp_path / "killed")
