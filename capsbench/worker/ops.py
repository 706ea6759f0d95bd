"""The op passes: a train step and an evaluation under the framework's profiler, in turns with the same without it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter

from capsbench.backend import Realization
from capsbench.dataset.atomic import whole_file
from capsbench.measure.chrome import chrome_trace
from capsbench.measure.optable import StepProfile
from capsbench.measure.steptrace import StepTrace, summarise
from capsbench.network.text import plain
from capsbench.worker.messages import ArtifactsPart, NotesPart, OpsPart
from capsbench.worker.prepare import Prepared, Send

_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class _Profiled:
    """The profiled step of median time, its summary, and whether all profiled steps counted the same."""

    trace: StepTrace
    profile: StepProfile
    repeats: bool


def profile_ops(prepared: Prepared, realization: Realization, placed: object, send: Send) -> None:
    """Profile a train step and an evaluation, send what they spent, write the tables and the step's trace."""
    standing = prepared.standing_step()

    def train() -> None:
        realization.train_step(placed, standing)
        realization.synchronize()

    step = _profile(prepared, train, lambda: realization.profile(placed, standing))
    forward = _profile(prepared, lambda: realization.forward(placed), lambda: realization.profile(placed, None))
    send(OpsPart(train_step=step.profile, forward=forward.profile))
    if not (step.repeats and forward.repeats):
        send(NotesPart(notes=("ops: calls or bytes differ from one profiled step to the next",)))
    if prepared.case.mode in prepared.backend.compiled_modes:
        send(NotesPart(notes=("ops: compiled, so a kernel holds several ops, of several layers and iterations",)))
    if prepared.place.artifacts is not None:
        folder = Path(prepared.place.artifacts)
        tables = {"train_step": step.profile, "forward": forward.profile}
        _write(folder / "ops.json", json.dumps(plain(tables, defaults=True)).encode())
        _write(folder / "trace.json", chrome_trace(step.trace, prepared.case.id))
        send(ArtifactsPart(files=("ops.json", "trace.json")))


def _profile(prepared: Prepared, bare: Callable[[], object], profiled: Callable[[], StepTrace]) -> _Profiled:
    """Take a step with and without the profiler in turns, after two warm-ups."""
    bare()
    profiled()  # starting a profiler for the first time costs more than using it
    bare_seconds, traces = [], []
    for _ in range(_ROUNDS):
        start = perf_counter()
        bare()
        bare_seconds.append(perf_counter() - start)
        traces.append(profiled())
    profiles = [summarise(trace, _vote_bytes(prepared)) for trace in traces]
    middle = sorted(range(_ROUNDS), key=lambda number: traces[number].seconds)[_ROUNDS // 2]
    repeats = len({_counted(profile) for profile in profiles}) == 1
    return _Profiled(traces[middle], replace(profiles[middle], bare_seconds=median(bare_seconds)), repeats)


def _vote_bytes(prepared: Prepared) -> dict[str, int]:
    """Size of each routed layer's votes for the whole batch."""
    number = prepared.case.batch * prepared.item_bytes
    routed = ((layer.layer.name, layer.routing) for layer in prepared.bound.layers)
    return {name: number * shape.votes for name, shape in routed if shape is not None}


def _counted(profile: StepProfile) -> frozenset[tuple[object, ...]]:
    """What must repeat exactly."""
    return frozenset(
        (event.op, event.native, event.layer, event.phase, event.routing_iteration, event.calls, event.allocated_bytes)
        for event in profile.events
    )


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write(content)
