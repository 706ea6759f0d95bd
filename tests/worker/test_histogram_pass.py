# ruff: noqa: D102, ARG002 - the methods of a test double have the arguments of what they stand for
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from conftest import make_case

from capsbench import plugins
from capsbench.backend import LayerState, RoutingState, Setting
from capsbench.dataset.batches import fixed_batch
from capsbench.measure.ceilings import Ceilings
from capsbench.measure.distribution import SPARSE_BELOW
from capsbench.measure.histogram import read_histograms
from capsbench.network import zoo
from capsbench.network.parameters import draw_parameters
from capsbench.suite.schema import DatasetChoice
from capsbench.worker.histograms import VOTE_IMAGES, measure_histograms
from capsbench.worker.messages import (
    AccuracyJob,
    ArtifactsPart,
    CeilingsJob,
    CeilingsPart,
    DistributionsPart,
    Done,
    MetricsPart,
    NotesPart,
    Place,
    Progress,
)
from capsbench.worker.prepare import prepare
from capsbench.worker.stages import run

INITIAL = "histograms: of the initial parameters, because accuracy was not measured"


def part_of(sent, kind):
    (part,) = [part for part in sent if isinstance(part, kind)]
    return part


def notes_of(sent):
    return [note for part in sent if isinstance(part, NotesPart) for note in part.notes]


@pytest.fixture
def train(mnist_root, tmp_path):
    """A function that does the accuracy job of a case and returns what was sent."""

    def train(*measure, **changes):
        place = Place(data_root=str(mnist_root), artifacts=str(tmp_path))
        sent = []
        job = AccuracyJob(case=make_case(measure=measure, **changes), place=place)
        assert run(job, sent.append) == Done(status="ok")
        return sent

    return train


@pytest.fixture
def look(mnist_root, tmp_path):
    """A function that looks into a realization of em-tiny and returns what was sent, and the prepared case."""

    def look(realize, **dataset):
        prepared = prepare(make_case(), Place(data_root=str(mnist_root)), lambda _message: None)
        case = replace(prepared.case, network=zoo.load("em-tiny"), dataset=DatasetChoice(name="mnist", **dataset).use())
        place = replace(prepared.place, artifacts=str(tmp_path))
        prepared = replace(prepared, case=case, bound=case.bind(), place=place)
        sent = []
        measure_histograms(prepared, realize(prepared), sent.append, trained=True)
        return sent, prepared

    return look


def test_the_trained_network_is_looked_at(train, mnist_root, tmp_path):
    """With accuracy measured, the numbers are those of the parameters that training leaves, over all test images."""
    sent = train("accuracy", "histograms")
    final = safetensors.numpy.load_file(tmp_path / "parameters.safetensors")
    prepared = prepare(make_case(), Place(data_root=str(mnist_root)), lambda _message: None)
    images = fixed_batch(prepared.split("test"), prepared.case.dataset.protocol.transform, batch=20).images
    scores = images.reshape(20, -1) @ final["logits.weights"] + final["logits.biases"]
    (found,) = part_of(sent, DistributionsPart).distributions
    assert (found.layer, found.quantity, found.images, found.count) == ("logits", "activations", 20, 200)
    assert found.mean == pytest.approx(scores.mean(), rel=1e-4)
    assert found.deviation == pytest.approx(scores.std(), rel=1e-4)
    assert found.dead_share == (abs(scores).max(0) < SPARSE_BELOW).mean()
    assert "accuracy" in part_of(sent, MetricsPart).metrics
    assert INITIAL not in notes_of(sent)


def test_the_bins_are_written(train, tmp_path):
    """histograms.npz holds the bins of what was sent, and is announced after it stands."""
    sent = train("histograms")
    assert part_of(sent, ArtifactsPart).files == ("histograms.npz",)
    ((key, histogram),) = read_histograms(tmp_path / "histograms.npz").items()
    (found,) = part_of(sent, DistributionsPart).distributions
    assert key == (found.layer, found.quantity)
    assert histogram.counts.sum() == found.count
    assert (histogram.low[0], histogram.high[-1]) == (found.least, found.greatest)
    assert [path.name for path in tmp_path.iterdir()] == ["histograms.npz"]


def test_without_accuracy_it_is_the_start(train):
    """Where nothing is trained, the initial parameters are looked at, and a note says so."""
    sent = train("histograms")
    assert INITIAL in notes_of(sent)
    assert not [part for part in sent if isinstance(part, MetricsPart)]
    trained = part_of(train("accuracy", "histograms"), DistributionsPart).distributions[0]
    assert part_of(sent, DistributionsPart).distributions[0].deviation != trained.deviation


def test_only_where_they_are_asked_for(train):
    """A case that measures accuracy only sends no distributions."""
    assert not [part for part in train("accuracy") if isinstance(part, DistributionsPart)]


def test_progress_is_told(train):
    """The pass is a stage of its own."""
    stages = [part.stage for part in train("histograms") if isinstance(part, Progress)]
    assert stages
    assert set(stages) == {"histograms"}


class Rows:
    """A realization of one layer that tells at which row of its batch an image stood; `change` alters its states."""

    def __init__(self, prepared, change=lambda state, _calls: state):
        self.change, self.calls, self.batches = change, 0, []

    def place(self, images, labels, masks):
        assert masks == {}
        return labels

    def inspect(self, placed, *, votes=False):
        self.calls += 1
        self.batches.append((len(placed), votes))
        row = np.arange(1.0, len(placed) + 1.0, dtype=np.float32)[:, None]
        state = LayerState(
            activations=np.tile(row, 16),
            poses=np.tile(row[..., None], (1, 3, 16)),
            votes=np.full((7, 3, 1), self.calls, np.float32) if votes else None,
            routing=RoutingState(row / 8 + [[0, 0]], row * [[4.0, 1.0]], row * [[0.0, 0.01]]),
        )
        return {"conv_caps1": self.change(state, self.calls)}


def test_filled_up_images_do_not_count(look, tmp_path):
    """Of 20 images in batches of 8, the last four rows of the last batch are counted nowhere."""
    sent, _ = look(Rows)
    found = {each.quantity: each for each in part_of(sent, DistributionsPart).distributions}
    rows = np.r_[1:9, 1:9, 1:5]
    assert (found["activations"].images, found["activations"].count) == (20, 20 * 16)
    assert (found["poses"].images, found["poses"].count) == (20, 20 * 3 * 16)
    assert found["activations"].mean == found["poses"].mean == pytest.approx(rows.mean())
    counts = read_histograms(tmp_path / "histograms.npz")["conv_caps1", "activations"].counts
    assert list(counts) == [16 * (rows == row).sum() for row in range(1, 9)]
    first, second = part_of(sent, DistributionsPart).routing
    assert (first.layer, first.iteration, second.iteration) == ("conv_caps1", 0, 1)
    assert first.coupling_entropy == pytest.approx(rows.mean() / 8)
    assert (first.agreement_gain, second.agreement_gain) == (0.0, pytest.approx(0.75))
    assert second.starved_share == pytest.approx(rows.mean() / 100)


@pytest.mark.parametrize(("limit", "count"), [(None, VOTE_IMAGES), (3, 3)])
def test_votes_are_those_of_a_few_images(look, limit, count):
    """Votes are asked for one image at a time, of the first eight or of all that there are."""
    realizations = []

    def realize(prepared):
        realizations.append(Rows(prepared))
        return realizations[0]

    sent, _ = look(realize, test_limit=limit)
    batches = realizations[0].batches
    assert [size for size, votes in batches if votes] == [1] * count
    assert {size for size, votes in batches if not votes} == {8}
    votes = part_of(sent, DistributionsPart).distributions[-1]
    assert (votes.quantity, votes.images, votes.count) == ("votes", count, count * 21)
    whole = len(batches) - count
    assert (votes.least, votes.greatest) == (whole + 1, whole + count)


def test_what_is_not_finite_is_left_out_and_told(look):
    """An image whose numbers are not finite is left out of that quantity only, and a note says how many were."""

    def spoil(state, calls):
        if calls == 2:
            state.activations[3, 0] = np.nan
            state.routing.vote_distance[2:4] = np.inf
        return state

    sent, _ = look(lambda prepared: Rows(prepared, spoil))
    found = {each.quantity: each for each in part_of(sent, DistributionsPart).distributions}
    assert (found["activations"].images, found["poses"].images) == (19, 20)
    first, _ = part_of(sent, DistributionsPart).routing
    assert first.coupling_entropy == pytest.approx((np.r_[1:9, 1:9, 1:5].sum() - 3 - 4) / 18 / 8)
    assert notes_of(sent) == [
        "histograms: activations of conv_caps1 are not finite everywhere, images left out: 1",
        "histograms: routing in conv_caps1 is not finite everywhere, images left out: 2",
    ]


def test_nothing_finite_is_no_distribution(look):
    """A quantity that is never finite has no distribution, and the others have theirs."""

    def spoil(state, calls):
        state.poses[...] = np.nan
        state.routing.coupling_entropy[...] = np.nan
        return state

    sent, _ = look(lambda prepared: Rows(prepared, spoil))
    part = part_of(sent, DistributionsPart)
    assert [each.quantity for each in part.distributions] == ["activations", "votes"]
    assert part.routing == ()


def test_a_capsule_network_from_end_to_end(look, tmp_path):
    """Of the oracle's em-tiny: every layer in order, and the numbers of all images looked at in one batch."""
    oracles = []

    def realize(prepared):
        parameters = draw_parameters(prepared.bound, 0)
        oracles.append(plugins.load("numpy").realize(prepared.bound, parameters, Setting("float64")))
        return oracles[0]

    sent, prepared = look(realize, test_limit=10)
    part = part_of(sent, DistributionsPart)
    keys = [(each.layer, each.quantity) for each in part.distributions]
    routed = [(layer, kind) for layer in ("conv_caps1", "class_caps") for kind in ("activations", "poses", "votes")]
    assert keys == [("conv1", "activations"), ("primary", "activations"), ("primary", "poses"), *routed]
    assert list(read_histograms(tmp_path / "histograms.npz")) == keys
    batch = fixed_batch(prepared.split("test"), prepared.case.dataset.protocol.transform, batch=10)
    states = oracles[0].inspect(oracles[0].place(batch.images, batch.labels, {}))
    for each in part.distributions:
        if each.quantity != "votes":
            values = getattr(states[each.layer], each.quantity)
            assert (each.images, each.count) == (10, values.size)
            assert each.mean == pytest.approx(values.mean(), rel=1e-5, abs=1e-7)
            assert each.deviation == pytest.approx(values.std(), rel=1e-5)
        assert (each.dead_share is None) == (each.quantity != "activations")
    for each in part.routing:
        state = states[each.layer].routing
        distance = state.vote_distance.mean(0)
        assert each.coupling_entropy == pytest.approx(state.coupling_entropy.mean(0)[each.iteration])
        assert each.agreement_gain == pytest.approx(1.0 - distance[each.iteration] / distance[0])
        assert each.starved_share == pytest.approx(state.starved_share.mean(0)[each.iteration])


def test_dead_types_are_counted_by_capsule_type(look):
    """A capsule type is dead that stays silent at all positions; conv_caps1 of em-tiny has eight types."""

    def silence(state, calls):
        state.activations[...] = 1.0
        state.activations[:, [0, 8, 5]] = 0.0  # type 0 at both positions, type 5 at one
        return state

    sent, prepared = look(lambda prepared: Rows(prepared, silence))
    types = next(layer.output.capsules for layer in prepared.bound.layers if layer.layer.name == "conv_caps1")
    assert types == 8
    assert part_of(sent, DistributionsPart).distributions[0].dead_share == 1 / 8


def test_ceilings_are_asked_of_the_backend():
    """A ceilings job sends what the backend says of the setting."""
    sent = []
    assert run(CeilingsJob(backend="fake", setting=Setting("fast")), sent.append) == Done(status="ok")
    assert sent == [CeilingsPart(ceilings=Ceilings(2e11, 1e10))]
