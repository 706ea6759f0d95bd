"""Networks, their batches and realizations, for the tests beside this file."""

import numpy as np
from hypothesis import strategies as st

from capsbench.backend import Setting, Step
from capsbench.network import zoo
from capsbench.network.initial import Glorot, He, HeUniform, Normal, Uniform
from capsbench.network.layers import (
    AveragePool,
    BatchNorm,
    ClassCapsules,
    ClassVectors,
    Conv,
    ConvCapsules,
    Dense,
    MapCapsules,
    Normalisation,
    PrimaryCapsules,
    Residual,
    SelfRoutedCapsules,
    SelfRoutedClasses,
    VectorCapsules,
)
from capsbench.network.network import Network, with_routing_iterations
from capsbench.network.objective import (
    CrossEntropy,
    LinearMargin,
    MarginLoss,
    Objective,
    Reconstruction,
    SpreadLoss,
)
from capsbench.network.parameters import draw_parameters, dropout_masks
from capsbench.network.routing import (
    AgreementRouting,
    EMRouting,
    InverseTemperature,
    SelfAttentionRouting,
    SelfRouting,
    VBRouting,
)
from capsbench.network.shapes import bind
from capsbench_numpy.backend import BACKEND as ORACLE
from capsbench_torch.backend import BACKEND

STEP = Step(0, 1e-3, 0.5)
MODES = ("tiled", "eager", "fused")
PLAIN_MODES = ("tiled", "eager")
IMAGE, CLASSES = (28, 28, 1), 10
# Networks that take their time: the least images on which every layer still has several places.
SMALLER = {
    **dict.fromkeys(("em-paper", "em-official", "em-68k", "em-seed", "em-tuned", "em-ibm", "vb"), (22, 22, 1)),
    **dict.fromkeys(("dynamic", "dynamic-small"), (20, 20, 1)),
    "em-yl": (18, 18, 1),
    **dict.fromkeys(("self-routing", "cnn-residual"), (14, 14, 1)),
}
# One of each formulation, and every kind of layer, at little cost; the others are larger ones of the same.
SMALL = {"em-tiny", "dynamic-small", "efficient", "vb", "self-routing", "cnn-tiny", "cnn-seed", "cnn-residual"}
# Of one image, or two, a normalisation of class capsules would leave nothing.
BATCHES = {"vb": 4}

# Every network of the zoo in every mode that realizes it; a large one without routing, for which modes are the same, in
# one of them.
ZOO = [
    (name, mode)
    for name in zoo.names()
    for mode in MODES
    if BACKEND.unsupported(bind(zoo.load(name), IMAGE, CLASSES), Setting(mode)) is None
    and (name != "cnn-residual" or mode == "eager")
]


def realize(name, mode="eager", *, batch=2, iterations=None, **setting):
    """A network of the zoo, by its name, or any other, with a random batch placed."""
    network, image = (zoo.load(name), SMALLER.get(name, IMAGE)) if isinstance(name, str) else (name, IMAGE)
    bound = bind(with_routing_iterations(network, iterations), image, CLASSES)
    ours = BACKEND.realize(bound, draw_parameters(bound, 0), Setting(mode, threads=2, **setting))
    images = np.random.default_rng(0).random((batch, *image), dtype=np.float32)
    return ours, ours.place(images, np.arange(batch) % CLASSES, dropout_masks(bound, batch, 0, 0)), bound


def vote_bytes(bound, batch):
    """Size of the votes of every routed layer in float32."""
    routed = ((layer.layer.name, layer.routing) for layer in bound.layers)
    return {name: 4 * batch * shape.votes for name, shape in routed if shape is not None}


def image_of(bound):
    """Height, width and channels of the images."""
    return bound.image.height, bound.image.width, bound.image.channels


def relative(got, expected):
    """Largest difference over largest magnitude."""
    return float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-30))


def pair(network, mode, precision, *, image=None, classes=10, batch=None, moved=False):
    """The network in PyTorch and in the oracle, with the same batch placed in both.

    `moved` parameters are those that start at zero, where what they feed gets no gradient, a little away from it.
    """
    image, batch = image or SMALLER.get(network.name, IMAGE), batch or BATCHES.get(network.name, 1)
    bound = bind(network, image, classes)
    parameters = draw_parameters(bound, 0)
    generator = np.random.default_rng(0)
    for name, value in parameters.items():
        if moved and not value.any():
            parameters[name] = generator.normal(0.0, 0.3, value.shape).astype(np.float32)
    images = generator.random((batch, *image), dtype=np.float32)
    labels = np.arange(batch) % classes
    masks = dropout_masks(bound, batch, 0, 0)
    ours = BACKEND.realize(bound, parameters, Setting(mode, precision=precision, threads=2))
    oracle = ORACLE.realize(bound, parameters, Setting("float64", precision="float64"))
    return bound, (ours, ours.place(images, labels, masks)), (oracle, oracle.place(images, labels, masks))


@st.composite
def variants(draw):
    """Small capsule networks with every routing field drawn."""
    densities = draw(st.sampled_from(["log", "shifted"]))
    routing = EMRouting(
        iterations=draw(st.integers(1, 4)),
        inverse_temperature=InverseTemperature(
            final=draw(st.sampled_from([0.01, 0.3])), decay=0.5, class_factor=draw(st.sampled_from([1.0, 0.25]))
        ),
        activation=draw(st.sampled_from(["sigmoid", "softmax"])),
        interim_activation=draw(st.sampled_from(["same", "softmax_of_mass"])),
        variance_floor=1e-3,
        cost_scale=draw(st.sampled_from([None, 10.0])),
        competition="position" if densities == "shifted" else draw(st.sampled_from(["position", "all_positions"])),
        first_assignments=draw(st.sampled_from(["competitors", "position"])),
        damping=draw(st.sampled_from([0.0, 0.0, 0.1])),
        renormalise_input=draw(st.booleans()),
        densities=densities,
        beta_u=draw(st.sampled_from(["parent", "element"])),
        beta_u_scale=draw(st.sampled_from([1.0, 1.4])),
        beta_a_scale=draw(st.sampled_from([1.0, -20.0])),
        coordinates=draw(st.sampled_from(["none", "right_column", "first_row", "appended"])),
        coordinate_unit=draw(st.sampled_from(["grid", "grid_edge", "image", "centred_pixels"])),
    )
    # A single child has no variance: all elements of its density tie, and which of them is the largest is anybody's.
    fewest = 2 if densities == "shifted" else 1
    kernel, stride = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (3, 2)]))
    start = {"initial_beta_u": Normal(std=0.1), "initial_beta_a": Normal(std=0.1)}
    layers = (
        BatchNorm(name="norm", activation=draw(st.sampled_from(["linear", "relu"]))),
        Conv(
            name="conv",
            channels=draw(st.integers(1, 3)),
            kernel=3,
            stride=2,
            padding=draw(st.sampled_from(["valid", 1, 2])),
        ),
        PrimaryCapsules(
            name="primary",
            capsules=draw(st.integers(fewest, 3)),
            biases=draw(st.booleans()),
            activation_offset=draw(st.sampled_from([0.0, -1.0])),
        ),
        ConvCapsules(name="caps", capsules=draw(st.integers(fewest, 4)), kernel=kernel, stride=stride, **start),
        ClassCapsules(name="classes", positions=draw(st.sampled_from(["joint", "each"])), **start),
    )
    objective = Objective(
        loss=SpreadLoss(margin=LinearMargin()),
        reconstruction=draw(st.sampled_from([None, Reconstruction(hidden=(5,))])),
    )
    return Network(name="variant", layers=layers, routing=routing, objective=objective)


@st.composite
def bayes_variants(draw):
    """Small networks with every field of variational Bayes routing drawn, and normalisations of all capsules."""
    normal = draw(st.sampled_from([None, Normalisation(epsilon=1e-2, momentum=0.5)]))
    routing = VBRouting(
        iterations=draw(st.integers(1, 4)),
        prior_alpha=draw(st.sampled_from([1.0, 0.3])),
        prior_kappa=draw(st.sampled_from([1.0, 2.0])),
        prior_nu=draw(st.sampled_from([17.0, 15.5])),
        prior_psi=draw(st.sampled_from([1.0, 0.4])),
        competition=draw(st.sampled_from(["position", "all_positions"])),
        density_floor=draw(st.sampled_from([0.0, 1e-8, 1e-3])),
        normalisation=normal,
        coordinates=draw(st.sampled_from(["none", "right_column"])),
        coordinate_unit=draw(st.sampled_from(["grid", "grid_tenths"])),
    )
    kernel, stride = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (3, 2)]))
    start = {"initial_beta_u": Normal(std=0.1), "initial_beta_a": Normal(std=0.1), "transform_std": 0.5}
    primary = draw(st.sampled_from([None, Normalisation(epsilon=1e-2)]))
    layers = (
        Conv(name="conv", channels=draw(st.integers(1, 3)), kernel=3, stride=2),
        PrimaryCapsules(name="primary", capsules=draw(st.integers(1, 3)), biases=False, normalisation=primary),
        ConvCapsules(name="caps", capsules=draw(st.integers(1, 4)), kernel=kernel, stride=stride, **start),
        ClassCapsules(name="classes", **start),
    )
    objective = Objective(
        loss=draw(st.sampled_from([CrossEntropy(), SpreadLoss(margin=LinearMargin())])),
        reconstruction=draw(st.sampled_from([None, Reconstruction(hidden=(5,))])),
    )
    return Network(name="variant", layers=layers, routing=routing, objective=objective)


@st.composite
def vector_variants(draw):
    """Small networks of capsules that are vectors, with every field of their routings drawn."""
    types, elements = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    squash = draw(st.sampled_from(["rational", "exponential"]))
    depthwise = draw(st.booleans())
    routing = draw(
        st.just(SelfAttentionRouting())
        | st.builds(AgreementRouting, iterations=st.integers(1, 4), gradient=st.sampled_from(["all", "last"]))
    )
    channels = types * elements if depthwise else draw(st.integers(1, 3))
    kernel = draw(st.integers(1, 3))
    layers = (
        Conv(
            name="conv",
            channels=channels,
            kernel=3,
            stride=2,
            initial_weights=draw(st.sampled_from([Glorot(), He(), Normal(std=0.3)])),
        ),
        BatchNorm(name="norm", activation=draw(st.sampled_from(["linear", "relu"]))),
        VectorCapsules(
            name="primary",
            capsules=types,
            elements=elements,
            kernel=kernel,
            stride=draw(st.integers(1, 2)),
            depthwise=depthwise,
            squash=squash,
            initial_weights=Normal(std=1.0),
        ),
        ClassVectors(name="classes", elements=draw(st.integers(1, 5)), squash=squash, transform_std=1.0),
    )
    objective = Objective(
        loss=draw(st.sampled_from([MarginLoss(), MarginLoss(down_weight=0.25, negative=0.3), CrossEntropy()])),
        reconstruction=draw(st.sampled_from([None, Reconstruction(hidden=(5,))])),
    )
    return Network(name="variant", layers=layers, routing=routing, objective=objective)


@st.composite
def residual_variants(draw):
    """Small residual networks, with pooling of all places and of windows."""
    channels = draw(st.integers(1, 3))
    layers = (
        Conv(name="conv", channels=channels, kernel=3, biases=draw(st.booleans()), activation="linear"),
        BatchNorm(name="norm", activation="relu"),
        Residual(name="block1", channels=draw(st.sampled_from([channels, 4])), stride=draw(st.integers(1, 3))),
        Residual(name="block2", channels=4),
        AveragePool(name="pool", size=draw(st.sampled_from(["all", 1, 2]))),
        Dense(name="logits", units="classes", activation="linear"),
    )
    return Network(name="variant", layers=layers, objective=Objective(loss=CrossEntropy()))


@st.composite
def self_routed_variants(draw):
    """Small networks that route themselves, above capsules of either kind, padded or not, poses normal or not."""
    types, elements = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    maps = Conv(name="conv", channels=types * (elements + 1), kernel=3, stride=2, activation="linear", biases=False)
    norm = BatchNorm(name="norm", activation=draw(st.sampled_from(["linear", "relu"])))
    first = draw(
        st.sampled_from(
            [
                (maps, norm, MapCapsules(name="primary", capsules=types, elements=elements)),
                (PrimaryCapsules(name="primary", capsules=types, stride=2),),
            ]
        )
    )
    layers = (
        *first,
        SelfRoutedCapsules(
            name="caps",
            capsules=draw(st.integers(1, 4)),
            elements=draw(st.integers(1, 4)),
            kernel=draw(st.integers(1, 3)),
            stride=draw(st.integers(1, 2)),
            padding=draw(st.sampled_from(["valid", 1, 2])),
            initial_transforms=draw(st.sampled_from([Uniform(limit=0.5), HeUniform()])),
        ),
        *draw(st.sampled_from([(), (BatchNorm(name="poses", scale=False),)])),
        SelfRoutedClasses(name="classes"),
    )
    objective = Objective(loss=draw(st.sampled_from([CrossEntropy(), SpreadLoss(margin=LinearMargin())])))
    routing = SelfRouting(epsilon=draw(st.sampled_from([1e-12, 0.1])))
    return Network(name="variant", layers=layers, routing=routing, objective=objective)
