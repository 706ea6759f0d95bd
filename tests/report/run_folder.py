"""A run on disk as capsbench leaves it, made by hand: profiled steps, histories, histograms, routing, failures."""

import json

import numpy as np

from capsbench.measure.distribution import RoutingIteration
from capsbench.measure.histogram import Counter, write_histograms
from capsbench.measure.optable import LiveTensor, OpEvent
from capsbench.network.cost import LayerCost
from capsbench.record.schema import CaseKey, Fingerprint, Record
from capsbench.store.runs import create

LAYERS = ("relu_conv1", "primary_caps", "conv_caps1", "conv_caps2", "class_caps")
ROUTED = LAYERS[2:]
MB = 1_000_000
_OPS = {"Tile": 326, "Mul": 513, "BatchMatMul": 297, "Sub": 164, "Sum": 21, "Exp": 9, "Log": 8, "Div": 6, "Sigmoid": 4}
_FINGERPRINT = Fingerprint(network="0" * 16, protocol="1" * 16, environment="2" * 16)


def key(network="em-seed", backend="torch", mode="eager", **changes):
    """A case whose id tells what it is."""
    fields = {
        "dataset": "mnist",
        "device": "cpu",
        "batch": 50,
        "routing_iterations": 2,
        "seed": 0,
        "threads": 2,
        "precision": "float32",
        "allocator": "default",
        **changes,
    }
    name = f"{network}.{fields['dataset']}.{backend}-{mode}.b{fields['batch']}.i{fields['routing_iterations']}"
    fields.setdefault("id", f"{name}.s{fields['seed']}")
    return CaseKey(network=network, backend=backend, mode=mode, **fields)


def equations(layers=LAYERS):
    """What each layer must cost, in the network's order."""
    return tuple(
        LayerCost(
            layer=layer,
            output="12 x 12 x 32",
            parameters=1000,
            forward_flops=10**8,
            train_step_flops=3 * 10**8,
            forward_least_bytes=MB,
            train_step_least_bytes=3 * MB,
            vote_bytes=0,
        )
        for layer in layers
    )


def events(scale=1.0, layers=LAYERS):
    """Ops of a train step: every layer's, forward and backward, the optimizer's, and views."""
    made = []
    for number, layer in enumerate(layers):
        for phase, factor in (("forward", 1.0), ("backward", 2.0)):
            for op, size in _OPS.items():
                weight = scale * factor / (1 + (number - 2) ** 2)
                size_bytes = int(size * MB * weight / 4)
                seconds = size * weight * (3e-4 if op == "BatchMatMul" else 2e-5)
                native = f"aten::{op.lower()}"
                made.append(OpEvent(op, native, layer, phase, None, 3, seconds, size_bytes, size_bytes // 3))
    made.append(OpEvent("View", "aten::view", layers[0], "forward", None, 50, 0.001, 0))
    made.append(OpEvent("Adam", "aten::_foreach_add_", None, "optimizer", None, 8, 0.004 * scale, 2 * MB, MB))
    return tuple(made)


def routing(iterations=3, shift=0.0):
    """Children decide, votes draw nearer, parents starve."""
    return tuple(
        RoutingIteration(
            layer=layer,
            iteration=i,
            coupling_entropy=max(0.0, 1.0 - (0.2 + 0.1 * number + shift) * i),
            agreement_gain=(0.15 + 0.1 * number + shift) * i,
            starved_share=0.02 * i * (number + 1),
        )
        for number, layer in enumerate(ROUTED)
        for i in range(iterations)
    )


def record(case=None, *, scale=1.0, status="ok", **changes):
    """A record with everything that figures show."""
    ops = events(scale)
    live = sum(event.live_bytes_at_peak for event in ops)
    alive = (
        LiveTensor("parameters", None, None, None, None, 8, 4 * MB),
        LiveTensor(None, "Mul", "x", "forward", None, 9, live),
    )
    fields = {
        "run": "20261123T021348Z-3f9a2c",
        "case": case or key(),
        "status": status,
        "ops": ops,
        "step_profile_seconds": sum(event.self_seconds for event in ops) + 0.01,
        "step_profile_bytes": sum(event.allocated_bytes for event in ops) + 5 * MB,
        "step_bare_seconds": 0.2,
        "alive_at_peak": alive,
        "equations": equations(),
        "routing": routing(),
        "fingerprint": _FINGERPRINT,
    }
    return Record(**{**fields, **changes})


def failed(case, status="oom"):
    """The record of a case that came to nothing."""
    nothing = {"ops": (), "step_profile_seconds": None, "step_profile_bytes": None, "step_bare_seconds": None}
    return record(case, status=status, reason="it did not fit", alive_at_peak=(), equations=(), routing=(), **nothing)


def write_history(artifacts, epochs=5, accuracy=0.97, loss=0.3):
    """A training that gets better, slower and slower."""
    history = [
        {
            "epoch": epoch,
            "train_loss": loss / epoch,
            "losses": [loss / epoch] * 3,
            "test_accuracy": accuracy - 0.3 / (epoch + 1) ** 2,
            "learning_rate": 1e-3 * 0.9**epoch,
            "margin": min(0.9, 0.2 + 0.1 * epoch),
            "seconds": 10.0 + epoch,
            "evaluation_seconds": 2.0,
        }
        for epoch in range(1, epochs + 1)
    ]
    (artifacts / "history.json").write_text(json.dumps({"epochs": history}), encoding="utf-8")


def write_values(artifacts, width=1.0, seed=0, layers=LAYERS[1:]):
    """Histograms of sparse activations and bell-shaped poses, wider with `width`, in the network's order."""
    generator = np.random.default_rng(seed)
    found = {}
    for number, layer in enumerate(layers):
        drawn = {
            "activations": generator.beta(0.3 / (number + 1), 2.0, (50, 400)),
            "poses": generator.normal(0.1, width / (number + 1), (50, 1600)),
            "votes": generator.normal(0.0, 2 * width, (50, 800)),
        }
        for quantity, values in drawn.items():
            if quantity != "votes" or layer in ROUTED:
                counter = Counter()
                counter.add(values)
                found[layer, quantity] = counter.histogram()
    write_histograms(artifacts / "histograms.npz", found)


def run(folder):
    """A whole run: two backends, two data sets, two seeds, a CNN, one case that diverged, one that never began."""
    store = create(folder, {"started": "2026-11-23T02:13:48+00:00", "suites": []})
    cases = {
        key(): (1.0, 0.975),
        key(seed=1): (1.0, 0.968),
        key(backend="tensorflow", mode="graph"): (1.3, 0.971),
        key(dataset="toys"): (1.0, 0.91),
        key(network="cnn-seed", routing_iterations=None): (0.2, 0.985),
    }
    for number, (case, (scale, accuracy)) in enumerate(cases.items()):
        capsules = case.routing_iterations is not None
        store.append(record(case, scale=scale, routing=routing(shift=0.02 * number) if capsules else ()))
        artifacts = store.artifacts(case.id)
        write_history(artifacts, accuracy=accuracy)
        if capsules:
            write_values(artifacts, 2.0 if case.dataset == "toys" else 1.0, seed=number)
    diverged = key(backend="torch", mode="compile")
    store.append(failed(diverged, "diverged"))
    write_history(store.artifacts(diverged.id), epochs=2, accuracy=0.8)
    store.append(failed(key(batch=1000)))
    return store
