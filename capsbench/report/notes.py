"""What must be known to read a table of a profiled step: what the profiler cost, what it could not see."""

from collections.abc import Iterator, Sequence
from typing import Final

from capsbench.measure.optable import StepProfile
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.compiled import COMPILED, COMPILED_NOTE, is_compiled
from capsbench.report.groups import Group, Which, seed_notes
from capsbench.report.parts import Part

FUSED_SUB: Final = ("SquaredDifference", "aten::mse_loss")

_OPS: Final = "ops: "
_NOT_PROFILED: Final[dict[Which, str]] = {
    "train_step": "no train step was profiled",
    "forward": "no evaluation was profiled",
}


def profile_notes(group: Group, parts: Sequence[Part], which: Which) -> Iterator[str]:
    """Sentences on each realization of a group, on those without a profile as well."""
    profiled = {part.name: part for part in parts}
    for side in group.realizations:
        part = profiled.get(side.name)
        if part is None:
            yield f"{side.name}: {_NOT_PROFILED[which]}, the case ended with {side.record.status}."
        else:
            yield from (f"{part.name}: {sentence}." for sentence in _on(part, which))
    yield from seed_notes(group)


def fused_sub_notes(parts: Sequence[Part]) -> Iterator[str]:
    """A sentence on each realization whose Sub rows hold ops that square as well."""
    for part in parts:
        native = fused_sub(part.profile)
        if native is not None:
            yield f"{part.name}: {native} counts as Sub; it subtracts and squares in one op."


def fused_sub(profile: StepProfile) -> str | None:
    """The native op that subtracts and squares and counts as Sub, where there is one."""
    natives = {event.native for event in profile.events if event.op == "Sub"}
    return next((native for native in FUSED_SUB if native in natives), None)


def _on(part: Part, which: Which) -> Iterator[str]:
    pass_note = _memory_pass(part.profile, part.record) if which == "train_step" else ""
    told = [text for text in (_overhead(part.profile), pass_note) if text]
    if told:
        yield "; ".join(told)
    if is_compiled(part.record):
        yield (
            f"compiled, so one kernel ({COMPILED}) does the work of several ops, of several layers and iterations, and "
            "what passes between them never goes to memory; no profiler can tell their shares"
        )
    notes = (note for note in part.record.notes if note.startswith(_OPS) and not note.startswith(COMPILED_NOTE))
    yield from (fmt.label(note.removeprefix(_OPS)) for note in notes)


def _overhead(profile: StepProfile) -> str:
    """What the step takes without the profiler, and what that adds."""
    bare = profile.bare_seconds
    if not bare:
        return ""
    percent = round(100 * (profile.step_seconds / bare - 1))
    how = f"which added {percent} %" if percent >= 0 else f"{-percent} % more than the profiled step took"
    return f"{fmt.seconds(bare)} without the profiler, {how}"


def _memory_pass(profile: StepProfile, record: Record) -> str:
    """Whether the pass in which only the allocator was watched counted the same bytes."""
    metric = record.metrics.get("allocated_bytes")
    if metric is None:
        return ""
    difference = metric.value - profile.allocated_bytes
    if not difference:
        return "bytes equal the memory pass"
    how = "more" if difference > 0 else "less"
    return f"the memory pass, without it, counted {fmt.size(abs(difference))} {how}"
