"""What repeats exactly: parity, counts from the network's equations, allocated memory, the profiled train step."""

import gc
import json
from pathlib import Path

from capsbench.backend import Realization
from capsbench.dataset.atomic import whole_file
from capsbench.dataset.batches import fixed_batch
from capsbench.measure.optable import StepProfile, merge
from capsbench.network.cost import cost
from capsbench.network.parameters import parameter_count
from capsbench.network.text import plain
from capsbench.record.schema import Direction, Metric
from capsbench.worker import parity
from capsbench.worker.messages import ArtifactsPart, MetricsPart, NotesPart, OpsPart, ParityPart, Progress
from capsbench.worker.prepare import Prepared, Send, Stopped

STAGE = "check"
_STEPS = ("counts", "parity", "memory", "ops")
_WARMUP_STEPS = 2


def check_case(prepared: Prepared, send: Send) -> None:
    """Measure what repeats exactly, as far as the case's `measure` asks for it.

    Raises:
        Stopped: as `parity_failed`.
    """
    _say(send, "counts")
    send(MetricsPart(metrics=counts(prepared)))
    if "parity" in prepared.case.measure:
        _say(send, "parity")
        _check_parity(prepared, send)
        gc.collect()
    if not {"memory", "ops"} & set(prepared.case.measure):
        return
    realization = prepared.realize()
    placed = prepared.training_batch(realization)
    _warm_up(prepared, realization, placed)
    if "memory" in prepared.case.measure:
        _say(send, "memory")
        peak = realization.peak_bytes(placed, prepared.standing_step())
        send(MetricsPart(metrics={"peak_bytes": exact(peak, "B", "lower")}))
    _say(send, "ops")
    profile = realization.profile(placed, prepared.standing_step())
    send(MetricsPart(metrics={"allocated_bytes": exact(profile.allocated_bytes, "B", "lower")}))
    if "ops" in prepared.case.measure:
        _send_ops(prepared, profile, send)


def counts(prepared: Prepared) -> dict[str, Metric]:
    """Parameters, FLOPs and least bytes: the same for every backend."""
    spent = cost(prepared.bound, prepared.case.batch)
    return {
        "parameters": exact(parameter_count(prepared.bound), "1", "none"),
        "forward_flops": exact(spent.forward_flops, "FLOP", "none"),
        "train_step_flops": exact(spent.train_step_flops, "FLOP", "none"),
        "forward_least_bytes": exact(spent.forward_least_bytes, "B", "none"),
        "train_step_least_bytes": exact(spent.train_step_least_bytes, "B", "none"),
    }


def exact(value: float, unit: str, direction: Direction) -> Metric:
    """A metric that repeats to the last digit."""
    return Metric(value=value, unit=unit, direction=direction, kind="exact")


def _check_parity(prepared: Prepared, send: Send) -> None:
    if prepared.backend.name == parity.ORACLE:
        send(NotesPart(notes=("parity: this is the oracle itself",)))
        return
    case, bound = prepared.case, prepared.bound
    batch = fixed_batch(prepared.split("test"), case.dataset.transform, batch=parity.batch_size(bound))
    found = parity.check_parity(
        prepared.backend,
        bound,
        prepared.parameters,
        case.setting,
        images=batch.images,
        labels=batch.labels,
        seed=case.seed,
    )
    send(ParityPart(network=case.network.name, parity=found))
    if not found.passed:
        raise Stopped("parity_failed", parity.describe_failure(found))


def _warm_up(prepared: Prepared, realization: Realization, placed: object) -> None:
    """Let the first steps compile and allocate the optimizer's state; what counts is a step in the middle."""
    for _ in range(_WARMUP_STEPS):
        realization.train_step(placed, prepared.standing_step())
    realization.synchronize()


def _send_ops(prepared: Prepared, profile: StepProfile, send: Send) -> None:
    events = merge(profile.events)
    send(OpsPart(ops=events, step_seconds=profile.step_seconds, allocated_bytes=profile.allocated_bytes))
    if prepared.case.mode in prepared.backend.compiled_modes:
        send(NotesPart(notes=("ops: compiled, so kernels hold several ops each",)))
    if prepared.place.artifacts is not None:
        with whole_file(Path(prepared.place.artifacts) / "ops.json") as file:
            file.write(json.dumps(plain(profile, defaults=True)).encode())
        send(ArtifactsPart(files=("ops.json",)))


def _say(send: Send, step: str) -> None:
    send(Progress(stage=STAGE, done=_STEPS.index(step), total=len(_STEPS), detail=step))
