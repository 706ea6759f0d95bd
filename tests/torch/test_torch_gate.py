"""The gate before timing, on PyTorch: small networks of every kind pass it, planted mistakes do not."""

from dataclasses import replace

import pytest
from planted_mistakes import MISTAKES, Mistaken
from planted_steps import TRAINING_MISTAKES
from small_networks import judged, networks

torch = pytest.importorskip("torch")

from capsbench_torch import layers, maps, objective, routing, training, vectors  # noqa: E402 - needs torch
from capsbench_torch.backend import BACKEND  # noqa: E402 - likewise
from capsbench_torch.training import TorchRealization  # noqa: E402 - likewise

pytestmark = pytest.mark.torch

ALL = {**MISTAKES, **TRAINING_MISTAKES}


@pytest.mark.parametrize("name", ALL)
def test_a_mistake_is_refused(name):
    """Each planted mistake fails, whether float64 makes it too or float32 alone."""
    mistake = ALL[name]
    assert not judged(Mistaken(BACKEND, mistake), mistake.network).passed


def _spread(activations, labels, margin):
    """The spread loss without its hinge."""
    true = activations.gather(1, labels[:, None])
    wrong = torch.ones_like(activations).scatter(1, labels[:, None], 0.0)
    return ((margin - (true - activations)).square() * wrong).sum(1).mean()


def _margin(few, many):
    """The margin loss with other functions for its hinges."""

    def loss(activations, labels, spec):
        wrong = torch.ones_like(activations).scatter(1, labels[:, None], 0.0)
        missing = few(spec.positive - activations.gather(1, labels[:, None])).square().sum(1)
        return (missing + spec.down_weight * (many(activations - spec.negative).square() * wrong).sum(1)).mean()

    return loss


def _at_half(activations, labels, _):
    return TRUE_SPREAD(activations, labels, torch.tensor(0.5, dtype=activations.dtype))


def _narrow_step(realization, placed, step, scope):
    with torch.autocast("cpu", torch.bfloat16):
        return TRUE_STEP(realization, placed, step, scope)


def _half_step(realization, placed, step, scope):
    half = len(placed.labels) // 2
    first = {"images": placed.images[:half], "labels": placed.labels[:half]}
    masks = {name: mask[:half] for name, mask in placed.masks.items()}
    return TRUE_STEP(realization, replace(placed, **first, masks=masks), step, scope)


def _accumulating_step(realization, placed, step, scope):
    realization._optimizer.zero_grad = lambda **_: None
    return TRUE_STEP(realization, placed, step, scope)


def _frozen_step(realization, placed, step, scope):
    weights = next(iter(realization._trained.values()))
    before = weights.detach().clone()
    loss = TRUE_STEP(realization, placed, step, scope)
    weights.data.copy_(before)
    return loss


def _unbiased(values, places, correction):
    return TRUE_VAR_MEAN(values, places, correction=1 - correction)


def _half_precision(*arguments):
    return TRUE_VOTE(*(each.half() for each in arguments)).to(arguments[0].dtype)


def _above_four(poses, transforms):
    return (_half_precision if len(poses) > 4 else TRUE_VOTE)(poses, transforms)


def _without_priors(votes, priors):
    return TRUE_ATTEND(votes, torch.zeros_like(priors))


def _without_biases(maps, weights, _, *others):
    return TRUE_CONV(maps, weights, None, *others)


def _same(values):
    return values


TRUE_SPREAD, TRUE_STEP, TRUE_CONV = objective._spread, TorchRealization._step, maps.conv
TRUE_VAR_MEAN, TRUE_VOTE, TRUE_ATTEND = torch.var_mean, routing.vote_grouped, vectors.attend_grouped
PATCHES = {
    "spread loss without its hinge": ("em", objective, "_spread", _spread),
    "margin fixed at 0.5": ("em", objective, "_spread", _at_half),
    "margin loss without its first hinge": ("agreement", objective, "_margin", _margin(_same, torch.relu)),
    "margin loss without its second hinge": ("agreement", objective, "_margin", _margin(torch.relu, _same)),
    "a step in bfloat16": ("cnn", TorchRealization, "_step", _narrow_step),
    "half of each batch in a step": ("norm", TorchRealization, "_step", _half_step),
    "gradients not set to zero": ("cnn", TorchRealization, "_step", _accumulating_step),
    "weights put back after a step": ("vb", TorchRealization, "_step", _frozen_step),
    "never clipped": ("clipped", training, "clip", lambda *_: None),
    "unbiased variance": ("norm", torch, "var_mean", _unbiased),
    "votes in float16": ("em", layers, "vote_grouped", _half_precision),
    "votes in float16 in larger batches": ("em", layers, "vote_grouped", _above_four),
    "priors forgotten": ("attention", vectors, "attend_grouped", _without_priors),
    "biases forgotten": ("cnn", layers, "conv", _without_biases),
}


@pytest.mark.parametrize("name", PATCHES)
def test_a_mistake_in_the_code_is_refused(name, monkeypatch):
    """So does each mistake in a function of the backend."""
    network, where, function, wrong = PATCHES[name]
    monkeypatch.setattr(where, function, wrong)
    assert not judged(BACKEND, network).passed


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("seed", range(5))
def test_without_a_mistake_it_passes(name, seed):
    """A network of every kind passes when nothing is planted, whatever was drawn."""
    found = judged(BACKEND, name, seed=seed)
    assert found.passed, found.failure
