"""Small layers of every kind, for the tests beside this file: Triton's interpreter is slow."""

from dataclasses import replace

from hypothesis import strategies as st
from routed_layers import Layer

from capsbench.network.routing import EMRouting, InverseTemperature

ROUTING = EMRouting(variance_floor=1e-3, inverse_temperature=InverseTemperature(final=0.3, decay=0.5))


def small(*, side=2, routing=ROUTING, **sizes):
    """A small layer."""
    return Layer(side=side, routing=routing, **sizes)


def variant(**changes):
    """The usual routing, changed."""
    return replace(ROUTING, **changes)


LAYERS = {
    "conv": small(side=3, stride=1),
    "strided": small(side=5, kernel=3, stride=2, types=1, routing=variant(iterations=2)),
    "joint": small(classes="joint", routing=variant(coordinates="right_column")),
    "first row": small(classes="joint", routing=variant(coordinates="first_row", iterations=2)),
    "each": small(
        classes="each",
        routing=variant(coordinates="appended", activation="softmax", interim_activation="softmax_of_mass"),
    ),
    "appended": small(classes="joint", routing=variant(coordinates="appended", cost_scale=10.0, iterations=2)),
    "everywhere": small(side=3, types=1, routing=variant(competition="all_positions")),
    "softmax": small(routing=variant(activation="softmax", competition="all_positions", iterations=2)),
    "one of each": small(side=1, kernel=1, types=1, parents=1),
    "one iteration": small(routing=variant(iterations=1)),
    "seven iterations": small(types=1, routing=variant(iterations=7)),
    "33 parents": small(parents=33, types=1),
    "50 parents": small(parents=50, types=1, routing=variant(iterations=2)),
    "128 parents": small(parents=128, types=1, routing=variant(iterations=2)),
}


@st.composite
def layers(draw):
    """Small layers with every field drawn."""
    side = draw(st.integers(1, 3))
    routing = variant(
        iterations=draw(st.integers(1, 3)),
        activation=draw(st.sampled_from(["sigmoid", "softmax"])),
        interim_activation=draw(st.sampled_from(["same", "softmax_of_mass"])),
        cost_scale=draw(st.sampled_from([None, 10.0])),
        competition=draw(st.sampled_from(["position", "all_positions"])),
        coordinates=draw(st.sampled_from(["none", "right_column", "first_row", "appended"])),
    )
    return small(
        routing=routing,
        side=side,
        types=draw(st.integers(1, 2)),
        parents=draw(st.sampled_from([1, 2, 8, 9, 17])),
        kernel=draw(st.integers(1, min(side, 2))),
        stride=draw(st.integers(1, 2)),
        classes=draw(st.sampled_from([None, "joint", "each"])),
    )
