"""What the values of a layer look like: counts over fixed bins that fit any range, and what follows from them.

A value's bin is made of the leading 16 bits of its float32: sign, exponent and seven bits of the mantissa. There are
65,536 bins whatever the data, no first pass is needed to find a range, and a bin is less than 1/128 of its value wide.
"""

from dataclasses import dataclass
from typing import Literal

Quantity = Literal["activations", "poses", "votes"]
SPARSE_BELOW = 0.01
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Values of one layer over many images.

    Attributes:
        layer: its name.
        quantity: which of its values.
        images: how many images they come from.
        count: how many values.
        mean: of the values.
        deviation: their standard deviation.
        least: the smallest value.
        greatest: the largest value.
        quantiles: at `QUANTILES`, to 1/128 of their size.
        sparse_share: share of values whose magnitude is below `SPARSE_BELOW`.
        hoyer: sparsity of an image's values after Hoyer (2004), (sqrt(n) - l1 / l2) / (sqrt(n) - 1), which is 0 where
            all are equal and 1 where only one is not zero; mean over the images.
        dead_share: share of capsule types (or channels) whose values stay below `SPARSE_BELOW` in magnitude for every
            image at every position; None for votes and poses.
    """

    layer: str
    quantity: Quantity
    images: int
    count: int
    mean: float
    deviation: float
    least: float
    greatest: float
    quantiles: tuple[float, ...]
    sparse_share: float
    hoyer: float
    dead_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingIteration:
    """How routing went in one iteration of one layer, mean over images; `capsbench.backend.RoutingState` says what of.

    Attributes:
        layer: its name.
        iteration: counted from 0.
        coupling_entropy: 1 where children are undecided, 0 where each has chosen one parent.
        agreement_gain: by how much the votes have drawn nearer to their parents' poses since the first iteration: one
            less the ratio of the vote distances.
        starved_share: share of parents that hardly any vote is assigned to.
    """

    layer: str
    iteration: int
    coupling_entropy: float
    agreement_gain: float
    starved_share: float
