"""What parameters and images are compared on, besides untrained parameters."""

import numpy as np
import pytest
from small_networks import CLASSES, IMAGE, networks

from capsbench.network import zoo
from capsbench.network.objective import CrossEntropy
from capsbench.network.parameters import draw_parameters, parameter_specs
from capsbench.network.shapes import bind
from capsbench.worker.oracle import realize_oracle
from capsbench.worker.perturbation import hinges_are_crossed, perturb, round_badly
from capsbench.worker.perturbed import batch_sizes, draw, repeat


@pytest.mark.parametrize("name", networks())
def test_every_number_is_moved(name):
    """No tensor stays as it was, none has equal numbers, and variances stay positive."""
    bound = bind(networks()[name], IMAGE, CLASSES)
    before = draw_parameters(bound, 0)
    after = draw(bound, before, 8, 0, 0).parameters
    for spec in parameter_specs(bound):
        moved = after[spec.name]
        assert moved.dtype == np.float32
        assert (moved != before[spec.name]).mean() > 0.999
        if not spec.name.endswith(("weights", "transforms")) and spec.size > 1:
            assert moved.std() > 0.0
        assert not spec.name.endswith("variance") or moved.min() > 0.0


def test_constant_tensors_are_moved_by_an_amount():
    """Numbers that all are the same, 0 or 1, are moved by at least 0.05."""
    bound = bind(networks()["norm"], IMAGE, CLASSES)
    before = draw_parameters(bound, 0)
    after = perturb(bound, before, 0)
    for spec in parameter_specs(bound):
        if spec.initial == "constant" and spec.trainable:
            assert np.abs(after[spec.name] - before[spec.name]).min() > 0.049


HINGED = ["em", "agreement", "attention"]


@pytest.mark.parametrize("name", HINGED)
@pytest.mark.parametrize("seed", range(5))
def test_activations_lie_on_both_sides_of_each_hinge(name, seed):
    """Spread loss at margins 0.2 and 0.9, and both hinges of the margin loss."""
    bound = bind(networks()[name], IMAGE, CLASSES)
    drawn = draw(bound, draw_parameters(bound, seed), 8, seed, 0)
    oracle = realize_oracle(bound, drawn.parameters)
    batch = drawn.batch
    output = oracle.training_output(oracle.place(batch.images, batch.labels, batch.masks))
    assert hinges_are_crossed(bound, output.activations, batch.labels)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [each for each in zoo.names() if each not in {"em-official", "em-paper"}])
def test_hinges_of_the_zoo(name):
    """The same of every network of the zoo whose loss has hinges."""
    network = zoo.load(name)
    if isinstance(network.objective.loss, CrossEntropy):
        pytest.skip("no hinges")
    bound = bind(network, (28, 28, 1), network.classes or 10)
    drawn = draw(bound, draw_parameters(bound, 0), 50, 0, 0)
    oracle = realize_oracle(bound, drawn.parameters)
    batch = drawn.batch
    output = oracle.training_output(oracle.place(batch.images, batch.labels, batch.masks))
    assert hinges_are_crossed(bound, output.activations, batch.labels)


@pytest.mark.parametrize("bits", range(7, 22))
def test_cutting_bits_moves_all_numbers_alike(bits):
    """Rounded to any number of bits, all magnitudes become larger, or all smaller, by a third of the last bit."""
    values = round_badly(np.random.default_rng(0).standard_normal(1000).astype(np.float32))
    unit = np.exp2(np.floor(np.log2(np.abs(values.astype(np.float64)))) - bits)
    moved = (np.abs(np.round(values / unit) * unit) - np.abs(values.astype(np.float64))) / unit
    np.testing.assert_allclose(np.abs(moved), 1 / 3, atol=0.26)
    assert np.ptp(np.sign(moved)) == 0


@pytest.mark.parametrize(
    ("name", "batch", "sizes"),
    [
        ("cnn", 1, (2, 2)),
        ("cnn", 5, (5, 5)),
        ("cnn", 50, (5, 50)),
        ("cnn", 64, (8, 64)),
        ("cnn", 13, (8, 8)),
        ("vb", 1, (4, 4)),
        ("vb", 50, (5, 50)),
        ("vb", 22, (8, 16)),
    ],
)
def test_how_many_images_differ(name, batch, sizes):
    """At most eight, in number a divisor of the batch; four where class capsules are normalised."""
    bound = bind(networks()[name], IMAGE, CLASSES)
    assert batch_sizes(bound, batch) == sizes


@pytest.mark.parametrize(("different", "whole"), [(2, 8), (2, 50), (3, 6), (5, 50), (8, 64)])
def test_repeated_images_are_told_from_a_part_of_them(different, whole):
    """All stand equally often in the batch, but not in its halves, its first few, or every other one of it."""
    order = repeat(different, whole, np.random.default_rng(3))
    assert set(np.bincount(order)) == {whole // different}
    for part in (order[: whole // 2], order[whole // 2 :], order[::2], order[1::2], order[:4]):
        assert len(part) == whole or len(set(np.bincount(part, minlength=different))) > 1
