"""The gate before timing, on TensorFlow: small networks of every kind pass it, mistakes in train steps do not."""

from itertools import product

import pytest
from exhaustive import in_short
from planted_mistakes import Mistaken
from planted_steps import TRAINING_MISTAKES
from small_networks import judged, networks

pytest.importorskip("tensorflow")

from capsbench.backend import Setting
from capsbench_tensorflow.backend import BACKEND

pytestmark = pytest.mark.tensorflow

SETTING = Setting("graph", threads=2)  # as all tests here have: a process keeps the number that it began with

# Each kind of mistake once; that the gate refuses the others too is held by PyTorch's tests.
SHORT = {
    "learning rate of the recipe", "momentum for Adam", "Adam's beta2 0.99", "weight decay twice", "never clipped",
    "Nesterov's momentum", "every other step does nothing", "conv1 frozen, its moments too", "one number frozen",
    "every other image, gradients too", "half of each batch under a norm", "dropout off", "statistics never moved",
    "statistics' momentum inverted", "moving variance x 1.3", "evaluation forgets the mean", "biases doubled",
}  # fmt: skip


@pytest.mark.parametrize("name", in_short(TRAINING_MISTAKES, lambda name: name in SHORT))
def test_a_mistake_is_refused(name):
    """Each mistake that shows in training fails."""
    mistake = TRAINING_MISTAKES[name]
    assert not judged(Mistaken(BACKEND, mistake), mistake.network, SETTING).passed


@pytest.mark.parametrize(
    ("name", "seed"), in_short(product(networks(), range(5)), lambda name, seed: seed == 0 and name != "vb")
)
def test_without_a_mistake_it_passes(name, seed):
    """A network of every kind passes when nothing is planted; PyTorch's tests hold every seed in short."""
    found = judged(BACKEND, name, SETTING, seed=seed)
    assert found.passed, found.failure
