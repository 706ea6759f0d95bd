"""The 2018 study's profile of a forward pass, beside an evaluation of the same network, batch and formulation."""

from collections.abc import Iterator, Sequence
from typing import Final

from capsbench.measure.optable import StepProfile
from capsbench.network.cost import LayerCost
from capsbench.record.claims import packaged_ledger
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.finding import Finding, verdict
from capsbench.report.notes import fused_sub
from capsbench.report.parts import Spent, spent_on

TOLERANCE: Final = 0.05

_WHICH: Final = "em-seed, mnist, tensorflow:tiled, batch 50, 2 iterations"
_WANTED: Final = ("em-seed", "mnist", "tensorflow", "tiled", 50, 2)
_BYTES_CLAIMS: Final = "seed-bytes-"
_PRODUCT, _PRODUCT_TIME_SHARE = "BatchMatMul", 0.957
_FIRST_CAPSULES: Final = "conv_caps1"
_TAIL: Final = frozenset({"loss", "decoder"})


def profile_findings(records: Sequence[Record]) -> Iterator[Finding]:
    """The op table, the share of the vote product in the time, and how memory and time go from layer to layer."""
    published = {claim.op: claim.value for claim in packaged_ledger().claims if claim.id.startswith(_BYTES_CLAIMS)}
    record = next((record for record in records if _is_wanted(record)), None)
    profile = None if record is None else record.forward_profile
    if record is None or profile is None:
        why = f"this run has no profiled evaluation of {_WHICH}"
        yield Finding(claim="bytes, op by op", theirs=_megabytes(sum(published.values())), why=why)
        yield Finding(claim=_TIME_CLAIM, theirs=_percent(_PRODUCT_TIME_SHARE), why=why)
        yield Finding(claim=_MEMORY_CLAIM, theirs=_FIRST_CAPSULES, why=why)
        yield Finding(claim=_GROWTH_CLAIM, theirs="grows", why=why)
        return
    yield from (_op_finding(op, theirs, record, profile) for op, theirs in published.items() if op)
    yield _time_finding(profile)
    layers = _layers(record.equations, profile)
    yield _memory_finding(layers)
    yield _growth_finding(layers)


_TIME_CLAIM: Final = "BatchMatMul takes most of the time"
_MEMORY_CLAIM: Final = "memory per layer peaks in the first convolutional capsule layer"
_GROWTH_CLAIM: Final = "time grows towards the output"


def _is_wanted(record: Record) -> bool:
    case = record.case
    key = (case.network, case.dataset, case.backend, case.mode, case.batch, case.routing_iterations)
    return key == _WANTED and record.forward_profile is not None and bool(record.forward_profile.events)


def _op_finding(op: str, theirs: float, record: Record, profile: StepProfile) -> Finding:
    claim, published = f"bytes of {op}", _megabytes(theirs)
    ours = sum(event.allocated_bytes for event in profile.events if event.op == op) / 1e6
    off = ours / theirs - 1
    if op in {"BatchMatMul", "Conv2D"} and record.case.device == "cpu":
        return Finding(claim=claim, theirs=published, ours=_megabytes(ours), why=_gpu_only(op, record.equations))
    native = fused_sub(profile)
    sub = f"; {native} counts as Sub" if op == "Sub" and native is not None else ""
    why = f"{100 * abs(off):.1f} % {'less' if off < 0 else 'more'}{sub}"
    holds = abs(off) <= TOLERANCE
    return Finding(claim=claim, theirs=published, ours=_megabytes(ours), verdict=verdict(holds=holds), why=why)


def _gpu_only(op: str, equations: Sequence[LayerCost]) -> str:
    """What the published number holds that a CPU never asks for."""
    if op == "Conv2D":
        return "the published bytes hold workspace of a GPU's convolution; on a CPU only its result counts"
    votes = _megabytes(sum(cost.vote_bytes for cost in equations) / 1e6)
    return f"the published bytes hold a GPU's lists of pointers to each matrix; the votes themselves are {votes}"


def _time_finding(profile: StepProfile) -> Finding:
    spent, product = spent_on(profile.events), spent_on([e for e in profile.events if e.op == _PRODUCT])
    theirs = _percent(_PRODUCT_TIME_SHARE)
    if not spent.seconds:
        return Finding(claim=_TIME_CLAIM, theirs=theirs, why="no time was measured")
    share = product.seconds / spent.seconds
    why = f"{fmt.seconds(product.seconds)} of the {fmt.seconds(spent.seconds)} of all ops; most is more than half"
    return Finding(claim=_TIME_CLAIM, theirs=theirs, ours=_percent(share), verdict=verdict(holds=share > 0.5), why=why)


def _layers(equations: Sequence[LayerCost], profile: StepProfile) -> dict[str, Spent]:
    """What each layer spent in the forward pass, in the network's order."""
    order = [cost.layer for cost in equations if cost.layer not in _TAIL]
    spent = {layer: spent_on([event for event in profile.events if event.layer == layer]) for layer in order}
    return {layer: total for layer, total in spent.items() if total != Spent()}


def _memory_finding(layers: dict[str, Spent]) -> Finding:
    if _FIRST_CAPSULES not in layers:
        why = f"no op of the profile is known to be of {_FIRST_CAPSULES}"
        return Finding(claim=_MEMORY_CLAIM, theirs=_FIRST_CAPSULES, why=why)
    largest = max(layers, key=lambda layer: layers[layer].allocated_bytes)
    why = "allocated: " + ", ".join(f"{layer} {fmt.size(spent.allocated_bytes)}" for layer, spent in layers.items())
    holds = largest == _FIRST_CAPSULES
    return Finding(claim=_MEMORY_CLAIM, theirs=_FIRST_CAPSULES, ours=largest, verdict=verdict(holds=holds), why=why)


def _growth_finding(layers: dict[str, Spent]) -> Finding:
    if len(layers) < 2:
        return Finding(claim=_GROWTH_CLAIM, theirs="grows", why="the ops of fewer than two layers are known")
    seconds = [spent.seconds for spent in layers.values()]
    holds = seconds == sorted(seconds)
    why = ", ".join(f"{layer} {fmt.seconds(spent.seconds)}" for layer, spent in layers.items())
    ours = "grows" if holds else "does not"
    return Finding(claim=_GROWTH_CLAIM, theirs="grows", ours=ours, verdict=verdict(holds=holds), why=why)


def _megabytes(value: float) -> str:
    return f"{value:,.2f} MB"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
