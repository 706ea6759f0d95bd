"""The gate before timing, on PyTorch: the networks of the zoo pass it, planted mistakes do not."""

import numpy as np
import pytest
from planted_mistakes import MISTAKES, Mistake, Mistaken

pytest.importorskip("torch")

from capsbench.backend import Setting
from capsbench.network import zoo
from capsbench.network.parameters import draw_parameters
from capsbench.network.shapes import bind
from capsbench.worker.gate import judge
from capsbench_torch.backend import BACKEND

pytestmark = pytest.mark.torch


def judged(mistake):
    """em-tiny on random pixels, as a backend with this mistake computes it."""
    bound = bind(zoo.load("em-tiny"), (16, 16, 1), 10)
    images = np.random.default_rng(0).random((2, 16, 16, 1), dtype=np.float32)
    given = {"parameters": draw_parameters(bound, 0), "images": images, "labels": np.array([3, 7])}
    return judge(Mistaken(BACKEND, mistake), bound, Setting("eager"), **given, drawn=True, seed=0)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused(name):
    """Each planted mistake fails, whether float64 makes it too or float32 alone."""
    assert not judged(MISTAKES[name]).passed


def test_without_a_mistake_it_passes():
    """The same backend, network and images pass when nothing is planted."""
    assert judged(Mistake()).passed
