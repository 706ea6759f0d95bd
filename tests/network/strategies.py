"""Hypothesis strategies for networks that make sense."""

from hypothesis import strategies as st

from capsbench.network.initial import FanIn, Filled, Glorot, He, HeUniform, Normal, Uniform
from capsbench.network.layers import (
    BatchNorm,
    ClassCapsules,
    ClassVectors,
    Conv,
    ConvCapsules,
    Dense,
    Dropout,
    MapCapsules,
    MaxPool,
    Normalisation,
    PrimaryCapsules,
    Residual,
    SelfRoutedCapsules,
    SelfRoutedClasses,
    VectorCapsules,
)
from capsbench.network.network import Network
from capsbench.network.objective import (
    CrossEntropy,
    LinearMargin,
    MarginLoss,
    Objective,
    Reconstruction,
    SigmoidMargin,
    SpreadLoss,
)
from capsbench.network.routing import (
    AgreementRouting,
    EMRouting,
    InverseTemperature,
    SelfAttentionRouting,
    SelfRouting,
    VBRouting,
)
from capsbench.network.training import SGD, Adam, AdamW, Constant, CosineDecay, ExponentialDecay, Recipe, StepDecay

small = st.floats(1e-6, 10.0)
share = st.floats(0.0, 0.99)
optimizers = st.one_of(
    st.builds(Adam, learning_rate=small, beta1=share, weight_decay=small),
    st.builds(AdamW, learning_rate=small, beta2=share, weight_decay=small),
    st.builds(SGD, learning_rate=small, momentum=share, nesterov=st.booleans()),
)
starts = st.one_of(
    st.just(Glorot()),
    st.just(FanIn()),
    st.just(He()),
    st.just(HeUniform()),
    st.builds(Uniform, limit=small),
    st.builds(Normal, std=small, mean=st.floats(-9.0, 9.0), truncated=st.booleans()),
    st.builds(Filled, value=st.floats(-9.0, 9.0)),
)
schedules = st.one_of(
    st.just(Constant()),
    st.builds(ExponentialDecay, rate=st.floats(0.1, 1.0)),
    st.builds(CosineDecay, floor=share),
    st.builds(StepDecay, milestones=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3).map(tuple)),
)
recipes = st.builds(
    Recipe, optimizer=optimizers, learning_rate_schedule=schedules, warm_up=share, clip_norm=st.just(0.0) | small
)
margins = st.one_of(st.builds(LinearMargin, ramp=st.floats(0.01, 1.0)), st.just(SigmoidMargin()))
losses = st.one_of(
    st.builds(SpreadLoss, margin=margins), st.builds(MarginLoss, positive=share), st.just(CrossEntropy())
)
reconstructions = st.none() | st.builds(
    Reconstruction, hidden=st.lists(st.integers(1, 64), max_size=3).map(tuple), weight_per_pixel=small
)

normalisations = st.none() | st.builds(Normalisation, epsilon=small, momentum=share)
bayes_routings = st.builds(
    VBRouting,
    iterations=st.integers(1, 4),
    prior_alpha=small,
    prior_kappa=small,
    prior_nu=st.floats(15.5, 99.0),
    prior_psi=small,
    competition=st.sampled_from(["position", "all_positions"]),
    density_floor=st.just(0.0) | small,
    normalisation=normalisations,
    coordinates=st.sampled_from(["none", "right_column"]),
    coordinate_unit=st.sampled_from(["grid", "grid_tenths"]),
)
PRIMARY = PrimaryCapsules(name="primary", capsules=3, kernel=5)


@st.composite
def routings(draw):
    """Every combination of the routing fields that is defined."""
    densities = draw(st.sampled_from(["log", "shifted"]))
    competition = "position" if densities == "shifted" else draw(st.sampled_from(["position", "all_positions"]))
    return EMRouting(
        iterations=draw(st.integers(1, 4)),
        inverse_temperature=InverseTemperature(final=draw(small), decay=draw(share), class_factor=draw(small)),
        activation=draw(st.sampled_from(["sigmoid", "softmax"])),
        interim_activation=draw(st.sampled_from(["same", "softmax_of_mass"])),
        cost_scale=draw(st.none() | small),
        competition=competition,
        first_assignments=draw(st.sampled_from(["competitors", "position"])),
        damping=draw(share),
        renormalise_input=draw(st.booleans()),
        densities=densities,
        beta_u=draw(st.sampled_from(["parent", "element"])),
        beta_u_scale=draw(small),
        beta_a_scale=draw(small),
        coordinates=draw(st.sampled_from(["none", "right_column", "first_row", "appended"])),
        coordinate_unit=draw(st.sampled_from(["grid", "grid_edge", "image", "centred_pixels"])),
    )


@st.composite
def capsule_networks(draw):
    """A convolution, primary capsules, up to two convolutional capsule layers, class capsules."""
    middle = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 2)), max_size=2))
    routing = draw(routings() | bayes_routings)
    layers = (
        *draw(st.sampled_from([(), (BatchNorm(name="norm", activation="relu"),)])),
        Conv(name="conv", channels=draw(st.integers(1, 8)), kernel=draw(st.integers(1, 5)), stride=2),
        PrimaryCapsules(
            name="primary",
            capsules=draw(st.integers(1, 5)),
            biases=draw(st.booleans()),
            normalisation=draw(normalisations),
            initial_poses=draw(starts),
        ),
        *(
            ConvCapsules(name=f"caps{i}", capsules=n, kernel=k, stride=s, initial_beta_a=draw(starts))
            for i, (n, k, s) in enumerate(middle)
        ),
        ClassCapsules(
            name="classes",
            positions=draw(st.sampled_from(["joint", "each"] if isinstance(routing, EMRouting) else ["joint"])),
        ),
    )
    objective = Objective(loss=draw(losses), reconstruction=draw(reconstructions))
    return Network(name="caps", layers=layers, routing=routing, objective=objective, recipe=draw(recipes))


@st.composite
def vector_networks(draw):
    """A convolution, capsules that are vectors, class vectors."""
    types, elements, depthwise = draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.booleans())
    squash = st.sampled_from(["rational", "exponential"])
    layers = (
        Conv(name="conv", channels=types * elements if depthwise else 5, kernel=9, initial_weights=draw(starts)),
        VectorCapsules(
            name="primary",
            capsules=types,
            elements=elements,
            kernel=draw(st.integers(1, 9)),
            stride=draw(st.integers(1, 3)),
            depthwise=depthwise,
            squash=draw(squash),
        ),
        ClassVectors(name="classes", elements=draw(st.integers(1, 16)), squash=draw(squash), transform_std=draw(small)),
    )
    routing = draw(
        st.just(SelfAttentionRouting())
        | st.builds(AgreementRouting, iterations=st.integers(1, 4), gradient=st.sampled_from(["all", "last"]))
    )
    objective = Objective(loss=draw(losses), reconstruction=draw(reconstructions))
    return Network(name="vectors", layers=layers, routing=routing, objective=objective, recipe=draw(recipes))


@st.composite
def self_routed_networks(draw):
    """Capsules made of maps or by convolutions, their poses normal or not, up to one more layer, classes."""
    types, elements = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    maps = Conv(name="conv", channels=types * (elements + 1), kernel=5, initial_weights=draw(starts))
    first = draw(st.sampled_from([(maps, MapCapsules(name="p", capsules=types, elements=elements)), (PRIMARY,)]))
    middle = st.builds(
        SelfRoutedCapsules,
        name=st.just("caps"),
        capsules=st.integers(1, 4),
        elements=st.integers(1, 9),
        kernel=st.integers(1, 3),
        stride=st.integers(1, 2),
        padding=st.sampled_from(["valid", "same", 1]),
        initial_transforms=starts,
    )
    layers = (
        *first,
        *draw(st.sampled_from([(), (BatchNorm(name="norm"),)])),
        *draw(st.lists(middle, max_size=1)),
        SelfRoutedClasses(name="classes"),
    )
    routing, objective = SelfRouting(epsilon=draw(small)), Objective(loss=draw(losses))
    return Network(name="selfrouted", layers=layers, routing=routing, objective=objective, recipe=draw(recipes))


@st.composite
def convolutional_networks(draw):
    """Convolution, pooling, residual blocks, dense layers and dropout."""
    blocks = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), max_size=2))
    layers = (
        *(Residual(name=f"block{i}", channels=n, stride=s) for i, (n, s) in enumerate(blocks)),
        Conv(
            name="conv",
            channels=draw(st.integers(1, 9)),
            kernel=draw(st.integers(1, 5)),
            stride=draw(st.integers(1, 3)),
            padding=draw(st.sampled_from(["same", "valid", 2])),
            initial_weights=draw(starts),
            initial_biases=draw(starts),
            biases=draw(st.booleans()),
        ),
        MaxPool(name="pool", size=draw(st.integers(1, 3)), stride=draw(st.integers(1, 3))),
        Dense(name="dense", units=draw(st.integers(1, 99))),
        Dropout(name="drop", rate=draw(share)),
        Dense(name="logits", units="classes", activation="linear"),
    )
    return Network(name="cnn", layers=layers, objective=Objective(loss=CrossEntropy()), recipe=draw(recipes))


networks = st.one_of(capsule_networks(), vector_networks(), self_routed_networks(), convolutional_networks())
