"""Small networks, their batches and realizations, for the tests beside this file."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from small_networks import two_batches

from capsbench.backend import Setting, Step
from capsbench.network import zoo
from capsbench.network.initial import He, Normal, Uniform
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
from capsbench.network.network import Network
from capsbench.network.objective import CrossEntropy, MarginLoss, Objective, Reconstruction
from capsbench.network.parameters import draw_parameters, dropout_masks
from capsbench.network.routing import AgreementRouting, SelfAttentionRouting, SelfRouting, VBRouting
from capsbench.network.shapes import BoundNetwork, bind
from capsbench.worker.gate import judge
from capsbench_tensorflow.backend import BACKEND

ZOO = zoo.names()
# Networks that take their time: the least images on which every layer still has several places, but for em-ibm:
# there, rounding in float32 is larger on less.
SMALLER = {
    **dict.fromkeys(("em-paper", "em-official"), (22, 22, 2)),
    **dict.fromkeys(("em-68k", "em-tuned", "em-ibm", "vb"), (22, 22, 1)),
    **dict.fromkeys(("dynamic", "dynamic-small"), (20, 20, 1)),
    "em-yl": (18, 18, 1),
    **dict.fromkeys(("self-routing", "cnn-residual"), (14, 14, 1)),
}
# One of each formulation, and every kind of layer, at little cost; the others are larger ones of the same.
SMALL = {"em-tiny", "dynamic-small", "efficient", "vb", "self-routing", "cnn-tiny", "cnn-seed", "cnn-residual"}
# Of one image, or two, a normalisation of class capsules would leave nothing.
BATCHES = {"vb": 4}
VARIANTS = {
    "all_positions": {"competition": "all_positions", "iterations": 3},
    "shifted": {"densities": "shifted", "iterations": 3, "coordinates": "appended", "coordinate_unit": "image"},
    "softmax": {"activation": "softmax", "cost_scale": 1.0, "coordinates": "first_row"},
    "mass": {"interim_activation": "softmax_of_mass", "beta_u": "element", "renormalise_input": True},
    "damped": {"damping": 0.1, "iterations": 3, "beta_a_scale": -20.0, "coordinate_unit": "centred_pixels"},
    "damped_shifted": {"damping": 0.2, "iterations": 3, "densities": "shifted", "beta_u": "element"},
    "uneven_start": {"competition": "all_positions", "first_assignments": "position", "beta_u_scale": 1.4},
    "one_m_step": {"iterations": 1, "coordinates": "none"},
}
BAYES = {
    "published": {"normalisation": Normalisation(epsilon=1e-2)},
    "position": {"competition": "position", "iterations": 2, "coordinates": "none"},
    "priors": {"prior_alpha": 0.3, "prior_kappa": 2.0, "prior_nu": 15.5, "prior_psi": 0.4, "density_floor": 1e-3},
    "one_step": {"iterations": 1, "coordinate_unit": "grid", "density_floor": 0.0},
}
# Routing, primary capsules and class capsules of vector networks.
VECTORS = {
    "agreement": (AgreementRouting(), {}, {}),
    "last": (AgreementRouting(iterations=4, gradient="last"), {"squash": "exponential"}, {"squash": "exponential"}),
    "one_sum": (AgreementRouting(iterations=1), {"stride": 2, "elements": 3}, {"elements": 5}),
    "attention": (SelfAttentionRouting(), {"depthwise": True, "squash": "exponential"}, {"squash": "exponential"}),
}
# Capsule layers of networks that route themselves.
SELF_ROUTED = {
    "padded": {"kernel": 3, "stride": 2, "padding": 1},
    "strided": {"kernel": 2, "padding": "same", "elements": 5},
    "whole": {"kernel": 1, "capsules": 1},
}
BESIDE_SUITES = Path(__file__).parents[2] / "suites" / "networks"
STEP = Step(number=0, learning_rate=1e-3, margin=0.4)


@dataclass(frozen=True)
class Case:
    bound: BoundNetwork
    images: Any
    labels: Any
    masks: Any
    parameters: Any

    def realize(self, mode="graph", precision="float32"):
        """A fresh realization and the batch placed for it."""
        realization = BACKEND.realize(self.bound, self.parameters, Setting(mode, "cpu", precision, 2))
        return realization, realization.place(self.images, self.labels, self.masks)

    def judged(self, mode):
        """Its parity with the oracle in float32, as the gate before timing sees it."""
        given = {"parameters": self.parameters, "images": self.images, "labels": self.labels}
        given["training"] = two_batches(self.bound)
        return judge(BACKEND, self.bound, Setting(mode, threads=2), **given, drawn=True, seed=0)


@cache
def zoo_network(name):
    """A network by its name in the zoo, or in the folder of networks beside the suites."""
    return zoo.load(name if name in zoo.names() else str(BESIDE_SUITES / f"{name}.yaml"))


def variant(name, **changes):
    """em-tiny with other fields of its routing."""
    network = zoo_network("em-tiny")
    return replace(network, routing=replace(network.routing, **{**VARIANTS[name], **changes}))


def bayes_network(name):
    """A small network routed by variational Bayes."""
    routing = VBRouting(**BAYES[name])
    return Network(
        name=name,
        layers=(
            Conv(name="conv1", channels=4, kernel=3, stride=2),
            PrimaryCapsules(name="primary", capsules=2, biases=False, normalisation=routing.normalisation),
            ConvCapsules(name="caps", capsules=3, kernel=3, transform_std=0.5),
            ClassCapsules(name="class_caps", transform_std=0.5),
        ),
        routing=routing,
        objective=Objective(loss=CrossEntropy(), reconstruction=Reconstruction(hidden=(6,))),
    )


def vector_network(name):
    """A small network of capsules that are vectors."""
    routing, primary, classes = VECTORS[name]
    return Network(
        name=name,
        layers=(
            Conv(name="conv1", channels=8, kernel=3, stride=2, initial_weights=He(), biases=name != "last"),
            BatchNorm(name="norm1", activation="relu"),
            VectorCapsules(
                name="primary",
                initial_weights=Normal(std=0.5),
                **{"capsules": 2, "elements": 4, "kernel": 3, **primary},
            ),
            ClassVectors(name="class_caps", transform_std=0.5, **classes),
        ),
        routing=routing,
        objective=Objective(loss=MarginLoss(), reconstruction=Reconstruction(hidden=(6,))),
    )


def self_routed_network(name):
    """A small network that routes itself; above primary capsules that are convolved where all its poses are let be."""
    bare = name == "whole"
    first = (
        Conv(name="conv1", channels=10, kernel=3, stride=2, biases=False, activation="linear"),
        BatchNorm(name="norm1"),
        MapCapsules(name="primary", capsules=2, elements=4),
    )
    caps = {"capsules": 3, "elements": 4, "initial_transforms": Uniform(limit=0.5), **SELF_ROUTED[name]}
    return Network(
        name=name,
        layers=(
            *((PrimaryCapsules(name="primary", capsules=2, stride=2),) if bare else first),
            SelfRoutedCapsules(name="caps", **caps),
            *(() if bare else (BatchNorm(name="norm2", activation="relu"),)),
            SelfRoutedClasses(name="class_caps"),
        ),
        routing=SelfRouting(),
        objective=Objective(loss=CrossEntropy()),
    )


def residual_network(stride, size):
    """A small residual network."""
    return Network(
        name="blocks",
        layers=(
            Residual(name="block1", channels=3, stride=stride),
            Residual(name="block2", channels=3),
            AveragePool(name="pool", size=size),
            Dense(name="logits", units="classes", activation="linear"),
        ),
        objective=Objective(loss=CrossEntropy()),
    )


def case_of(network, batch, image=(28, 28, 1), classes=10):
    bound = bind(network, image, classes)
    generator = np.random.default_rng(7)
    parameters = draw_parameters(bound, 3)
    for name, value in parameters.items():
        # Biases and offsets start at zero, where errors in their gradients' scale could hide.
        if not value.any():
            parameters[name] = generator.normal(0.0, 0.1, value.shape).astype(np.float32)
    images = generator.random((batch, *image), dtype=np.float32)
    return Case(bound, images, generator.integers(0, classes, batch), dropout_masks(bound, batch, 0, 0), parameters)


def relative_error(value, reference):
    """Largest difference over largest magnitude."""
    difference = np.abs(np.asarray(value, np.float64) - reference).max()
    return float(difference / max(np.abs(reference).max(), 1e-300))


def tensors(output):
    return [tensor for tensor in (output.scores, output.activations, output.poses) if tensor is not None]
