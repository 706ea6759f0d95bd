"""Learning rates step by step, and what a suite overrides of a recipe."""

from dataclasses import replace

import pytest
from conftest import make_case

from capsbench.network.training import SGD, AdamW, CosineDecay, ExponentialDecay, Recipe, StepDecay
from capsbench.suite.schema import TrainChoice


def test_milestones_are_shares_of_the_run():
    """At half and at three quarters of any run the rate falls to a tenth, in the very step that begins there."""
    schedule = StepDecay()
    for total in (4, 8, 400):
        factors = [schedule.factor(step, total) for step in range(total)]
        parts = [1.0] * (total // 2), [0.1] * (total // 4), [0.01] * (total // 4)
        assert factors == pytest.approx([factor for part in parts for factor in part])


def test_warm_up_grows_to_the_schedule():
    """Over a tenth of 40 steps the rate grows by equal steps, from the first on, to what it would be without."""
    warm = Recipe(optimizer=SGD(learning_rate=2.0), learning_rate_schedule=CosineDecay(), warm_up=0.1)
    cold = replace(warm, warm_up=0.0)
    shares = [warm.learning_rate_at(step, 40) / cold.learning_rate_at(step, 40) for step in range(40)]
    assert shares == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 37)


def test_a_warm_up_is_never_without_a_step():
    """However short the run, no step has learning rate 0, and the last has the whole."""
    recipe = Recipe(warm_up=0.5)
    for total in range(1, 9):
        rates = [recipe.learning_rate_at(step, total) for step in range(total)]
        assert 0 < rates[0] <= rates[-1] == recipe.optimizer.learning_rate


@pytest.mark.parametrize(
    "override",
    [
        {"optimizer": AdamW()},
        {"learning_rate_schedule": ExponentialDecay()},
        {"warm_up": 0.25},
        {"warm_up": 0.0},
        {"clip_norm": 5.0},
        {"clip_norm": 0.0},
    ],
    ids=str,
)
def test_a_suite_overrides_one_field_at_a_time(override):
    """What `train` says wins, 0 included; what it leaves out stays the network's."""
    own = Recipe(optimizer=SGD(), learning_rate_schedule=StepDecay(), warm_up=0.1, clip_norm=1.0)
    case = make_case()
    case = replace(case, network=replace(case.network, recipe=own), train=TrainChoice(**override))
    assert case.recipe == replace(own, **override)
