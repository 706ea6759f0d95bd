"""The gate before timing, on the fake backend: what it records, what it says, what it refuses."""

import re
from pathlib import Path

import numpy as np
import planted_steps
import pytest
from capsbench_fake import BACKEND

from capsbench.backend import Setting
from capsbench.dataset.batches import Batch
from capsbench.network import zoo
from capsbench.network.parameters import draw_parameters
from capsbench.network.shapes import bind
from capsbench.worker.gate import judge
from capsbench.worker.parity import describe_failure

BATCH = 10
FAKE = Path(__file__).parents[1] / "fake"
BOUND = bind(zoo.load(str(FAKE / "linear.yaml")), (8, 8, 1), 10)


class Wrong:
    """The fake backend with its realizations wrapped."""

    name, modes = BACKEND.name, BACKEND.modes

    def __init__(self, wrap):
        self._wrap = wrap

    def realize(self, bound, parameters, setting):
        """As the contract says."""
        return self._wrap(BACKEND.realize(bound, parameters, setting), bound)


def judged(backend, precision="float32"):
    """The verdict on the linear network, with batches of ten."""
    generator = np.random.default_rng(0)
    training = Batch(generator.random((2 * BATCH, 8, 8, 1), dtype=np.float32), np.arange(2 * BATCH) % 10)
    return judge(
        backend,
        BOUND,
        Setting("fast", precision=precision),
        parameters=draw_parameters(BOUND, 0),
        images=training.images[:2],
        labels=training.labels[:2],
        drawn=True,
        seed=0,
        training=training,
    )


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_all_three_parts_are_recorded(precision):
    """A right backend passes; the record tells of the whole batch of the case and of three train steps."""
    found = judged(BACKEND, precision)
    assert (found.passed, found.failure) == (True, "")
    assert (found.perturbed.images, found.perturbed.batch, found.perturbed.draws) == (5, BATCH, 1)
    assert found.perturbed.forward_max_relative_error <= found.forward_limit
    assert found.perturbed.gradient_relative_error <= found.gradient_limit
    assert (found.train_steps.steps, found.train_steps.batch) == (3, BATCH)
    assert found.train_steps.max_relative_error <= found.train_steps.limit


NEED_NO_STATE = (
    "learning rate doubled", "learning rate of the recipe", "a step that does nothing", "every other step does nothing",
    "each step twice", "the loss of the step before", "half of each batch", "every other image",
    "the last image left out", "half of each batch, gradients too", "every other image, gradients too",
    "the last image left out, gradients too", "labels in reverse", "above four images, all scored as the first",
    "above four images, bfloat16 at evaluation", "above four images, bfloat16 in training",
)  # fmt: skip


@pytest.mark.parametrize("name", NEED_NO_STATE)
def test_wrong_train_steps_are_refused(name):
    """A backend that does not hand out its optimizer's state is held to its parameters, losses and outputs."""
    assert not judged(Wrong(planted_steps.TRAINING_MISTAKES[name].wrap)).passed


def test_a_failure_says_what_failed():
    """The reason names the part, what is off in it, by how much, and the limit."""

    def said(name):
        return describe_failure(judged(Wrong(planted_steps.TRAINING_MISTAKES[name].wrap)))

    update = r"differs from the numpy oracle: train steps: the update of logits\.\w+ in train step 1 is off by 1 "
    assert re.fullmatch(update + r"\(limit 1e-04\)", said("learning rate doubled"))
    gradients = said("half of each batch, gradients too")
    assert gradients.startswith("differs from the numpy oracle: perturbed parameters: forward error ")
    assert re.search(r"in the loss, gradient error \S+ \(limit 1e-04\), most of logits\.\w+$", gradients)
