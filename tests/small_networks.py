"""Small networks that together have every layer, loss and optimizer, for tests of what is checked before timing."""

from dataclasses import replace
from functools import cache

import numpy as np

from capsbench.backend import Setting
from capsbench.dataset.batches import Batch
from capsbench.network import zoo
from capsbench.network.network import Network
from capsbench.network.parameters import draw_parameters
from capsbench.network.shapes import bind
from capsbench.network.text import parse
from capsbench.network.training import Adam, AdamW

IMAGE, CLASSES = (16, 16, 1), 10

_NORM = """
name: norm
layers:
- {kind: conv, name: conv1, channels: 8, kernel: 5, stride: 2, activation: linear}
- {kind: batch_norm, name: norm1, momentum: 0.9, activation: relu}
- {kind: residual, name: block1, channels: 12, stride: 2, momentum: 0.9}
- {kind: dense, name: logits, units: classes, activation: linear}
objective: {loss: {kind: cross_entropy}}
recipe: {optimizer: {name: sgd, learning_rate: 0.05, momentum: 0.9, weight_decay: 0.0005}}
"""
_VECTORS = """
name: vectors
layers:
- {kind: conv, name: conv1, channels: 16, kernel: 5, stride: 2}
- {kind: vector_capsules, name: primary, capsules: 4, kernel: 3, initial_weights: {kind: normal, std: 0.1}}
- {kind: class_vectors, name: class_caps}
routing: {kind: KIND}
objective: {loss: {kind: margin}, reconstruction: {hidden: [16]}}
recipe: {optimizer: {name: adam}}
"""
_SELF_ROUTING = """
name: self_routing
layers:
- {kind: conv, name: conv1, channels: 68, kernel: 5, stride: 3, activation: linear}
- {kind: map_capsules, name: primary, capsules: 4, elements: 16}
- {kind: self_routed_capsules, name: caps1, capsules: 4, kernel: 2}
- {kind: self_routed_classes, name: class_caps}
routing: {kind: self_routing}
objective: {loss: {kind: cross_entropy}}
recipe: {optimizer: {name: sgd, learning_rate: 0.05, momentum: 0.9, weight_decay: 0.0005}}
"""


def _written(text):
    return parse(text, Network, "small_networks")


def _with(network, name, **recipe):
    return replace(network, name=name, recipe=replace(network.recipe, **recipe))


@cache
def networks():
    """By name."""
    em, cnn = zoo.load("em-tiny"), zoo.load("cnn-tiny")
    routing = zoo.load("vb").routing
    return {
        "em": em,
        "cnn": cnn,
        "decay": _with(cnn, "decay", optimizer=Adam(weight_decay=1e-4)),
        "decoupled": _with(cnn, "decoupled", optimizer=AdamW()),
        "clipped": _with(cnn, "clipped", clip_norm=1.0),
        "norm": _written(_NORM),
        "agreement": _written(_VECTORS.replace("KIND", "agreement")),
        "attention": _written(_VECTORS.replace("KIND", "self_attention")),
        "self_routing": _written(_SELF_ROUTING),
        "vb": replace(em, name="vb", routing=replace(routing, iterations=2), objective=cnn.objective),
    }


def two_batches(bound, batch=2):
    """Images and labels of two batches for train steps of the gate, random pixels; small, for large networks."""
    shape = (2 * batch, bound.image.height, bound.image.width, bound.image.channels)
    images = np.random.default_rng(7).random(shape, dtype=np.float32)
    return Batch(images, np.arange(2 * batch) % bound.classes)


def judged(backend, name, setting=None, seed=0):
    """The verdict of the gate on a backend that realizes one of the networks; images are random pixels."""
    from capsbench.worker.gate import judge
    from capsbench.worker.parity import batch_size

    bound = bind(networks()[name], IMAGE, CLASSES)
    count = batch_size(bound)
    return judge(
        backend,
        bound,
        setting or Setting(next(iter(backend.modes))),
        parameters=draw_parameters(bound, seed),
        images=np.random.default_rng(seed).random((count, *IMAGE), dtype=np.float32),
        labels=np.arange(3, 3 + count) % CLASSES,
        drawn=True,
        seed=seed,
    )
