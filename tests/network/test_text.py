"""Networks as YAML: round trips, and one clear sentence for every mistake."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks

from capsbench.errors import BadInput
from capsbench.network import zoo
from capsbench.network.network import Network
from capsbench.network.text import dump, json_schema, parse, read_text

GOOD = """\
name: small
layers:
- {kind: conv, name: conv1, channels: 8, kernel: 5, stride: 2}
- {kind: primary_capsules, name: primary, capsules: 4}
- {kind: class_capsules, name: classes}
routing: {kind: em, iterations: 2}
objective: {loss: {kind: spread, margin: {kind: linear}}}
recipe: {optimizer: {name: adam, learning_rate: 1e-2}}
"""


@given(networks)
@settings(max_examples=150)
def test_round_trip(network):
    """What is written is read back as the same network, and written again as the same text."""
    text = dump(network)
    again = parse(text, Network, "again.yaml")
    assert again == network
    assert dump(again) == text


@pytest.mark.parametrize("name", zoo.names())
def test_zoo_round_trip(name):
    """Every network of the zoo survives YAML unchanged and is named after its file."""
    network = zoo.load(name)
    assert network.name == name
    assert parse(dump(network), Network, name) == network


MISTAKES = [
    ("kernel: 5", "kernle: 5", "n.yaml:3:layers[0].kernle: unknown key 'kernle'", "did you mean 'kernel'?"),
    ("kernel: 5", "kernel: five", "n.yaml:3:layers[0].kernel", "integer"),
    ("kernel: 5", "kernel: 0", "n.yaml:3:layers[0].kernel", "greater than or equal to 1, not 0"),
    ("kernel: 5", "kernel: true", "n.yaml:3:layers[0].kernel", "integer"),
    ("kind: conv,", "kind: cnov,", "n.yaml:3:layers[0]", "did you mean 'conv'?"),
    ("kind: conv, ", "", "n.yaml:3:layers[0]", "'kind' is required"),
    ("iterations: 2", "iterations: 0", "n.yaml:6:routing.iterations", "not 0"),
    ("iterations: 2", "competition: global", "n.yaml:6:routing.competition", "'position' or 'all_positions'"),
    ("1e-2", "-1", "n.yaml:8:recipe.optimizer.learning_rate", "greater than 0"),
    ("1e-2", ".nan", "n.yaml:8:recipe.optimizer.learning_rate", "not nan"),
    ("1e-2", ".inf", "n.yaml:8:recipe.optimizer.learning_rate", "finite"),
    ("kind: spread", "kind: spred", "n.yaml:7:objective.loss", "did you mean 'spread'?"),
    ("name: small\n", "", "n.yaml:1:name", "required but missing"),
    ("name: small", "name: 3", "n.yaml:1:name", "string"),
    ("name: small", "name: small\nname: large", "n.yaml:2:name", "twice"),
    ("name: small", "name: &x small", "n.yaml:1", "anchors"),
    ("kind: em, iterations: 2", "iterations: 2, iteration: 3", "n.yaml:6:routing.iteration", "'iterations'"),
    ("kind: em", "kind: agrement", "n.yaml:6:routing", "did you mean 'agreement'?"),
    ("kind: em", "kind: agreement, epsilon: 1.0", "n.yaml:6:routing.epsilon", "legal are gradient, iterations, kind"),
    ("name: small", "name: !!python/object:os.system small", "n.yaml", "not plain YAML"),
    ("objective: {", "objective: [{", "n.yaml", "not YAML"),
]


@pytest.mark.parametrize(("old", "new", "where", "what"), MISTAKES)
def test_mistakes(old, new, where, what):
    """A mistake is one sentence that says where it stands and what would be legal."""
    with pytest.raises(BadInput) as error:
        parse(GOOD.replace(old, new), Network, "n.yaml")
    message = str(error.value)
    assert message.startswith(where)
    assert what in message
    assert "\n" not in message


def test_routing_is_em_where_nothing_else_is_said():
    """The kind of a routing may be left out, as before there were others."""
    assert parse(GOOD.replace("kind: em, ", ""), Network, "n.yaml") == parse(GOOD, Network, "n.yaml")


def test_alias_bomb():
    """A few lines of nested aliases are refused before they are expanded."""
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(BadInput, match="anchors and aliases"):
        parse("\n".join(lines), Network, "bomb.yaml")


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "{a: " * 2000, "- " * 5000 + "x"])
def test_deep_nesting(text):
    """Nesting deeper than any network needs is refused without exhausting the stack."""
    with pytest.raises(BadInput):
        parse(text, Network, "deep.yaml")


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda b: b.decode("latin-1")))
@settings(max_examples=300)
def test_any_text(text):
    """Whatever the text, it is a network or a BadInput, and nothing else."""
    try:
        assert isinstance(parse(text, Network, "any.yaml"), Network)
    except BadInput as error:
        assert "\n" not in str(error)  # noqa: PT017 - which of the two it is depends on the text


def test_schema_describes_the_zoo():
    """The published JSON Schema accepts every network of the zoo and refuses an unknown key."""
    jsonschema = pytest.importorskip("jsonschema")
    from capsbench.network.text import plain

    schema = json_schema(Network)
    for name in zoo.names():
        jsonschema.validate(plain(zoo.load(name)), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**plain(zoo.load("em-tiny")), "nmae": 1}, schema)


def test_a_name_with_nul_is_bad_input():
    """No file has such a name, and a sentence says so."""
    with pytest.raises(BadInput, match="no file has such a name"):
        read_text(Path("a\0.yaml"))
