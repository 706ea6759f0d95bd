"""Where in a network an op comes from: the layer, the phase and the routing iteration, from its name and its graph.

TensorFlow names an op by the scopes it was made in. Ops of the backward pass lie in `gradient_tape/` and the scopes of
the op whose gradient they are; only sums of several gradients have no scope at all, and are looked up in the graph.
"""

import re
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace

import tensorflow as tf

from capsbench.measure.optable import Phase
from capsbench.measure.steptrace import VOTES

_BACKWARD, _OPTIMIZER = "gradient_tape", "optimizer"
_ITERATION = re.compile(r"iteration(\d+)(_\d+)?")


@dataclass(frozen=True, slots=True)
class Origin:
    """Layer, phase and routing iteration of an op, and whether it casts votes; as in `steptrace.Span`."""

    phase: Phase = "forward"
    layer: str | None = None
    iteration: int | None = None
    votes: bool = False


class Origins:
    """Looks up the ops of one traced function.

    Args:
        graph: of the function, before TensorFlow optimizes it.
        layers: names that outermost scopes of ops may have.
    """

    def __init__(self, graph: tf.Graph, layers: Collection[str]) -> None:
        self._layers = frozenset(layers)
        self._ops = {op.name: op for op in graph.get_operations()}
        self._known: dict[str, Origin] = {}

    def of(self, name: str) -> Origin:
        """Origin of the op of this name, by its scopes and, where they hold no layer, by the ops it reads."""
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def type_of(self, name: str) -> str | None:
        """Type of the op of this name; None for one that only the optimized graph has."""
        return str(self._ops[name].type) if name in self._ops else None

    def _find(self, name: str) -> Origin:
        origin, known = self._by_scopes(name), name
        while known not in self._ops and known:
            known = known.rpartition("/")[0]  # parts of an op that the graph's optimizer took apart are named after it
        if origin.layer is not None or origin.phase == "optimizer" or not known:
            return origin
        waiting, seen = deque([self._ops[known]]), {known}
        while waiting:
            for tensor in waiting.popleft().inputs:
                found = self._by_scopes(tensor.op.name)
                if found.layer is not None:
                    backward = "backward" in (origin.phase, found.phase)
                    return replace(found, phase="backward" if backward else "forward")
                if tensor.op.name not in seen:
                    seen.add(tensor.op.name)
                    waiting.append(tensor.op)
        return origin

    def _by_scopes(self, name: str) -> Origin:
        """What the scopes say; those that TensorFlow's graph optimizer puts before or between ours are skipped."""
        scopes = name.split("/")[:-1]
        layer = next((found for scope in scopes for found in (scope, _bare(scope)) if found in self._layers), None)
        iteration = next((int(match[1]) for match in map(_ITERATION.fullmatch, scopes) if match), None)
        phase: Phase = "forward"
        if _OPTIMIZER in map(_bare, scopes):
            phase = "optimizer"
        elif _BACKWARD in map(_bare, scopes):
            phase = "backward"
        return Origin(phase, layer, iteration, VOTES in map(_bare, scopes))


def _bare(scope: str) -> str:
    """A scope without the number that TensorFlow appends where a name comes again."""
    return re.sub(r"_\d+$", "", scope)
