"""Networks that differ from another in a few values."""

import pytest

from capsbench.errors import BadInput
from capsbench.network import zoo
from capsbench.network.objective import SigmoidMargin
from capsbench.network.text import plain
from capsbench.network.variation import vary

BASE = zoo.load("em-tuned")


def test_only_what_is_named_differs():
    """A value of the routing, of a layer and a whole schedule are set; all the rest is the other network's."""
    changes = {
        "routing.inverse_temperature.final": 0.1,
        "layers.conv_caps2.transform_std": 1,
        "objective.loss.margin": {"kind": "sigmoid", "rise": 0.7},
    }
    varied = vary(BASE, "em-warm", changes)
    assert varied.name == "em-warm"
    assert varied.routing.inverse_temperature.final == 0.1
    assert [getattr(layer, "transform_std", None) for layer in varied.layers] == [None, None, None, 0.3, 1.0, 0.3]
    assert varied.objective.loss.margin == SigmoidMargin(rise=0.7)
    whole, before = plain(varied, defaults=True), plain(BASE, defaults=True)
    whole["routing"]["inverse_temperature"]["final"] = 0.05
    whole["layers"][4]["transform_std"] = 0.3
    whole["objective"]["loss"]["margin"] = before["objective"]["loss"]["margin"]
    assert {**whole, "name": "em-tuned"} == before


def test_a_layer_may_be_replaced_whole():
    """A mapping at a layer's name stands in its place, with defaults for what it leaves out."""
    varied = vary(BASE, "em-wide", {"layers.conv1": {"kind": "conv", "name": "conv1", "channels": 8, "kernel": 5}})
    assert [layer.name for layer in varied.layers] == [layer.name for layer in BASE.layers]
    assert (varied.layers[0].channels, varied.layers[0].stride) == (8, 1)
    assert varied.layers[1:] == BASE.layers[1:]


def test_without_changes_only_the_name_differs():
    """Every network of the zoo can be written out with its defaults and read again."""
    for name in zoo.names():
        network = zoo.load(name)
        assert plain(vary(network, "other", {})) == {**plain(network), "name": "other"}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("routing.temperature", 1.0, "routing.temperature: unknown key 'temperature', legal are activation"),
        ("layers.conv9.kernel", 3, "layers.conv9.kernel: unknown layer 'conv9', legal are class_caps, conv1"),
        ("name.first", "a", "name.first: 'first' leads nowhere"),
        ("routing.iterations", 0, "routing.iterations: "),
        ("layers.conv1.kernel", "wide", "layers[0].kernel: "),
        ("layers.conv1.name", "norm1", "layer names must differ"),
        ("layers.conv1", 3, "layers[0]: "),
        ("layers.conv9", {}, "layers.conv9: unknown layer 'conv9'"),
        ("layers.conv1.kernel.wide", 3, "'wide' leads nowhere"),
        ("", 1, "unknown key ''"),
    ],
)
def test_changes_that_cannot_be_are_refused(path, value, says):
    """The sentence names the path and what would be legal."""
    with pytest.raises(BadInput) as error:
        vary(BASE, "other", {path: value})
    assert says in str(error.value)
