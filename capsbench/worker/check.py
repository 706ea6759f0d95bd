"""What repeats exactly: parity, counts from the network's equations, allocated memory, the profiled train step."""

import gc
from dataclasses import replace

from capsbench.backend import MemoryUse, Realization
from capsbench.dataset.batches import fixed_batch
from capsbench.network.cost import cost, layer_costs
from capsbench.network.parameters import parameter_count
from capsbench.record.measured import exact, once
from capsbench.record.schema import Metric
from capsbench.worker import mixed, parity, rounding
from capsbench.worker.gate import judge
from capsbench.worker.messages import EquationsPart, MetricsPart, NotesPart, ParityPart, Progress
from capsbench.worker.ops import profile_ops
from capsbench.worker.oracle import ORACLE
from capsbench.worker.parallel import compare_devices
from capsbench.worker.prepare import Prepared, Send, Stopped

STAGE = "check"
_STEPS = ("counts", "parity", "devices", "memory", "ops")
_WARMUP_STEPS = 2


def check_case(prepared: Prepared, send: Send) -> None:
    """Measure what repeats exactly, as far as the case's `measure` asks for it.

    Raises:
        Stopped: as `parity_failed`.
    """
    _say(send, "counts")
    send(MetricsPart(metrics=counts(prepared)))
    send(EquationsPart(layers=layer_costs(prepared.bound, prepared.case.batch, prepared.least_item_bytes)))
    if "parity" in prepared.case.measure:
        _say(send, "parity")
        _check_parity(prepared, send)
        gc.collect()
    counted = [each for each in ("memory", "ops") if each in prepared.case.measure]
    if prepared.case.devices > 1:
        _say(send, "devices")
        compare_devices(prepared, send)
        if counted:
            send(NotesPart(notes=(f"{' and '.join(counted)}: counted in the case on one device, not on several",)))
        return
    if not counted:
        return
    realization = prepared.realize()
    placed = prepared.training_batch(realization)
    _warm_up(prepared, realization, placed)
    if "memory" in prepared.case.measure:
        _say(send, "memory")
        used = realization.memory(placed, prepared.standing_step())
        send(MetricsPart(metrics=_memory_metrics(used)))
    if "ops" in prepared.case.measure:
        _say(send, "ops")
        profile_ops(prepared, realization, placed, send)


def counts(prepared: Prepared) -> dict[str, Metric]:
    """Parameters, FLOPs and least bytes: the same for every backend."""
    spent = cost(prepared.bound, prepared.case.batch, prepared.least_item_bytes)
    return dict(
        (
            exact("parameters", parameter_count(prepared.bound)),
            exact("forward_flops", spent.forward_flops),
            exact("train_step_flops", spent.train_step_flops),
            exact("forward_least_bytes", spent.forward_least_bytes),
            exact("train_step_least_bytes", spent.train_step_least_bytes),
        )
    )


def _memory_metrics(used: MemoryUse) -> dict[str, Metric]:
    make = exact if used.repeats else once
    return dict((make("peak_bytes", used.peak_bytes), make("allocated_bytes", used.allocated_bytes)))


def _check_parity(prepared: Prepared, send: Send) -> None:
    if prepared.backend.name == ORACLE:
        send(NotesPart(notes=("parity: this is the oracle itself",)))
        return
    case = prepared.case
    batch = fixed_batch(prepared.split("test"), prepared.transform("test"), batch=parity.batch_size(prepared.bound))

    training = fixed_batch(prepared.split("train"), prepared.transform("train"), batch=2 * case.batch)

    backend, bound, parameters = prepared.backend, prepared.bound, prepared.parameters
    images, labels, seed = batch.images, batch.labels, case.seed
    whole = replace(case.setting, precision=case.setting.kept)
    found = judge(
        backend,
        bound,
        whole,
        parameters=parameters,
        images=images,
        labels=labels,
        drawn=False,
        seed=seed,
        training=training,
    )
    send(ParityPart(network=case.network.name, parity=found))
    if not found.passed:
        raise Stopped("parity_failed", parity.describe_failure(found))
    if found.rounding is not None:
        send(NotesPart(notes=(rounding.describe(found, found.rounding),)))
    if case.setting.mixed:
        found = parity.check_parity(backend, bound, case.setting, parameters, images, labels=labels, seed=seed)
        mixed.measure(found, case.setting, send)


def _warm_up(prepared: Prepared, realization: Realization, placed: object) -> None:
    """Let the first steps compile and allocate the optimizer's state; what counts is a step in the middle."""
    for _ in range(_WARMUP_STEPS):
        realization.train_step(placed, prepared.standing_step())
    realization.synchronize()


def _say(send: Send, step: str) -> None:
    send(Progress(stage=STAGE, done=_STEPS.index(step), total=len(_STEPS), detail=step))
