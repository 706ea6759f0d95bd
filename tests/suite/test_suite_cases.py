"""From a suite to its cases: the product of its axes, each point a case with an id of its own."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.dataset.transform import Transform
from capsbench.errors import BadInput
from capsbench.network.hashing import content_hash
from capsbench.network.text import plain
from capsbench.suite import cases as cases_module
from capsbench.suite.cases import comparable_group, expand, select
from capsbench.suite.schema import MEASURES, BackendChoice, DatasetChoice, NetworkChoice, Suite, TrainChoice

MODES = {"numpy": ("float64",), "torch": ("eager", "tiled"), "tensorflow": ("graph", "tiled")}
PATH = Path("suite.yaml")
TOYS = DatasetChoice(name="toys", train_limit=50)


def suite_of(**changes):
    """A small suite."""
    suite = Suite(name="tests", dataset="mnist", networks=("em-tiny",), backends=("torch",), batch=(8,), device="cpu")
    return replace(suite, **changes)


def subsets(values):
    """Some of the values, at least one, in any order."""
    return st.lists(st.sampled_from(values), min_size=1, unique=True).map(tuple)


def test_a_network_may_have_backends_and_training_of_its_own():
    """They stand in place of the suite's, measured as the suite measures them; other backends from outside end that."""
    tiled = BackendChoice(use="tensorflow:tiled", measure=("ops",))
    own = NetworkChoice(use="em-tiny", backends=("tensorflow:tiled", "numpy"), train=TrainChoice(epochs=7))
    suite = suite_of(networks=(own, "cnn-tiny"), backends=("torch", tiled))
    cases = expand(suite, PATH, MODES)
    assert [(case.network.name, f"{case.backend}:{case.mode}", case.measure, case.train.epochs) for case in cases] == [
        ("em-tiny", "tensorflow:tiled", ("ops",), 7),
        ("em-tiny", "numpy:float64", MEASURES, 7),
        ("cnn-tiny", "torch:eager", MEASURES, 1),
        ("cnn-tiny", "tensorflow:tiled", ("ops",), 1),
    ]
    assert suite.uses() == ("tensorflow:tiled", "numpy", "torch")
    outside = expand(suite.with_backends(["torch:tiled"]), PATH, MODES)
    assert [(case.network.name, case.mode, case.train.epochs) for case in outside] == [
        ("em-tiny", "tiled", 7),
        ("cnn-tiny", "tiled", 1),
    ]
    with pytest.raises(BadInput, match="unknown mode of torch 'tild'"):
        expand(suite_of(networks=(NetworkChoice(use="em-tiny", backends=("torch:tild",)),)), PATH, MODES)


def test_a_network_may_be_varied():
    """Values that a suite sets make another network, under its own name; a path that leads nowhere is refused there."""
    short = NetworkChoice(use="em-tiny", name="em-short", set={"routing.iterations": 1, "recipe.clip_norm": 5})
    plain, varied = expand(suite_of(networks=("em-tiny", short)), PATH, MODES)
    assert varied.id.startswith("em-short.mnist.torch-eager.b8.i1.s0-")
    assert varied.recipe.clip_norm == 5.0
    assert replace(varied.network.routing, iterations=2) == plain.network.routing
    wrong = NetworkChoice(use="em-tiny", name="em-short", set={"routing.iteration": 1})
    with pytest.raises(BadInput, match=r"suite\.yaml:networks\[1\]\.set: routing\.iteration: unknown key"):
        expand(suite_of(networks=("cnn-tiny", wrong)), PATH, MODES)


@given(
    datasets=subsets(("mnist", TOYS, DatasetChoice(name="toys"))),
    networks=subsets(("em-tiny", "cnn-tiny")),
    backends=subsets(("torch:eager", "tensorflow", BackendChoice(use="tensorflow:tiled", measure=("ops",)))),
    batch=subsets((4, 8)),
    seeds=subsets((0, 1)),
)
def test_cases_are_the_product_of_the_axes(datasets, networks, backends, batch, seeds):
    """One case a point, all ids different, in the order of the axes: data sets, networks, batch, seeds, backends."""
    suite = suite_of(dataset=datasets, networks=networks, backends=backends, batch=batch, seeds=seeds)
    cases = expand(suite, PATH, MODES)
    uses = [use if ":" in use else f"{use}:{MODES[use][0]}" for use, _ in suite.realizations()]
    points = [(c.dataset, c.network.name, c.batch, c.seed, f"{c.backend}:{c.mode}") for c in cases]
    assert points == list(product([choice.use() for choice in suite.datasets()], networks, batch, seeds, uses))
    assert len({case.id for case in cases}) == len(cases)


def test_a_network_may_have_batch_sizes_of_its_own():
    """They stand in place of the suite's, for this network only."""
    suite = suite_of(networks=(NetworkChoice(use="em-tiny", batch=(2, 3)), "cnn-tiny"), batch=(8,))
    assert [(case.network.name, case.batch) for case in expand(suite, PATH, MODES)] == [
        ("em-tiny", 2),
        ("em-tiny", 3),
        ("cnn-tiny", 8),
    ]


@given(
    datasets=subsets(("mnist", TOYS, DatasetChoice(name="toys"))),
    networks=subsets(("em-tiny", "cnn-tiny")),
    batch=subsets((4, 8)),
)
def test_only_cases_that_can_be_compared_take_turns(datasets, networks, batch):
    """Two cases share a group exactly where they differ in backend and mode only."""
    cases = expand(
        suite_of(dataset=datasets, networks=networks, backends=("torch", "torch:tiled"), batch=batch), PATH, MODES
    )
    for one, other in product(cases, cases):
        same = (one.dataset, one.network, one.batch) == (other.dataset, other.network, other.batch)
        assert (comparable_group(one) == comparable_group(other)) == same


def test_a_case_is_measured_as_its_backend_says():
    """A narrowed realization has its own measure, and the id says that it is another case."""
    whole = expand(suite_of(backends=("torch:tiled", "torch:eager")), PATH, MODES)
    narrow = expand(suite_of(backends=(BackendChoice(use="torch:tiled", measure=("ops",)), "torch:eager")), PATH, MODES)
    assert [case.measure for case in narrow] == [("ops",), MEASURES]
    assert [case.measure for case in whole] == [MEASURES, MEASURES]
    assert narrow[0].id != whole[0].id
    assert narrow[1].id == whole[1].id


def test_ids_follow_what_defines_a_case():
    """Naming a data set alone or in a list, or a backend as text or mapping, makes the same case; a limit another."""
    [case] = expand(suite_of(), PATH, MODES)
    [listed] = expand(suite_of(dataset=("mnist",), backends=(BackendChoice(use="torch"),)), PATH, MODES)
    [limited] = expand(suite_of(dataset=DatasetChoice(name="mnist", train_limit=9)), PATH, MODES)
    assert listed == case
    assert limited.id != case.id
    assert case.id.startswith("em-tiny.mnist.torch-eager.b8.i2.s0-")


def test_an_id_ends_in_the_hash_of_everything_that_defines_the_case():
    """What cases share is written out once, and the hash is that of all of it."""
    [case] = expand(suite_of(), PATH, MODES)
    protocol = (content_hash(case.network), plain((case.dataset, case.train, case.time, case.limits), defaults=True))
    sizes = (case.backend, case.mode, case.device, case.batch, case.seed, case.threads, case.precision, case.allocator)
    assert case.id.endswith(f"-{content_hash((protocol, (*sizes, case.measure)))[:8]}")


def test_more_seeds_write_no_network_or_data_set_out_again(monkeypatch):
    """Networks, data sets and trainings become plain data once, however many cases have them."""
    counts = []
    written = []
    monkeypatch.setattr(cases_module, "plain", lambda *a, **k: written.append(a) or plain(*a, **k))
    for seeds in (1, 50):
        written.clear()
        assert len(expand(suite_of(seeds=tuple(range(seeds))), PATH, MODES)) == seeds
        counts.append(len(written))
    assert counts[0] == counts[1]


def test_every_data_set_is_checked():
    """An unknown data set, and a network that does not fit one of several, are refused with the file's name."""
    with pytest.raises(BadInput, match=r"suite\.yaml:dataset: unknown data set 'minst'.*did you mean 'mnist'"):
        expand(suite_of(dataset=("toys", "minst")), PATH, MODES)
    tiny = DatasetChoice(name="toys", transform=Transform(resize=4))
    with pytest.raises(BadInput, match=r"suite\.yaml:networks: .*\(data set toys\)"):
        expand(suite_of(dataset=("mnist", tiny)), PATH, MODES)
    cropped = DatasetChoice(name="mnist", transform=Transform(crop=99))
    with pytest.raises(BadInput, match=r"suite\.yaml:dataset: transform: crop 99"):
        expand(suite_of(dataset=cropped), PATH, MODES)


def test_select_takes_id_network_and_mode():
    """A glob on any of the three; one that matches nothing is refused."""
    cases = expand(suite_of(dataset=("mnist", "toys"), backends=("torch", "torch:tiled")), PATH, MODES)
    assert select(cases, None) == cases
    assert [case.dataset.name for case in select(cases, "torch:tiled")] == ["mnist", "toys"]
    assert len(select(cases, "*.toys.*")) == 2
    assert len(select(cases, "em-*")) == 4
    with pytest.raises(BadInput, match="no case matches 'x'"):
        select(cases, "x")


def test_devices_are_an_axis():
    """One number or several; ids of cases on one device are those they have without it."""
    plain = expand(suite_of(), PATH, MODES)
    one, two = expand(suite_of(devices=(1, 2)), PATH, MODES)
    assert (one,) == plain == expand(suite_of(devices=1), PATH, MODES)
    assert one.id == "em-tiny.mnist.torch-eager.b8.i2.s0-a92e5e99"
    assert two.id.startswith("em-tiny.mnist.torch-eager.b8.d2.i2.s0-")
    assert (two.setting.devices, two.key().devices, two.key().realization) == (2, 2, "torch:eager ×2")
    assert two.on_one_device().setting == one.setting
    assert comparable_group(one) == comparable_group(two)
    with pytest.raises(BadInput, match=r"suite.yaml:devices: a batch of 4 is too small for 8 devices: each needs"):
        expand(suite_of(batch=(16, 4), devices=(1, 8)), PATH, MODES)


def test_a_suite_of_too_many_cases_is_refused_before_they_are_made(monkeypatch):
    """A few lines that stand for billions of cases are one sentence, and no case is made for it."""
    monkeypatch.setattr(cases_module, "_case", None)
    with pytest.raises(BadInput, match=r"it stands for up to 8,000,000,000 cases, at most 1,000,000 are run at once"):
        expand(suite_of(batch=tuple(range(1, 80_001)), seeds=tuple(range(100_000))), PATH, MODES)
