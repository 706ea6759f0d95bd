"""The train step as it is defined, in the core."""

import numpy as np
import optimizers_by_hand as by_hand
import pytest

from capsbench.worker import reference
from capsbench.worker.trainsteps import clipping_norm


@pytest.mark.parametrize("name", by_hand.RECIPES)
def test_steps_are_those_of_the_papers(name):
    """Twenty steps of every optimizer, with decay and clipping, are those that were written out by hand."""
    bound = by_hand.bound_for(name)
    recipe = bound.network.recipe
    expected, _ = by_hand.train_by_hand(bound)
    parameters, images, labels = by_hand.start(bound)
    values = reference.wide(parameters)
    state = reference.empty_state(recipe.optimizer, values)
    for step in range(by_hand.STEPS):
        flat = images[step].reshape(by_hand.BATCH, -1).astype(np.float64)
        gradients = reference.prepare_gradients(recipe, values, by_hand._gradients(values, flat, labels[step]))
        state = reference.next_state(recipe.optimizer, state, gradients)
        rate = recipe.learning_rate_at(step, by_hand.STEPS)
        moved = reference.updates(recipe.optimizer, values, gradients, state, rate)
        values = {name: value + moved[name] for name, value in values.items()}
    for tensor, value in values.items():
        np.testing.assert_allclose(value, expected[tensor], rtol=1e-12, atol=1e-14)


def test_moving_statistics():
    """They keep their layer's momentum of themselves."""
    before = {"norm1.moving_mean": np.array([1.0]), "block.norm1_moving_mean": np.array([1.0])}
    batch = {name: np.array([3.0]) for name in before}
    after = reference.next_statistics(before, batch, {"norm1": 0.9, "block": 0.5})
    assert {name: float(value[0]) for name, value in after.items()} == pytest.approx(
        {"norm1.moving_mean": 1.2, "block.norm1_moving_mean": 2.0}
    )


@pytest.mark.parametrize("norms", [(2.0, 4.0, 1.0), (3.0, 3.0), (1.0, 4.0)])
def test_the_first_gradient_is_clipped(norms):
    """It is longer than the norm; the shortest is not, if that is another one."""
    norm = clipping_norm(norms)
    assert norm < norms[0]
    assert min(norms) == norms[0] or min(norms) < norm
