"""What layers give out: the oracle's numbers, and nothing at all where nobody asks."""

import pytest

pytest.importorskip("tensorflow")

import numpy as np
from exhaustive import in_short
from networks_for_tensorflow import (
    BAYES,
    SELF_ROUTED,
    VARIANTS,
    VECTORS,
    bayes_network,
    case_of,
    residual_network,
    self_routed_network,
    tensors,
    variant,
    vector_network,
    zoo_network,
)

from capsbench.backend import Setting
from capsbench_numpy.backend import BACKEND as ORACLE

pytestmark = pytest.mark.tensorflow

# Of each routing one or two are looked at in the tiled layout as well; parity is that of all, in both.
TILED = {"all_positions", "shifted", "published", "agreement", "attention", "padded"}
ROUTING = ("coupling_entropy", "vote_distance", "starved_share")


def shown(names):
    """Each in both modes; the tiled one of most where time is not short."""
    return in_short(
        [(name, mode) for name in names for mode in ("graph", "tiled")],
        lambda name, mode: mode == "graph" or name in TILED,
    )


def _check(case, mode):
    oracle = ORACLE.realize(case.bound, case.parameters, Setting("float64"))
    expected = oracle.inspect(oracle.place(case.images, case.labels, case.masks), votes=True)
    realization, placed = case.realize(mode, "float64")
    layers = realization.inspect(placed, votes=True)
    assert list(layers) == list(expected)
    for name, layer in layers.items():
        there = expected[name]
        np.testing.assert_allclose(layer.activations, there.activations, rtol=1e-9, atol=1e-12, err_msg=name)
        assert (layer.poses is None, layer.routing is None) == (there.poses is None, there.routing is None)
        if layer.poses is not None:
            np.testing.assert_allclose(layer.poses, there.poses, rtol=1e-9, atol=1e-12, err_msg=name)
        if layer.routing is not None:
            for quantity in ROUTING:
                mine, exact = getattr(layer.routing, quantity), getattr(there.routing, quantity)
                np.testing.assert_allclose(mine, exact, rtol=1e-8, atol=1e-12, err_msg=f"{name} {quantity}")
        assert (layer.votes is None) == (there.votes is None)
        if layer.votes is not None:
            # Layouts differ, so that values are compared in order of size.
            np.testing.assert_allclose(*(np.sort(state.votes, None) for state in (layer, there)), atol=1e-10)


@pytest.mark.parametrize(("name", "mode"), shown(VARIANTS))
def test_routing_variants_show_what_the_oracle_shows(name, mode):
    """Outputs, votes and routing metrics of every layer are the oracle's, in both layouts."""
    _check(case_of(variant(name), 2, image=(20, 20, 1), classes=4), mode)


@pytest.mark.parametrize(("name", "mode"), shown(BAYES))
def test_variational_bayes_shows_what_the_oracle_shows(name, mode):
    """Normalised poses, votes and how variational Bayes routing went are the oracle's, in both layouts."""
    _check(case_of(bayes_network(name), 2, image=(10, 12, 2), classes=3), mode)


@pytest.mark.parametrize(("name", "mode"), shown(VECTORS))
def test_vectors_show_what_the_oracle_shows(name, mode):
    """Lengths, vectors, votes and the numbers of routing by agreement are the oracle's, in both layouts."""
    _check(case_of(vector_network(name), 2, image=(10, 9, 2), classes=3), mode)


@pytest.mark.parametrize(("name", "mode"), shown(SELF_ROUTED))
def test_self_routing_shows_what_the_oracle_shows(name, mode):
    """Couplings, votes and poses are the oracle's, in both layouts; classes have neither poses nor votes."""
    _check(case_of(self_routed_network(name), 2, image=(10, 10, 2), classes=3), mode)


def test_blocks_show_what_the_oracle_shows():
    """A residual block shows its output."""
    _check(case_of(residual_network(2, "all"), 2, image=(10, 9, 2), classes=3), "graph")


@pytest.mark.parametrize("name", ["cnn-seed", "em-seed"])
def test_the_seeds_networks_show_what_the_oracle_shows(name):
    """Batch normalisation, dense layers and class capsules routed place by place give out the oracle's numbers."""
    _check(case_of(zoo_network(name), 2), "graph")


@pytest.mark.parametrize("mode", ["graph", "xla", "fused"])
def test_the_last_layer_gives_out_what_forward_says(mode):
    """Activations and poses of the class capsules are those of `forward`; votes come only when asked for."""
    case = case_of(zoo_network("em-tiny"), 2, image=(20, 20, 1), classes=4)
    realization, placed = case.realize(mode)
    _, activations, poses = tensors(realization.forward(placed))
    layers = realization.inspect(placed)
    np.testing.assert_allclose(layers["class_caps"].activations, activations, rtol=1e-5)
    np.testing.assert_allclose(layers["class_caps"].poses, poses, rtol=1e-4, atol=1e-6)
    assert [layer.votes for layer in layers.values()] == [None] * 4


def test_looking_costs_nothing_where_nobody_looks():
    """An evaluation asks for the same bytes before and after; nothing is traced for looking until it is called."""
    realization, placed = case_of(zoo_network("em-tiny"), 2, image=(20, 20, 1), classes=4).realize()
    realization.forward(placed)
    assert realization._inspect.experimental_get_tracing_count() == 0
    counted = []
    for _ in range(2):
        spans = realization.profile(placed, None).spans
        counted.append(sorted((span.op, span.native, str(span.layer)) for span in spans if span.op != "Dispatch"))
        realization.inspect(placed)
    assert counted[0] == counted[1]
    assert not [span for span in spans if span.native == "Xlogy"]
