"""Suite files: what they may say, and in which words they are refused."""

import json

import jsonschema
import pytest
import yaml

from capsbench.errors import BadInput
from capsbench.network.text import json_schema, parse, plain
from capsbench.network.training import AdamW, StepDecay
from capsbench.suite.schema import MEASURES, DatasetChoice, EarlyStop, Suite, TrainChoice, load_suite

REST = """
name: tests
networks: [em-tiny]
batch: [8]
"""


def suite_of(text, rest=REST):
    """The suite of some lines and, where they do not say it, the usual rest."""
    return parse(f"{text.strip()}{rest}", Suite, "suite.yaml")


@pytest.fixture
def load(tmp_path):
    """Read a suite file that holds these lines and the usual rest."""

    def load(text, rest=REST):
        path = tmp_path / "suite.yaml"
        path.write_text(f"{text.strip()}{rest}", encoding="utf-8")
        return load_suite(path)

    return load


BACKENDS = "backends: [numpy]\n"


@pytest.mark.parametrize(
    ("dataset", "choices"),
    [
        ("mnist", [DatasetChoice(name="mnist")]),
        ("{name: mnist, train_limit: 5}", [DatasetChoice(name="mnist", train_limit=5)]),
        ("[mnist]", [DatasetChoice(name="mnist")]),
        (
            "[{name: mnist, test_limit: 7}, toys, mnist]",
            [DatasetChoice(name="mnist", test_limit=7), DatasetChoice(name="toys"), DatasetChoice(name="mnist")],
        ),
    ],
)
def test_a_data_set_is_a_name_a_mapping_or_a_list_of_those(load, dataset, choices):
    """However they are written, they are choices in the order of the file."""
    assert list(load(f"{BACKENDS}dataset: {dataset}").datasets()) == choices


@pytest.mark.parametrize("precision", ["float32", "float64", "mixed_bfloat16"])
def test_precisions(load, precision):
    """Float32 if nothing is said; the JSON Schema knows the same ones."""
    lines = f"{BACKENDS}dataset: mnist\n"
    assert load(lines).precision == "float32"
    assert load(f"{lines}precision: {precision}").precision == precision
    assert precision in json_schema(Suite)["properties"]["precision"]["enum"]


@pytest.mark.parametrize("precision", ["float16", "mixed_float16", "bfloat16", "amp"])
def test_other_precisions_are_refused(load, precision):
    """Neither float16, which would need its loss scaled, nor a network that is all in bfloat16."""
    with pytest.raises(BadInput) as refused:
        load(f"{BACKENDS}dataset: mnist\nprecision: {precision}")
    legal = "legal are 'float32', 'float64' or 'mixed_bfloat16'"
    assert f"suite.yaml:3:precision: {precision!r} is not legal, {legal}" in str(refused.value)


def test_a_backend_may_narrow_what_is_measured():
    """A mapping says what is measured of that realization; the others are measured as the suite says."""
    suite = suite_of("""
dataset: mnist
measure: [parity, memory, ops]
backends: [torch, {use: "tensorflow:tiled", measure: [ops]}, {use: numpy}]
""")
    assert suite.realizations() == (
        ("torch", ("parity", "memory", "ops")),
        ("tensorflow:tiled", ("ops",)),
        ("numpy", ("parity", "memory", "ops")),
    )
    assert suite_of(f"{BACKENDS}dataset: mnist").realizations() == (("numpy", MEASURES),)


def test_other_backends_keep_what_the_suite_says_of_them():
    """Backends from the command line replace the suite's; one that the suite narrows stays narrow."""
    suite = suite_of("""
dataset: mnist
backends: [torch, {use: "tensorflow:tiled", measure: [ops]}]
""").with_backends(["numpy", "tensorflow:tiled"])
    assert suite.realizations() == (("numpy", MEASURES), ("tensorflow:tiled", ("ops",)))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("dataset: 3", "suite.yaml:2:dataset: input should be a valid string, not 3"),
        ("dataset: []", "suite.yaml:2:dataset: tuple should have at least 1 item"),
        ("dataset: {nam: mnist}", "suite.yaml:2:dataset.nam: unknown key 'nam', legal are identical_images, name"),
        ("dataset: {name: mnist, train_limit: 0}", "suite.yaml:2:dataset.train_limit: input should be greater"),
        ("dataset: [mnist, {nam: toys}]", "suite.yaml:2:dataset[1].nam: unknown key 'nam', legal are identical_images"),
        ("dataset: [mnist, 3]", "suite.yaml:2:dataset[1]: input should be a valid string, not 3"),
        ("dataset: [mnist, [toys]]", "suite.yaml:2:dataset[1]: input should be a valid string, not ['toys']"),
        (
            "dataset:\n- mnist\n- {name: toys, transform: {resiz: 28}}",
            "suite.yaml:4:dataset[1].transform.resiz: unknown key 'resiz', legal are affine, brightness",
        ),
        ("dataset: [mnist, {name: mnist}]", "suite.yaml:dataset: a data set comes twice with the same choices"),
    ],
)
def test_bad_data_sets_are_refused_where_they_stand(load, lines, says):
    """File, line and key, what is wrong there, and what would be legal."""
    with pytest.raises(BadInput) as caught:
        load(f"{BACKENDS}{lines}")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("backends", "says"),
    [
        ("[3]", "suite.yaml:2:backends[0]: input should be a valid string, not 3"),
        ("[{us: numpy}]", "suite.yaml:2:backends[0].us: unknown key 'us', legal are measure, use; did you mean 'use'"),
        ("[numpy, {measure: [ops]}]", "suite.yaml:2:backends[1].use: this key is required but missing"),
        ("[{use: numpy, measure: []}]", "suite.yaml:2:backends[0].measure: tuple should have at least 1 item"),
        ("[{use: numpy, measure: [opps]}]", "backends[0].measure[0]: 'opps' is not legal, legal are 'parity'"),
        ("[{use: numpy, measure: [time]}]", "backends[0].measure: 'time' is not measured in this suite, legal are"),
        ("[{use: numpy, measure: [ops, ops]}]", "backends[0].measure: 'ops' comes twice"),
        ("[torch, {use: numpy, measure: [ops, time]}]", "backends[1].measure: 'time' is not measured in this suite"),
        ("[numpy, {use: numpy, measure: [ops]}]", "suite.yaml:backends: 'numpy' comes twice"),
    ],
)
def test_bad_backends_are_refused_where_they_stand(load, backends, says):
    """Also where a mapping asks for more than the suite measures."""
    with pytest.raises(BadInput) as caught:
        load(f"dataset: mnist\nbackends: {backends}\nmeasure: [ops, accuracy]")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("measure: [ops, ops]", "suite.yaml:measure: 'ops' comes twice"),
        ("seeds: [1, 2, 1]", "suite.yaml:seeds: 1 comes twice; every value makes cases of its own"),
    ],
)
def test_values_that_come_twice_are_refused(load, line, says):
    """Each would make the same cases again."""
    with pytest.raises(BadInput) as caught:
        load(f"dataset: mnist\n{BACKENDS}{line}")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "backends", "valid"),
    [
        ("mnist", "[numpy]", True),
        ("{name: mnist, test_limit: 3}", "[{use: numpy}]", True),
        ("[mnist, {name: toys, transform: {resize: 28}}]", "[numpy, {use: torch, measure: [ops]}]", True),
        ("[[mnist]]", "[numpy]", False),
        ("{nam: mnist}", "[numpy]", False),
        ("[mnist, {name: toys, nosuch: 1}]", "[numpy]", False),
        ("mnist", "[{us: numpy}]", False),
        ("mnist", "[{use: numpy, measure: []}]", False),
        ("mnist", "[{use: numpy, measure: [opps]}]", False),
    ],
)
def test_the_published_schema_takes_what_is_read(dataset, backends, valid):
    """JSON Schema and reader agree on what a suite may say; a suite that was read fits the schema when written out."""
    text = f"dataset: {dataset}\nbackends: {backends}{REST}"
    validator = jsonschema.Draft202012Validator(json_schema(Suite))
    assert validator.is_valid(yaml.safe_load(text)) == valid
    if valid:
        suite = parse(text, Suite, "suite.yaml")
        validator.validate(json.loads(json.dumps(plain(suite))))
        assert parse(json.dumps(plain(suite)), Suite, "again.yaml") == suite
    else:
        with pytest.raises(BadInput):
            parse(text, Suite, "suite.yaml")


@pytest.mark.parametrize(
    ("networks", "says"),
    [
        ("[3]", "suite.yaml:5:networks[0]: input should be a valid string, not 3"),
        (
            "[{us: em-tiny}]",
            "networks[0].us: unknown key 'us', legal are backends, batch, name, set, train, use; did you mean 'use'",
        ),
        ("[{use: em-tiny, batch: []}]", "suite.yaml:5:networks[0].batch: tuple should have at least 1 item"),
        ("[{use: em-tiny, batch: [0]}]", "suite.yaml:5:networks[0].batch[0]: input should be greater than or equal"),
        ("[cnn-tiny, {use: em-tiny, batch: [4, 4]}]", "suite.yaml:networks[1].batch: 4 comes twice"),
        ("[em-tiny, {use: em-tiny, batch: [4]}]", "suite.yaml:networks: 'em-tiny' comes twice"),
        ("[em-tiny, {use: cnn-tiny, name: em-tiny}]", "suite.yaml:networks: 'em-tiny' comes twice"),
        (
            "[{use: em-tiny, set: {routing.iterations: 1}}]",
            "suite.yaml:networks[0].name: a network with other values needs a name of its own",
        ),
    ],
)
def test_bad_networks_are_refused_where_they_stand(tmp_path, networks, says):
    """A network with batch sizes of its own is checked like the rest of the file."""
    path = tmp_path / "suite.yaml"
    path.write_text(f"name: t\ndataset: mnist\nbackends: [numpy]\nbatch: [8]\nnetworks: {networks}\n", encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        load_suite(path)
    assert says in str(caught.value)


def test_networks_with_their_batch_sizes(tmp_path):
    """A network without sizes of its own has the suite's."""
    path = tmp_path / "suite.yaml"
    networks = "[em-tiny, {use: cnn-tiny, batch: [2, 4]}]"
    path.write_text(f"name: t\ndataset: mnist\nbackends: [numpy]\nbatch: [8]\nnetworks: {networks}\n", encoding="utf-8")
    assert [(each.use, each.batch) for each in load_suite(path).choices()] == [("em-tiny", (8,)), ("cnn-tiny", (2, 4))]
    assert jsonschema.Draft202012Validator(json_schema(Suite)).is_valid(yaml.safe_load(path.read_text("utf-8")))


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ("{stop_at_target: true}", "suite.yaml:train.stop_at_target: it needs a target_accuracy beside it"),
        ("{target_accuracy: 98.5}", "train.target_accuracy"),
        ("{validation: 1.0}", "train.validation"),
        ("{early_stop: {patience: 0}}", "train.early_stop.patience"),
        ("{clip_norm: -1}", "train.clip_norm"),
        ("{optimizer: {name: adamv}}", "adamw"),
        ("{learning_rate_schedule: {kind: steps, milestones: [1.0]}}", "milestones"),
        ("{learning_rate_schedule: {kind: steps, milestones: []}}", "milestones"),
        ("{optimizer: {name: adam, nesterov: true}}", "nesterov"),
    ],
)
def test_impossible_trainings_are_refused(load, train, says):
    """What cannot be meant is refused where it stands."""
    with pytest.raises(BadInput) as error:
        load(f"{BACKENDS}dataset: mnist\ntrain: {train}")
    assert says in str(error.value)


def test_trainings_are_read_whole(load):
    """Every key of the training guide, with defaults for what is left out."""
    suite = load(
        f"{BACKENDS}dataset: mnist\n"
        "train: {epochs: 9, optimizer: {name: adamw}, learning_rate_schedule: {kind: steps}, warm_up: 0.1,"
        " clip_norm: 5, validation: 0.1, early_stop: {}, target_accuracy: 0.98, evaluate_every: 50,"
        " stop_at_target: true}"
    )
    assert suite.train == TrainChoice(
        epochs=9,
        optimizer=AdamW(),
        learning_rate_schedule=StepDecay(),
        warm_up=0.1,
        clip_norm=5.0,
        validation=0.1,
        early_stop=EarlyStop(patience=3, least_gain=0.001),
        target_accuracy=0.98,
        evaluate_every=50,
        stop_at_target=True,
    )


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ("0", "devices: input should be greater than or equal to 1"),
        ("two", "devices: input should be a valid integer"),
        ("[1, 2, 1]", "devices: 1 comes twice"),
        ("[]", "devices: tuple should have at least 1 item"),
        ("[1, 65]", r"devices\[1\]: input should be less than or equal to 64"),
    ],
)
def test_counts_of_devices_are_whole_and_different(tmp_path, devices, said):
    """What is no number of devices is refused where it stands."""
    path = tmp_path / "suite.yaml"
    text = "name: a\ndataset: mnist\nnetworks: [em-tiny]\nbackends: [torch]\nbatch: [8]\n"
    path.write_text(f"{text}devices: [1, 4]\n")
    assert load_suite(path).device_counts() == (1, 4)
    path.write_text(f"{text}devices: {devices}\n")
    with pytest.raises(BadInput, match=said):
        load_suite(path)
