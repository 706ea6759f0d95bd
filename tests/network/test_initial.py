"""What parameters start with, where convolutions pad, and where class capsules see their children: by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.errors import BadInput
from capsbench.network import zoo
from capsbench.network.initial import FanIn, Filled, Glorot, He, HeUniform, Normal, Uniform
from capsbench.network.layers import ClassCapsules, Conv, ConvCapsules, PrimaryCapsules
from capsbench.network.network import Network
from capsbench.network.objective import Objective, SpreadLoss
from capsbench.network.parameters import draw_parameters, parameter_specs
from capsbench.network.patches import margins
from capsbench.network.routing import EMRouting, InverseTemperature
from capsbench.network.shapes import bind, coordinates

OBJECTIVE = Objective(loss=SpreadLoss())


def network(*layers, **routing):
    return Network(name="n", layers=layers, routing=EMRouting(**routing), objective=OBJECTIVE)


def drawn(**initial):
    """Parameters of a convolution that starts as told, and of capsules above it."""
    conv = Conv(name="conv", channels=50, kernel=5, stride=2, **initial)
    return draw_parameters(
        bind(network(conv, PrimaryCapsules(name="p", capsules=1), ClassCapsules(name="k")), (9, 9, 4), 2), 0
    )


def test_fan_in_is_the_start_of_pytorch_convolutions():
    """Weights and biases alike are uniform within one over the square root of what a unit reads."""
    limit = 1 / np.sqrt(5 * 5 * 4)
    for values in (drawn(initial_weights=FanIn())["conv.weights"], drawn(initial_biases=FanIn())["conv.biases"]):
        assert np.abs(values).max() == pytest.approx(limit, rel=0.05)
        assert np.abs(values).max() <= limit
        assert values.std() == pytest.approx(limit / np.sqrt(3), rel=0.15)


@pytest.mark.parametrize("truncated", [False, True])
def test_normal_starts(truncated):
    """A normal has its mean and deviation; the truncated one ends at two deviations, and keeps 0.88 of its own."""
    values = drawn(initial_weights=Normal(std=3.0, mean=-1.0, truncated=truncated))["conv.weights"]
    assert values.mean() == pytest.approx(-1.0, abs=0.1)
    assert values.std() == pytest.approx(3.0 * (0.8796 if truncated else 1.0), rel=0.03)
    assert (np.abs(values + 1.0).max() <= 6.0) == truncated


def test_uniform_starts():
    """A limit is one; He's uniform start has the variance of his normal one, and PyTorch's limit."""
    values = drawn(initial_weights=Uniform(limit=0.2))["conv.weights"]
    assert 0.199 < np.abs(values).max() <= np.float32(0.2)
    values = drawn(initial_weights=HeUniform())["conv.weights"]
    assert np.abs(values).max() == pytest.approx(np.sqrt(6 / 100), rel=0.01)
    assert values.std() == pytest.approx(drawn(initial_weights=He())["conv.weights"].std(), rel=0.03)


def test_filled_and_glorot():
    """One value throughout; and a vector of n offsets counts as an n x 1 matrix, as in TensorFlow."""
    assert (drawn(initial_biases=Filled(value=0.1))["conv.biases"] == np.float32(0.1)).all()
    capsules = ConvCapsules(name="c", capsules=600, kernel=1, initial_beta_u=Glorot())
    bound = bind(network(PrimaryCapsules(name="p", capsules=1), capsules, ClassCapsules(name="k")), (1, 1, 1), 2)
    offsets = draw_parameters(bound, 0)["c.beta_u"]
    assert np.abs(offsets).max() == pytest.approx(np.sqrt(6 / 601), rel=0.01)


def test_official_starts():
    """What the authors' code starts with, read off the drawn tensors."""
    bound = bind(zoo.load("em-official"), (32, 32, 2), 5)
    values = draw_parameters(bound, 0)
    assert not {"primary.pose_biases", "primary.activation_biases"} & set(values)
    spreads = {
        "conv1.weights": 0.05,
        "primary.pose_weights": 0.5,
        "primary.activation_weights": 3.0,
        "conv_caps1.transforms": 0.3,
        "class_caps.transforms": 0.01,
    }
    for name, std in spreads.items():
        assert values[name].std() == pytest.approx(0.8796 * std, rel=0.05), name
        assert np.abs(values[name]).max() <= 2 * std, name
    starts = {name: set(values[name].tolist()) for name in values if name.endswith(("beta_u", "beta_a", "biases"))}
    assert starts == {
        "conv1.biases": {float(np.float32(0.1))},
        **{f"conv_caps{i}.{offset}": {0.5} for i in (1, 2) for offset in ("beta_u", "beta_a")},
        "class_caps.beta_u": {2.0},
        "class_caps.beta_a": {1.0},
    }


def test_ibm_starts():
    """Thresholds start around -1000, so that a capsule starts inactive."""
    values = draw_parameters(bind(zoo.load("em-ibm"), (32, 32, 1), 5), 0)
    thresholds = np.concatenate([values[f"{name}.beta_a"] for name in ("conv_caps1", "conv_caps2", "class_caps")])
    assert thresholds.mean() == pytest.approx(-1000, abs=250)
    assert ((thresholds >= -2000) & (thresholds <= 0)).all()


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 4))
def test_same_padding(side, kernel, stride):
    """Same padding leaves 1 / stride of the places, rounded up, with as few zeros as that takes, the odd one last."""
    before, after = margins("same", side, kernel, stride)
    assert 0 <= after - before <= 1
    windows = (side + before + after - kernel) // stride + 1
    assert windows == -(-side // stride)
    if before + after:
        assert (side + before + after - 1 - kernel) // stride + 1 < windows
    assert margins("valid", side, kernel, stride) == (0, 0)
    assert margins(2, side, kernel, stride) == (2, 2)


def test_padding_that_differs_by_axis():
    """Rows and columns that would be padded differently are refused."""
    layers = (
        Conv(name="c", channels=1, kernel=2, stride=2, padding="same"),
        PrimaryCapsules(name="p", capsules=1),
        ClassCapsules(name="k"),
    )
    with pytest.raises(BadInput, match="differently; legal are valid and a number of zeros"):
        bind(network(*layers), (8, 9, 1), 2)
    assert str(bind(network(*layers), (9, 9, 1), 2).layers[0].output) == "5×5×1"


def seen(bound, places):
    """Rows (and columns) of pixels that reach a row of the last layer's places: from the layers, one by one."""
    fields = [{i} for i in range(bound.image.height)]
    for layer in bound.layers[:-1]:
        kernel, stride = getattr(layer.layer, "kernel", 1), getattr(layer.layer, "stride", 1)
        before, after = margins(getattr(layer.layer, "padding", "valid"), len(fields), kernel, stride)
        first, last = fields[0], fields[-1]
        step = min(fields[1]) - min(first)
        # Zeros around the image stand where pixels would, were it larger.
        fields = [{i - step * n for i in first} for n in range(before, 0, -1)] + fields
        fields += [{i + step * n for i in last} for n in range(1, after + 1)]
        fields = [set().union(*fields[i : i + kernel]) for i in range(0, len(fields) - kernel + 1, stride)]
    assert len(fields) == places
    return fields


@pytest.mark.parametrize("name", ["em-official", "em-ibm", "em-yl"])
@pytest.mark.parametrize("side", [28, 32])
def test_coordinates_are_centres_of_receptive_fields(name, side):
    """In pixels and in shares of the image, a place's coordinates are the middle of the pixels that it sees."""
    for unit in ("centred_pixels", "image"):
        base = zoo.load(name)
        changed = Network(
            name="n",
            layers=base.layers,
            routing=EMRouting(coordinates="first_row", coordinate_unit=unit),
            objective=base.objective,
        )
        bound = bind(changed, (side, side, 1), 10)
        height = bound.layers[-1].input.height
        middles = [np.mean([min(rows), max(rows)]) for rows in seen(bound, height)]
        expected = [(m - side / 2) / 100 if unit == "centred_pixels" else m / side for m in middles]
        found = coordinates(bound, bound.layers[-1])
        np.testing.assert_allclose(found, [(row, column) for row in expected for column in expected], atol=1e-12)


def test_coordinates_of_the_grid():
    """Of the grid's places, middles or edges, in shares of its side."""
    for unit, shift in (("grid", 0.5), ("grid_edge", 0.0)):
        layers = PrimaryCapsules(name="p", capsules=1), ClassCapsules(name="k")
        bound = bind(network(*layers, coordinates="first_row", coordinate_unit=unit), (2, 4, 1), 2)
        expected = [((r + shift) / 2, (c + shift) / 4) for r in range(2) for c in range(4)]
        np.testing.assert_allclose(coordinates(bound, bound.layers[-1]), expected)


def test_official_maps():
    """At 32 pixels the class layer's children lie at 8, 12, 16 and 20 less 16 pixels, in hundreds."""
    bound = bind(zoo.load("em-official"), (32, 32, 2), 5)
    rows = sorted({row for row, _ in coordinates(bound, bound.layers[-1])})
    assert rows == pytest.approx([-0.08, -0.04, 0.0, 0.04])


def test_the_class_layer_has_a_temperature_of_its_own():
    """Only class capsules multiply the inverse temperature by `class_factor`."""
    routing = EMRouting(inverse_temperature=InverseTemperature(final=0.02, decay=0.5, class_factor=0.25))
    heat = [routing.of(layer).inverse_temperature.at(1) for layer in (ClassCapsules(name="k"), CONV_CAPSULES)]
    assert heat == [0.005 * 0.75, 0.02 * 0.75]
    assert EMRouting().of(ClassCapsules(name="k")) == EMRouting()


CONV_CAPSULES = ConvCapsules(name="c", capsules=1, kernel=1)


@pytest.mark.parametrize(("name", "biases"), [("em-official", 0), ("em-ibm", 2), ("em-yl", 2), ("em-tuned", 2)])
def test_biases_of_primary_capsules(name, biases):
    """The authors' primary capsules have none."""
    names = [spec.name for spec in parameter_specs(bind(zoo.load(name), (28, 28, 1), 10))]
    assert sum(each.startswith("primary.") and each.endswith("biases") for each in names) == biases
