"""Optimizers, clipping and restoring against float64 NumPy, over 20 steps that both frameworks take."""

import numpy as np
import optimizers_by_hand as by_hand
import pytest
from exhaustive import in_short

pytest.importorskip("torch")

from capsbench.backend import Setting, Step
from capsbench.measure.steptrace import summarise
from capsbench_torch.backend import BACKEND

pytestmark = pytest.mark.torch

DOUBLE, SINGLE = (Setting("eager", precision=precision, threads=2) for precision in ("float64", "float32"))

# From the first step on, one is enough where time is short: nothing is handed over yet.
AFTER = in_short(
    [(recipe, after) for recipe in by_hand.RECIPES for after in (0, 7)],
    lambda recipe, after: after > 0 or recipe in {"clipped adamw", "nesterov"},
)


@pytest.mark.parametrize("recipe", by_hand.RECIPES)
def test_optimizers_follow_their_papers(recipe):
    """In float64 all parameters are those of NumPy after 20 steps."""
    bound = by_hand.bound_for(recipe)
    expected, norms = by_hand.train_by_hand(bound)
    assert max(norms) > bound.network.recipe.clip_norm
    for name, value in by_hand.train(BACKEND, bound, DOUBLE).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("recipe", "after"), AFTER)
def test_another_realization_can_go_on(recipe, after):
    """Bit for bit, whatever it did before, from the first step as from a later one."""
    bound = by_hand.bound_for(recipe)
    whole = by_hand.train(BACKEND, bound, SINGLE)
    resumed, state = by_hand.interrupted(BACKEND, bound, SINGLE, after)
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value)
    optimizer = bound.network.recipe.optimizer
    shapes = {f"{tensor}/{name}": value.shape for tensor in optimizer.state for name, value in whole.items()}
    counted = {} if "velocity" in optimizer.state or not optimizer.state else {"step_count": ()}
    assert {name: array.shape for name, array in state.items()} == {**shapes, **counted}
    assert state.get("step_count", after) == after
    assert all(array.any() == (after > 0) for name, array in state.items())


@pytest.mark.parametrize("recipe", ["clipped adamw", "nesterov", "adam, decay"])
def test_every_op_of_a_step_has_a_name(recipe):
    """Nothing that an optimizer or clipping calls is unknown to the op tables."""
    bound = by_hand.bound_for(recipe)
    parameters, images, labels = by_hand.start(bound)
    realization = BACKEND.realize(bound, parameters, SINGLE)
    placed, step = realization.place(images[0], labels[0], {}), Step(0, 0.1, 0.0)
    realization.train_step(placed, step)
    events = summarise(realization.profile(placed, step), {}).events
    assert {event.op for event in events if event.phase == "optimizer"} & {"Adam", "SGD"}
    assert not [event.native for event in events if event.op.startswith("Other:")]
