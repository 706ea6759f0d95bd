"""Patches and products against the plain formulas, gradients included."""

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import tensorflow as tf
from networks_for_tensorflow import case_of, zoo_network

from capsbench.network.layers import ConvCapsules
from capsbench_tensorflow.products import patches, products

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module", autouse=True)
def _threads():
    """Threads are fixed once an op has run, so a realization has to come first and ask for its own."""
    case_of(zoo_network("em-tiny"), 1).realize()


def _drawn(*shape):
    return tf.constant(np.random.default_rng(5).standard_normal(shape))


def _value_and_gradients(function, *arguments):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        value = function(*arguments)
        total = tf.reduce_sum(value * _drawn(*value.shape))
    return [value, *tape.gradient(total, arguments)]


@pytest.mark.parametrize("rows", [3, 97, 400, 2 * 67 * 3])
def test_products_are_those_of_every_pose_with_every_transform(rows):
    """Votes and both gradients are the plain sum's, however many parts the sum over rows is taken in."""
    poses, transforms = _drawn(3, rows, 16), _drawn(3, 5, 4, 4)

    def plain(poses, transforms):
        square = tf.reshape(poses, (3, rows, 4, 4))
        return tf.reshape(tf.einsum("imak,ijkc->imjac", square, transforms), (3, rows, 5, 16))

    pairs = zip(
        _value_and_gradients(products, poses, transforms), _value_and_gradients(plain, poses, transforms), strict=True
    )
    for mine, exact in pairs:
        np.testing.assert_allclose(mine, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 1), (2, 3), (1, 1)])
def test_patches_are_the_windows_and_give_back_what_they_took(kernel, stride):
    """Every window is the slice of its place, and a place's gradient the sum over the windows that look at it."""
    maps = _drawn(2, 8, 7, 3, 4)
    spec = ConvCapsules(name="c", capsules=2, kernel=kernel, stride=stride)

    def plain(maps):
        corners = [(y, x) for y in range(0, 9 - kernel, stride) for x in range(0, 8 - kernel, stride)]
        windows = [maps[:, y : y + kernel, x : x + kernel] for y, x in corners]
        return tf.reshape(tf.stack(windows, 1), (2, len(corners), kernel**2, 3, 4))

    pairs = zip(
        _value_and_gradients(lambda maps: patches(maps, spec), maps), _value_and_gradients(plain, maps), strict=True
    )
    for mine, exact in pairs:
        np.testing.assert_allclose(mine, exact, rtol=0, atol=1e-12)
