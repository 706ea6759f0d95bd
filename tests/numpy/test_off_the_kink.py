"""Biases that keep every ReLU of a batch off its kink."""

import numpy as np
import pytest
from small_networks import CLASSES, IMAGE, networks

from capsbench.network.parameters import draw_parameters, dropout_masks
from capsbench.network.shapes import bind
from capsbench.worker.oracle import realize_oracle
from capsbench_numpy import maps
from capsbench_numpy.maps import off_the_kink


def test_zero_is_in_the_middle_of_a_gap():
    """No shifted value lies near zero, and none is shifted by more than a tenth of the root mean square."""
    values = np.random.default_rng(0).standard_normal((1000, 3)) * [1.0, 10.0, 0.01]
    shifts = off_the_kink(values)
    scale = np.sqrt(np.square(values).mean(0))
    assert (np.abs(shifts) <= 0.1 * scale).all()
    assert (np.abs(values + shifts).min(0) > 1e-3 * scale).all()


NAMES = {
    "cnn": {"conv1.biases", "conv2.biases", "dense1.biases"},
    "norm": {"norm1.center", "block1.norm1_center", "block1.norm2_center"},
    "attention": {"conv1.biases"},
}


@pytest.mark.parametrize("name", NAMES)
def test_every_bias_below_a_relu_is_shifted(name, monkeypatch):
    """With all biases shifted, layer upon layer, no value that a ReLU sees lies near zero."""
    bound = bind(networks()[name], IMAGE, CLASSES)
    parameters = draw_parameters(bound, 0)
    images, masks = np.random.default_rng(1).random((3, *IMAGE), dtype=np.float32), dropout_masks(bound, 3, 0, 0)

    def shifts_of(given):
        oracle = realize_oracle(bound, given)
        return oracle.settle(oracle.place(images, np.arange(3), masks))[0]

    shifts = shifts_of(parameters)
    assert set(shifts) == NAMES[name]
    nearest = []

    def look(values):
        nearest.append((np.abs(values).min(0) / np.sqrt(np.square(values).mean(0))).min())
        return np.zeros(values.shape[1])

    monkeypatch.setattr(maps, "off_the_kink", look)
    shifts_of(parameters | {each: parameters[each] + shift for each, shift in shifts.items()})
    assert len(nearest) == len(shifts)
    assert min(nearest) > 1e-4
