"""The walk: shapes, parameters and costs against hand counts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import networks

from capsbench.errors import BadInput
from capsbench.network import zoo
from capsbench.network.cost import cost, forward_flops, layer_costs, vote_flops
from capsbench.network.layers import (
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
from capsbench.network.network import Network, routing_iterations, with_routing_iterations
from capsbench.network.objective import CrossEntropy, MarginLoss, Objective, Reconstruction, SpreadLoss
from capsbench.network.parameters import (
    cancelled_biases,
    capsule_parameter_count,
    draw_parameters,
    dropout_masks,
    parameter_count,
    parameter_specs,
)
from capsbench.network.patches import patch_places
from capsbench.network.routing import AgreementRouting, EMRouting, SelfAttentionRouting, SelfRouting, VBRouting
from capsbench.network.shapes import RoutingShape, bind, coordinates
from capsbench.network.text import parse

MNIST = ((28, 28, 1), 10)
NORB = ((32, 32, 2), 5)


def seed():
    return bind(zoo.load("em-seed"), *MNIST)


@pytest.mark.parametrize(
    ("name", "sizes", "count"),
    [
        ("em-paper", NORB, 317_194),  # "310K" in the paper
        ("em-68k", NORB, 68_754),  # "68K" in the paper
        ("em-official", NORB, 316_650),  # em-paper's without 544 biases of primary capsules
        ("em-ibm", NORB, 68_754),
        ("em-yl", MNIST, 68_572),  # counted in its code; 67,282 with 5 classes
        ("em-yl", ((32, 32, 1), 5), 67_282),
        ("em-tuned", MNIST, 68_572),
        ("em-seed", MNIST, 63_910),
        ("cnn-paper", NORB, 4_253_349),  # "4.2M" in the paper
        ("em-tiny", MNIST, 7_496),
        ("dynamic", MNIST, 6_804_224),  # measured of public ports
        ("dynamic-small", MNIST, 705_728),
        ("efficient", MNIST, 161_824),  # the paper's count: moving statistics are not in it
        ("cnn-residual", NORB, 317_541),
        ("vb", NORB, 68_714),  # its authors' code's
        ("self-routing", ((32, 32, 1), 5), 2_432_864),  # see test_self_routing_has_the_parameters_of_its_source
    ],
)
def test_parameter_counts(name, sizes, count):
    """The zoo has the parameter counts that were published, or counted by hand."""
    bound = bind(zoo.load(name), *sizes)
    assert capsule_parameter_count(bound) == count
    drawn = draw_parameters(bound, 0)
    assert sum(drawn[spec.name].size for spec in parameter_specs(bound) if spec.trainable) == parameter_count(bound)


def test_self_routing_has_the_parameters_of_its_source():
    """Counted tensor by tensor in the authors' code: two convolutions and a normalisation each where here is one."""
    conv1 = 7 * 7 * 1 * 256 + 2 * 256
    activations, poses = 5 * 5 * 256 * 16 + 2 * 16, 5 * 5 * 256 * (16 * 16) + 2 * (16 * 16)
    children = 3 * 3 * 16
    transforms, choosing = children * (16 * 16) * 16, children * 16 * 16 + children * 16
    classes = (6 * 6 * 16) * 5 * 16 + (6 * 6 * 16) * 5
    expected = {
        "conv1": 7 * 7 * 1 * 256,
        "norm1": 2 * 256,
        "primary_conv": 5 * 5 * 256 * 17 * 16,
        "primary_norm": 2 * 17 * 16,
        "conv_caps": transforms + choosing,
        "pose_norm": 2 * 16 * 16,
        "class_caps": classes,
    }
    bound = bind(zoo.load("self-routing"), (32, 32, 1), 5)
    assert {c.layer: c.parameters for c in layer_costs(bound, 1) if c.parameters} == expected
    assert sum(expected.values()) == conv1 + activations + poses + transforms + choosing + 2 * 16 * 16 + classes


def test_shapes_and_starts_of_self_routing():
    """Maps of 14, 12 and 6 places; uniform weights with PyTorch's limits, and children that start undecided."""
    bound = bind(zoo.load("self-routing"), (32, 32, 1), 5)
    shapes = [str(layer.output) for layer in bound.layers]
    assert shapes == [*["14×14×256"] * 2, *["12×12×272"] * 2, "12×12×16 capsules", *["6×6×16 capsules"] * 2, shapes[-1]]
    assert bound.layers[-3].routing == RoutingShape(36, 144, 144, 16, 16, 256)
    assert bound.layers[-1].routing == RoutingShape(1, 576, 576, 5, 0, 0)
    assert bound.layers[-1].output.values == 5  # no poses
    # Above the first window of 3, one place of it outside, the field's centre is that of the capsules below.
    assert (bound.layers[-3].centre, bound.layers[-3].step) == (bound.layers[-4].centre, 2 * bound.layers[-4].step)
    drawn = draw_parameters(bound, 0)
    for name, limit in (
        ("conv1.weights", np.sqrt(6 / 49)),
        ("primary_conv.weights", np.sqrt(6 / (25 * 256))),
        ("conv_caps.transforms", np.sqrt(6 / (16 * 16 * 16))),
    ):
        assert np.abs(drawn[name]).max() == pytest.approx(limit, rel=1e-3), name
        assert drawn[name].std() == pytest.approx(limit / np.sqrt(3), rel=0.02), name
    assert not any(drawn[name].any() for name in drawn if "routing" in name)


def test_decoder_count():
    """The seed's decoder adds 180-512-1024-784 with biases."""
    bound = seed()
    decoder = 180 * 512 + 512 + 512 * 1024 + 1024 + 1024 * 784 + 784
    assert parameter_count(bound) - capsule_parameter_count(bound) == decoder


def test_published_counts_with_decoder():
    """With its decoder, dynamic has the 8,215,568 parameters of public ports."""
    assert parameter_count(bind(zoo.load("dynamic"), *MNIST)) == 8_215_568


def test_the_residual_baseline_matches_em_paper():
    """cnn-residual has em-paper's parameters to 5 %, on both of its image sizes."""
    for sizes in (NORB, MNIST):
        residual, capsules = (parameter_count(bind(zoo.load(name), *sizes)) for name in ("cnn-residual", "em-paper"))
        assert residual == pytest.approx(capsules, rel=0.05)


def test_shapes_of_vectors_and_blocks():
    """Sizes of the published networks: 6x6x32 and 1x1x16 primary capsules; blocks halve 28 to 14 and 7."""
    dynamic, efficient, residual = (bind(zoo.load(n), *MNIST) for n in ("dynamic", "efficient", "cnn-residual"))
    assert [str(layer.output) for layer in dynamic.layers] == [
        "20×20×256",
        "6×6×32 capsules",
        "1×1×10 capsules",
    ]
    assert dynamic.layers[-1].routing == RoutingShape(1, 1152, 1152, 10, 16, 8 * 16)
    assert dynamic.layers[1].output.values == 9216  # lengths are no numbers of their own
    assert str(efficient.layers[-2].output) == "1×1×16 capsules"
    assert [str(layer.output) for layer in residual.layers[-4:]] == ["7×7×80", "7×7×80", "1×1×80", "1×1×10"]
    assert residual.layers[-3].step == 4.0


def test_transforms_are_drawn_as_published():
    """Deviations of the sources: 0.1 cut off at twice that, He's, and what He's gives for transforms."""
    dynamic, efficient = (draw_parameters(bind(zoo.load(name), *MNIST), 0) for name in ("dynamic", "efficient"))
    assert dynamic["class_caps.transforms"].shape == (1152, 10, 8, 16)
    assert dynamic["primary.weights"].std() == pytest.approx(0.088, rel=0.01)
    assert efficient["conv3.weights"].std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    assert efficient["class_caps.transforms"].std() == pytest.approx(np.sqrt(2 / (10 * 16 * 8)), rel=0.02)
    limit = np.sqrt(6 / (81 * (1 + 128)))  # Glorot's for one channel in and 128 out
    assert 0.98 * limit < np.abs(efficient["primary.weights"]).max() <= limit


def test_seed_shapes():
    """The seed's maps at 28 pixels are 12, 5 and 3 wide, and its class votes have 18 elements."""
    bound = seed()
    assert [str(layer.output) for layer in bound.layers][1:] == [
        "12×12×32",
        "12×12×8 capsules",
        "5×5×16 capsules",
        "3×3×16 capsules",
        "1×1×10 capsules",
    ]
    assert bound.layers[-1].routing.elements == 18


def test_seed_votes():
    """At batch 50 the seed's votes take 163.70 MB and cost 326 MFLOP, as its own profile shows."""
    bound = seed()
    assert cost(bound, 50).vote_bytes == 163_699_200
    assert sum(vote_flops(layer.routing) for layer in bound.layers if layer.routing) * 50 == 326_246_400


def test_coordinates_are_receptive_field_centres():
    """The seed's table by hand, 8, 12, 16 pixels of 28, is what the walk finds."""
    bound = seed()
    centres = [(np.array(pair) * 28).tolist() for pair in coordinates(bound, bound.layers[-1])]
    assert np.allclose(centres, [[r, c] for r in (8, 12, 16) for c in (8, 12, 16)])


def test_hand_counted_flops():
    """A convolution, a dense layer and a routed layer cost what counting on paper gives."""
    network = Network(
        name="hand",
        layers=(Conv(name="c", channels=3, kernel=2), Dense(name="d", units="classes", activation="linear")),
        objective=Objective(loss=CrossEntropy()),
    )
    bound = bind(network, (3, 3, 1), 2)
    # 4 positions x 3 channels x (4 products + 4 sums + bias: 2*4+1) + ReLU; 12 inputs to 2 units.
    assert forward_flops(bound, bound.layers[0]) == 12 * 9 + 12
    assert forward_flops(bound, bound.layers[1]) == (2 * 12 + 1) * 2
    capsules = Network(
        name="caps",
        layers=(PrimaryCapsules(name="p", capsules=2), ClassCapsules(name="k")),
        routing=EMRouting(iterations=2),
        objective=Objective(loss=SpreadLoss()),
    )
    bound = bind(capsules, (1, 1, 1), 3)
    couplings, votes = 6, 96
    expected = 6 * 128 + 2 * (6 * votes + 3 * couplings) + (5 * votes + 5 * couplings) + 2 * 3 * (4 * 16 + 3 + 4)
    assert forward_flops(bound, bound.layers[1]) == expected


@pytest.mark.parametrize("name", ["em-tiny", "vb"])
def test_only_class_capsules_add_coordinates(name):
    """Two additions for each of their votes; convolutional capsules cost the same with coordinates and without."""
    network = zoo.load(name)
    without = replace(network, routing=replace(network.routing, coordinates="none"))
    bounds = [bind(each, (28, 28, 1), 10) for each in (network, without)]
    added = {
        layer.layer.name: forward_flops(bounds[0], layer) - forward_flops(bounds[1], other)
        for layer, other in zip(bounds[0].layers, bounds[1].layers, strict=True)
    }
    last = bounds[0].layers[-1]
    couplings = last.routing.positions * last.routing.children * last.routing.parents
    assert added == {**dict.fromkeys(added, 0), last.layer.name: 2 * couplings}


def test_hand_counted_flops_of_vectors():
    """Squashing, routing by agreement and self-attention, and a residual block, counted on paper."""
    layers = (VectorCapsules(name="p", capsules=2, elements=3, kernel=1), ClassVectors(name="k", elements=5))
    fields = {"name": "caps", "layers": layers, "objective": Objective(loss=MarginLoss())}
    bound = bind(Network(routing=AgreementRouting(iterations=2), **fields), (2, 1, 4), 3)
    # 4 capsules of 3 elements: 12 outputs of 4 channels and a bias; 9 + 5 operations to squash each.
    assert forward_flops(bound, bound.layers[0]) == 12 * (2 * 4 + 1) + 4 * 14
    couplings, votes, squash, length = 4 * 3, 4 * 3 * 5, 3 * 20, 3 * 11
    expected = couplings * 2 * 3 * 5 + 2 * (2 * votes + squash) + (2 * votes + 5 * couplings) + length
    assert forward_flops(bound, bound.layers[1]) == expected
    bound = bind(Network(routing=SelfAttentionRouting(), **fields), (2, 1, 4), 3)
    expected = couplings * 2 * 3 * 5 + 5 * votes + 6 * couplings + squash + length
    assert forward_flops(bound, bound.layers[1]) == expected
    blocks = (Residual(name="b", channels=3, stride=2), Dense(name="d", units="classes", activation="linear"))
    bound = bind(Network(name="cnn", layers=blocks, objective=Objective(loss=CrossEntropy())), (4, 4, 2), 3)
    # 12 values: two convolutions of 9 places, a shortcut of one, three normalisations, two ReLUs and a sum.
    assert forward_flops(bound, bound.layers[0]) == 12 * (2 * 9 * 2 + 2 * 9 * 3 + 2 * 2 + 3 * 4 + 3)


def test_hand_counted_flops_of_variational_bayes():
    """Normalised primary capsules and two iterations of variational Bayes routing, counted on paper."""
    layers = (PrimaryCapsules(name="p", capsules=2, normalisation=Normalisation()), ClassCapsules(name="k"))
    fields = {"name": "caps", "layers": layers, "objective": Objective(loss=CrossEntropy())}
    routing = VBRouting(iterations=2, normalisation=Normalisation(), coordinates="none")
    bound = bind(Network(routing=routing, **fields), (1, 1, 1), 3)
    assert forward_flops(bound, bound.layers[0]) == 34 * 3 + 2 * 4 + 34 * 4
    couplings, votes, parents = 6, 96, 3
    m_steps, e_step = 2 * (6 * votes + 3 * couplings), 2 * votes + 6 * couplings
    posteriors = 2 * parents * (10 * 16 + 9)
    # Each parent's logit and activation; a mean and a deviation of 16 elements and the logit.
    expected = couplings * 128 + m_steps + e_step + posteriors + parents * (6 + 4) + 2 * 17 * parents
    assert forward_flops(bound, bound.layers[1]) == expected


def test_coordinates_of_variational_bayes():
    """The authors' code counts rows and columns from 1, in tenths of the grid."""
    bound = bind(zoo.load("vb"), *NORB)
    assert np.allclose(
        coordinates(bound, bound.layers[-1])[:5], [(0.025, c) for c in (0.025, 0.05, 0.075, 0.1)] + [(0.05, 0.025)]
    )


def test_hand_counted_flops_of_self_routing():
    """Choosing, weighing and gathering, and a normalisation of poses alone, counted on paper."""
    layers = (
        MapCapsules(name="p", capsules=2, elements=3),
        SelfRoutedCapsules(name="c", capsules=4, elements=5, kernel=2, padding=1),
        BatchNorm(name="n"),
        SelfRoutedClasses(name="k"),
    )
    fields = {"name": "caps", "routing": SelfRouting(), "objective": Objective(loss=CrossEntropy())}
    bound = bind(Network(layers=layers, **fields), (2, 2, 8), 3)
    assert forward_flops(bound, bound.layers[0]) == 4 * 2 * 2 * 2  # a sigmoid each
    # 9 positions, 8 children, 4 parents: a product of 3 elements and a bias, softmax, activation, sum; the children's
    # activations summed and divided by; weights divided; votes cast, weighed and summed.
    couplings, votes = 9 * 8 * 4, 9 * 8 * 4 * 5
    expected = couplings * (6 + 4 + 2) + 9 * 8 + 9 * 4 + couplings + couplings * 2 * 15 + 2 * votes
    assert forward_flops(bound, bound.layers[1]) == expected
    assert forward_flops(bound, bound.layers[2]) == 4 * 9 * 4 * 5
    couplings = 9 * 4 * 3
    assert forward_flops(bound, bound.layers[3]) == couplings * (10 + 4 + 2) + 9 * 4 + 3 * 2
    assert cost(bound, 2, 4).vote_bytes == 2 * votes * 4


@given(networks)
@settings(max_examples=60)
def test_costs_add_up(network):
    """Layers add up to the network, costs grow with the batch, and forward is less than a train step."""
    try:
        bound = bind(network, *MNIST)
    except BadInput:
        return
    one, two = cost(bound, 1), cost(bound, 2)
    assert sum(layer.forward_flops for layer in layer_costs(bound, 1)) == one.forward_flops
    assert two.forward_flops == 2 * one.forward_flops
    assert two.vote_bytes == 2 * one.vote_bytes
    assert one.train_step_flops > one.forward_flops > 0
    assert one.train_step_least_bytes > one.forward_least_bytes > 0
    assert sum(layer.parameters for layer in layer_costs(bound, 1)) == parameter_count(bound)


def test_patches_cover_by_rows():
    """Windows and the places inside them run over rows first."""
    assert patch_places(3, 3, 2, 1).tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]


def test_parameters_depend_on_name_and_seed_only():
    """Adding a layer leaves the other layers' values alone, and another seed changes them all."""
    small = draw_parameters(bind(zoo.load("em-tiny"), *MNIST), 0)
    again = draw_parameters(bind(with_routing_iterations(zoo.load("em-tiny"), 3), *MNIST), 0)
    other = draw_parameters(bind(zoo.load("em-tiny"), *MNIST), 1)
    assert all(np.array_equal(small[name], again[name]) for name in small)
    assert not np.array_equal(small["conv1.weights"], other["conv1.weights"])


def test_parameters_are_pinned():
    """The drawn bytes never change between versions: published results start from them."""
    drawn = draw_parameters(bind(zoo.load("em-tiny"), *MNIST), 0)
    assert drawn["conv1.weights"].dtype == np.float32
    pinned = {
        "conv1.weights": [-0.0313358419, 0.0729598477, -0.109215438],
        "class_caps.transforms": [-1.18334711, 0.0215308182, -0.366275638],
    }
    for name, values in pinned.items():
        assert drawn[name].ravel()[:3].tolist() == pytest.approx(values, rel=1e-6)


def test_cancelled_biases():
    """A normalisation takes back the biases of a linear convolution right below, and those of poses it goes over."""
    layers = (
        Conv(name="active", channels=2, kernel=3),
        BatchNorm(name="norm1"),
        Conv(name="linear", channels=2, kernel=3, activation="linear"),
        BatchNorm(name="norm2"),
        PrimaryCapsules(name="p", capsules=2),
        BatchNorm(name="norm3"),
        SelfRoutedClasses(name="k"),
    )
    network = Network(name="n", layers=layers, routing=SelfRouting(), objective=Objective(loss=CrossEntropy()))
    assert cancelled_biases(bind(network, *MNIST)) == {
        "linear.biases": "linear.weights",
        "p.pose_biases": "p.pose_weights",
    }


def test_dropout_masks():
    """Masks keep the expected share, scale what they keep, differ by step and repeat for the same step."""
    bound = bind(zoo.load("cnn-seed"), *MNIST)
    first, again, later = (dropout_masks(bound, 50, 0, step)["dropout1"] for step in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)
    assert set(np.unique(first)) == {0.0, 2.0}
    assert first.mean() == pytest.approx(1.0, abs=0.02)


def em(*layers, **changes):
    fields = {"routing": EMRouting(), "objective": Objective(loss=SpreadLoss()), **changes}
    return Network(name="n", layers=layers, **fields)


PRIMARY, CLASSES = PrimaryCapsules(name="p", capsules=2), ClassCapsules(name="k")
VECTORS = VectorCapsules(name="p", capsules=2, elements=3, kernel=1)
CHOOSING = SelfRoutedCapsules(name="v", capsules=2, kernel=3)
CHOSEN, MAPS = SelfRoutedClasses(name="k"), MapCapsules(name="m", capsules=2, elements=3)
ITSELF = {"routing": SelfRouting()}


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (em(Conv(name="c", channels=1, kernel=29), PRIMARY, CLASSES), "29×29 kernel, larger than its input of 28×28"),
        (em(PRIMARY, ConvCapsules(name="v", capsules=2, kernel=30), CLASSES), "larger than its input"),
        (em(PRIMARY, CLASSES, classes=5), "made for 5 classes, but the data set has 10"),
        (em(PRIMARY, PRIMARY, CLASSES), "layer names must differ"),
        (em(PrimaryCapsules(name="loss", capsules=2), CLASSES), "no layer may be called 'loss'"),
        (em(CLASSES), "needs primary_capsules below"),
        (em(PRIMARY, ClassVectors(name="k")), "needs vector_capsules below"),
        (em(VECTORS, ClassVectors(name="k")), "cannot be routed by em; legal is agreement or self_attention"),
        (em(VECTORS, CLASSES, routing=AgreementRouting()), "needs primary_capsules below"),
        (em(PRIMARY, CLASSES, routing=AgreementRouting()), "cannot be routed by agreement; legal is em or vb"),
        (em(VECTORS, ClassVectors(name="k"), routing=VBRouting()), "cannot be routed by vb; legal is agreement or"),
        (em(PRIMARY, replace(CLASSES, positions="each"), routing=VBRouting()), "need positions: joint, not each"),
        (em(VECTORS, ClassVectors(name="k"), ClassVectors(name="l"), routing=AgreementRouting()), "must be the last"),
        (em(replace(VECTORS, depthwise=True), ClassVectors(name="k"), routing=AgreementRouting()), "2 × 3 = 6, but"),
        (em(PRIMARY, Conv(name="c", channels=1, kernel=1), CLASSES), "cannot stand above capsules"),
        (em(PRIMARY), "last layer"),
        (em(VECTORS, CHOSEN, **ITSELF), "needs map_capsules or primary_capsules below"),
        (em(PRIMARY, CHOSEN), "cannot be routed by em; legal is self_routing"),
        (em(PRIMARY, CLASSES, **ITSELF), "cannot be routed by self_routing; legal is em"),
        (em(MAPS, CLASSES), "needs primary_capsules below"),
        (em(MAPS, CHOSEN, **ITSELF), "2 × (3 + 1) = 8, but there are 1"),
        (em(PRIMARY, replace(CHOOSING, kernel=29), CHOSEN, **ITSELF), "larger than its input of 28×28"),
        (em(PRIMARY, CHOSEN, CHOOSING, CHOSEN, **ITSELF), "layer names must differ"),
        (em(PRIMARY, CHOSEN, CHOOSING, replace(CHOSEN, name="l"), **ITSELF), "self_routed_classes must be the last"),
        (em(PRIMARY, BatchNorm(name="b"), CLASSES), "'b' (batch_norm) cannot stand above capsules"),
        (
            em(PRIMARY, CHOSEN, objective=Objective(loss=SpreadLoss(), reconstruction=Reconstruction()), **ITSELF),
            "a reconstruction needs the poses",
        ),
        (em(PRIMARY, CLASSES, routing=None), "needs a routing"),
        (em(PRIMARY, CLASSES, routing=EMRouting(densities="shifted", competition="all_positions")), "densities: log"),
        (em(Dense(name="d", units="classes", activation="linear"), routing=None), "spread loss needs class capsules"),
    ],
)
def test_impossible_networks(network, words):
    """A network that no image can pass through is refused in one sentence that says why."""
    with pytest.raises(BadInput, match="network n") as error:
        bind(network, *MNIST)
    assert words in str(error.value)


def test_routing_iterations_override():
    """Routing iterations replace the network's own, and mean nothing to a CNN and where nothing iterates."""
    assert with_routing_iterations(zoo.load("em-paper"), 5).routing.iterations == 5
    assert with_routing_iterations(zoo.load("em-paper"), None) == zoo.load("em-paper")
    assert with_routing_iterations(zoo.load("cnn-paper"), 5) == zoo.load("cnn-paper")
    assert routing_iterations(with_routing_iterations(zoo.load("dynamic"), 5)) == 5
    for name in ("efficient", "self-routing"):
        assert with_routing_iterations(zoo.load(name), 5) == zoo.load(name)
    assert routing_iterations(zoo.load("self-routing")) is None
    assert routing_iterations(zoo.load("efficient")) is routing_iterations(zoo.load("cnn-paper")) is None


def test_unknown_network_names_the_nearest():
    """A misspelt zoo name is answered with the names there are and the nearest of them."""
    with pytest.raises(BadInput, match="did you mean 'em-paper'"):
        zoo.load("em-papre")


def test_schedules():
    """Margins and learning rates take the values of their formulas at the start, in the middle and at the end."""
    paper, tiny = zoo.load("em-paper"), zoo.load("em-tiny")
    assert paper.objective.margin_at(0, 10) == pytest.approx(0.2 + 0.79 / (1 + np.exp(4)))
    assert paper.objective.margin_at(10**7, 10) == pytest.approx(0.2 + 0.79 / (1 + np.exp(-10)))
    assert [tiny.objective.margin_at(step, 100) for step in (0, 25, 50, 99)] == pytest.approx([0.2, 0.55, 0.9, 0.9])
    assert paper.recipe.learning_rate_at(20_000, 1) == pytest.approx(3e-3 * 0.96)
    assert zoo.load("dynamic").recipe.learning_rate_at(2_000, 1) == pytest.approx(1e-3 * 0.96)
    assert zoo.load("efficient").recipe.learning_rate_at(3_750, 1) == pytest.approx(5e-4 * 0.97)
    assert tiny.recipe.learning_rate_at(50, 100) == pytest.approx(5e-3)
    assert zoo.load("cnn-paper").objective.margin_at(3, 10) == 0.0


def test_numbers_without_a_point():
    """`1e-3` is a number, as in YAML 1.2."""
    text = "name: n\nlayers: [{kind: dense, name: d, units: classes, activation: linear}]\n"
    network = parse(
        text + "objective: {loss: {kind: cross_entropy}}\nrecipe: {optimizer: {name: sgd, learning_rate: 1e-3}}",
        Network,
        "n",
    )
    assert network.recipe.optimizer.learning_rate == pytest.approx(1e-3)
