"""What is seen of the layers and their routing at evaluation, against the oracle and against the forward pass."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from networks_for_torch import (
    MODES,
    PLAIN_MODES,
    STEP,
    ZOO,
    bayes_variants,
    pair,
    realize,
    relative,
    self_routed_variants,
    variants,
    vector_variants,
)

torch = pytest.importorskip("torch")

from capsbench.backend import Setting  # noqa: E402 - after the check that torch is there
from capsbench.network import zoo  # noqa: E402 - likewise
from capsbench.network.shapes import bind  # noqa: E402 - likewise
from capsbench_torch.backend import BACKEND  # noqa: E402 - likewise

pytestmark = pytest.mark.torch
NUMBERS = ("coupling_entropy", "vote_distance", "starved_share")


def worst_difference(got, expected):
    """The largest relative error of activations and poses, and the largest difference of the routing's numbers."""
    assert list(got) == list(expected)
    worst = 0.0
    for name, state in expected.items():
        ours = got[name]
        assert (ours.poses is None) == (state.poses is None)
        assert (ours.routing is None) == (state.routing is None)
        assert ours.activations.shape == state.activations.shape
        worst = max(worst, relative(ours.activations, state.activations))
        if state.poses is not None:
            assert ours.poses.shape == state.poses.shape
            worst = max(worst, relative(ours.poses, state.poses))
        for number in NUMBERS if state.routing is not None else ():
            ours_here, expected_here = getattr(ours.routing, number), getattr(state.routing, number)
            assert ours_here.shape == expected_here.shape
            scale = np.abs(expected_here).max() if number == "vote_distance" else 1.0
            worst = max(worst, float(np.abs(ours_here - expected_here).max()) / max(scale, 1e-30))
    return worst


@pytest.mark.parametrize(("name", "mode"), ZOO)
def test_states_are_the_oracles(name, mode):
    """In float64 every layer of the zoo and every routing iteration is as the oracle sees it, to 1e-10."""
    _, ours, oracle = pair(zoo.load(name), mode, "float64")
    assert worst_difference(ours[0].inspect(ours[1]), oracle[0].inspect(oracle[1])) <= 1e-10


@given(variants(), st.sampled_from(MODES))
@settings(max_examples=15)
def test_states_of_every_variant(network, mode):
    """Any combination of routing fields looks in every formulation as it does to the oracle, with several images."""
    bound = bind(network, (11, 12, 2), 3)
    assume(BACKEND.unsupported(bound, Setting(mode)) is None)
    _, ours, oracle = pair(network, mode, "float64", image=(11, 12, 2), classes=3, batch=3)
    got, expected = ours[0].inspect(ours[1], votes=True), oracle[0].inspect(oracle[1], votes=True)
    assert worst_difference(got, expected) <= 1e-9
    for name in ("caps", "classes"):
        np.testing.assert_allclose(np.sort(got[name].votes, axis=None), np.sort(expected[name].votes, axis=None))


@given(bayes_variants(), st.sampled_from(PLAIN_MODES))
@settings(max_examples=8)
def test_states_of_variational_variants(network, mode):
    """Poses as they are given out, votes, and how variational Bayes routing went are the oracle's."""
    _, ours, oracle = pair(network, mode, "float64", image=(11, 12, 2), classes=3, batch=3)
    got, expected = ours[0].inspect(ours[1], votes=True), oracle[0].inspect(oracle[1], votes=True)
    assert worst_difference(got, expected) <= 1e-9
    for name in ("caps", "classes"):
        sorted_votes = (np.sort(each[name].votes, axis=None) for each in (got, expected))
        np.testing.assert_allclose(*sorted_votes, atol=1e-12)


@given(vector_variants(), st.sampled_from(PLAIN_MODES))
@settings(max_examples=8)
def test_states_of_vectors(network, mode):
    """Lengths, vectors, votes and the numbers of routing by agreement are the oracle's; self-attention has none."""
    _, ours, oracle = pair(network, mode, "float64", image=(9, 10, 2), classes=3, batch=3)
    got, expected = ours[0].inspect(ours[1], votes=True), oracle[0].inspect(oracle[1], votes=True)
    assert worst_difference(got, expected) <= 1e-9
    np.testing.assert_allclose(*(np.sort(each["classes"].votes, axis=None) for each in (got, expected)), atol=1e-12)


@given(self_routed_variants(), st.sampled_from(PLAIN_MODES))
@settings(max_examples=15)
def test_states_of_self_routing(network, mode):
    """Couplings, votes and poses are the oracle's; classes have no poses and no votes."""
    _, ours, oracle = pair(network, mode, "float64", image=(9, 10, 2), classes=3, batch=3, moved=True)
    got, expected = ours[0].inspect(ours[1], votes=True), oracle[0].inspect(oracle[1], votes=True)
    assert worst_difference(got, expected) <= 1e-9
    np.testing.assert_allclose(*(np.sort(each["caps"].votes, axis=None) for each in (got, expected)), atol=1e-12)
    assert got["classes"].votes is got["classes"].poses is None


@pytest.mark.parametrize("mode", MODES)
def test_first_iteration_is_undecided(mode):
    """Children begin undecided and end nearer to a parent, whose votes draw together."""
    ours, placed, _ = realize("em-68k", mode, precision="float64")
    for state in ours.inspect(placed).values():
        if state.routing is not None:
            np.testing.assert_allclose(state.routing.coupling_entropy[:, 0], 1.0, rtol=1e-12)
            assert (state.routing.coupling_entropy[:, 1:] < 1.0).all()
            assert (state.routing.vote_distance[:, -1] < state.routing.vote_distance[:, 0]).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["em-tiny", "em-seed", "cnn-tiny"])
def test_the_last_layer_gives_the_output(name, mode):
    """The last layer's state holds the numbers of `forward`, bit for bit; looking changes none of them."""
    ours, placed, bound = realize(name, mode)
    before = ours.forward(placed)
    state = ours.inspect(placed)[bound.layers[-1].layer.name]
    after = ours.forward(placed)
    np.testing.assert_array_equal(before.scores, after.scores)
    if state.poses is None:
        np.testing.assert_array_equal(state.activations, before.scores)
    else:
        np.testing.assert_array_equal(state.activations, before.activations)
        np.testing.assert_array_equal(state.poses, before.poses)


@pytest.mark.parametrize("mode", MODES)
def test_votes_on_request(mode):
    """Votes come where they are asked for, all of them."""
    ours, placed, bound = realize("em-tiny", mode)
    assert all(state.votes is None for state in ours.inspect(placed).values())
    states = ours.inspect(placed, votes=True)
    sizes = {layer.layer.name: 2 * layer.routing.votes for layer in bound.layers if layer.routing is not None}
    assert {name: state.votes.size for name, state in states.items() if state.votes is not None} == sizes


def test_looking_costs_nothing_else():
    """A train step asks for the same memory before and after an inspection."""
    ours, placed, _ = realize("em-tiny")
    ours.train_step(placed, STEP)
    before = ours.memory(placed, STEP)
    ours.inspect(placed, votes=True)
    assert ours.memory(placed, STEP) == before
