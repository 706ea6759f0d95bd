"""One pass over the test split that looks into the network: what its layers give out, and how routing goes there."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import LayerState, Realization, RoutingState
from capsbench.dataset.batches import fixed_batch, test_batches
from capsbench.dataset.loading import Split
from capsbench.measure.distribution import Quantity, RoutingIteration
from capsbench.measure.histogram import Counter, write_histograms
from capsbench.network.shapes import BoundNetwork, Capsules
from capsbench.worker.messages import ArtifactsPart, DistributionsPart, NotesPart, Progress
from capsbench.worker.pace import Pace
from capsbench.worker.prepare import Prepared, Send

STAGE = "histograms"
# Votes are many, and those of a few images look like those of all.
VOTE_IMAGES = 8


@dataclass(slots=True)
class _Routing:
    """Sums of what `RoutingState` says, over images: [iterations, 3]."""

    sums: NDArray[np.float64] | float = 0.0
    images: int = 0
    refused: int = 0

    def add(self, state: RoutingState, real: int) -> None:
        """Add the first `real` images of a batch; those with a number that is not finite are left out."""
        columns = (state.coupling_entropy, state.vote_distance, state.starved_share)
        numbers = np.stack([column[:real] for column in columns], axis=-1, dtype=np.float64)
        fine = np.isfinite(numbers).all(axis=(1, 2))
        self.sums = self.sums + numbers[fine].sum(axis=0)
        self.images += int(fine.sum())
        self.refused += int((~fine).sum())

    def iterations(self, layer: str) -> Iterator[RoutingIteration]:
        """The means, iteration by iteration."""
        if not self.images:
            return
        entropies, distances, starved = (np.asarray(self.sums) / self.images).T.tolist()
        for number, distance in enumerate(distances):
            yield RoutingIteration(
                layer=layer,
                iteration=number,
                coupling_entropy=entropies[number],
                agreement_gain=1.0 - distance / distances[0] if distances[0] else 0.0,
                starved_share=starved[number],
            )


@dataclass(slots=True)
class _Layer:
    """What was seen of one layer so far; its size does not depend on how many images there were."""

    activations: Counter
    poses: Counter = field(default_factory=Counter)
    votes: Counter = field(default_factory=Counter)
    routing: _Routing = field(default_factory=_Routing)

    def add(self, state: LayerState, real: int) -> None:
        """Count the first `real` images of a batch."""
        self.activations.add(state.activations[:real])
        if state.poses is not None:
            self.poses.add(state.poses[:real])
        if state.routing is not None:
            self.routing.add(state.routing, real)


_Layers = dict[str, _Layer]


def measure_histograms(prepared: Prepared, realization: Realization, send: Send, *, trained: bool) -> None:
    """Count what every layer gives out for the test images, send it, and write the bins.

    Args:
        prepared: the case.
        realization: with the parameters to look at.
        send: takes the messages.
        trained: whether these parameters are those that training has left.
    """
    test = prepared.split("test")
    layers = _layers(prepared.bound)
    _look_at_all(prepared, realization, test, layers, send)
    if any(layer.routing for layer in prepared.bound.layers):
        _look_at_votes(prepared, realization, test, layers)
    counted = {key: counter for key, counter in _counters(layers) if counter.count}
    send(
        DistributionsPart(
            distributions=tuple(counter.distribution(*key) for key, counter in counted.items()),
            routing=tuple(each for name, layer in layers.items() for each in layer.routing.iterations(name)),
        )
    )
    send(NotesPart(notes=tuple(_notes(layers, trained=trained))))
    if prepared.place.artifacts is not None:
        histograms = {key: counter.histogram() for key, counter in counted.items()}
        write_histograms(Path(prepared.place.artifacts) / "histograms.npz", histograms)
        send(ArtifactsPart(files=("histograms.npz",)))


def _layers(bound: BoundNetwork) -> _Layers:
    """Room for every layer, from the image upwards; activations alternate by capsule type or channel."""
    shapes = {layer.layer.name: layer.output for layer in bound.layers}
    types = {name: s.capsules if isinstance(s, Capsules) else s.channels for name, s in shapes.items()}
    return {name: _Layer(Counter(types=count)) for name, count in types.items()}


def _look_at_all(prepared: Prepared, realization: Realization, test: Split, layers: _Layers, send: Send) -> None:
    """All test images, once; those that only fill up the last batch do not count."""
    case, total, done, pace = prepared.case, len(test.labels), 0, Pace()
    send(Progress(stage=STAGE, done=0, total=total, detail="looking into the layers"))
    for batch, real in test_batches(test, prepared.transform("test"), batch=case.batch):
        for name, state in realization.inspect(realization.place(batch.images, batch.labels, {})).items():
            layers[name].add(state, real)
        done += real
        if pace.due():
            send(Progress(stage=STAGE, done=done, total=total, detail=f"looked at {done:,} of {total:,} images"))


def _look_at_votes(prepared: Prepared, realization: Realization, test: Split, layers: _Layers) -> None:
    """Votes of the first test images, one by one: votes have any shape, and only so is it known whose they are."""
    first = fixed_batch(test, prepared.transform("test"), batch=min(VOTE_IMAGES, len(test.labels)))
    for number in range(len(first.labels)):
        one = slice(number, number + 1)
        placed = realization.place(first.images[one], first.labels[one], {})
        for name, state in realization.inspect(placed, votes=True).items():
            if state.votes is not None:
                layers[name].votes.add(state.votes.reshape(1, -1))


def _counters(layers: _Layers) -> Iterator[tuple[tuple[str, Quantity], Counter]]:
    for name, layer in layers.items():
        yield (name, "activations"), layer.activations
        yield (name, "poses"), layer.poses
        yield (name, "votes"), layer.votes


def _notes(layers: _Layers, *, trained: bool) -> Iterator[str]:
    if not trained:
        yield "histograms: of the initial parameters, because accuracy was not measured"
    for (name, quantity), counter in _counters(layers):
        if counter.refused:
            yield f"histograms: {quantity} of {name} are not finite everywhere, images left out: {counter.refused:,}"
    for name, layer in layers.items():
        if layer.routing.refused:
            yield f"histograms: routing in {name} is not finite everywhere, images left out: {layer.routing.refused:,}"
