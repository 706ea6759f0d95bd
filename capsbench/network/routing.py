"""Routing as data: every difference between the published variants is a field.

EM routing's equations are those of Hinton, Sabour, Frosst, "Matrix capsules with EM routing", ICLR 2018, procedure 1;
the NumPy backend's `routing.py` is their executable form, its `variational.py` that of variational Bayes routing, and
its `vectors.py` that of routing between vectors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from capsbench.network.initial import Finite
from capsbench.network.layers import STRICT, ClassCapsules, Layer, Normalisation, NotNegative, Positive, Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class InverseTemperature:
    """lambda_t = final * (1 - decay^(t+1)) in routing iteration t; `decay: 0` keeps it constant.

    Source: the authors' answer on OpenReview (HJWLfGWRb), with final 0.01 and decay 0.95. In the class layer, whose
    parents see more children than others, `final` is multiplied by `class_factor` (the authors' code: 1/4).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    final: Positive = 0.01
    decay: Rate = 0.95
    class_factor: Positive = 1.0

    def at(self, iteration: int) -> float:
        """Inverse temperature in routing iteration `iteration` (counted from 0)."""
        return self.final * (1.0 - self.decay ** (iteration + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class EMRouting:
    """EM routing between two layers of capsules.

    Attributes:
        iterations: M-steps; the E-step runs between two of them.
        inverse_temperature: the schedule of lambda.
        activation: how the logit lambda * (beta_a - cost) becomes an activation: `sigmoid` a parent, or `softmax`
            over the parents (the seed).
        interim_activation: the activation before the last iteration: `same` formula, or `softmax_of_mass`, a softmax
            over the parents' summed assignments (the seed).
        variance_floor: added to every variance; the default is that of the authors' code.
        epsilon: added to the sums that are divided by.
        cost_scale: when given, the cost is multiplied by cost_scale * parents / children (IBM: 100).
        competition: a child's assignments sum to one over the parents at one `position`, or over its parents at
            `all_positions` (the paper).
        first_assignments: a child starts with equal shares for all `competitors`, or for the parents at each
            `position` whatever competes, so that one that feeds four positions counts four times in the first M-step
            (the authors' code).
        damping: share of the previous M-step's mean in each mean, 0 before the first; the variance is about the damped
            mean (the authors' code: 0.1).
        renormalise_input: divide assignment * input activation by its sum over the parents. The assignments sum to
            one, so this cancels the input activation: the seed's bug.
        densities: `log` normalises log-densities by a stable softmax; `shifted` exponentiates them after subtracting
            the largest log-density of a single pose element less log 10, and adds epsilon to the sum (the seed).
        beta_u: one cost offset a `parent`, or one an `element` of its pose (the seed).
        beta_u_scale: what the learned cost offset is multiplied by.
        beta_a_scale: what the learned activation offset is multiplied by, so that steps of an optimizer are as large
            as its part in the logit asks for (the authors' code: -5000).
        coordinates: where a class capsule's votes receive the child's (row, column): nowhere, added to the first two
            elements of the pose's `right_column` (the paper) or of its `first_row` (the authors' code), or `appended`
            as two further elements (the seed).
        coordinate_unit: of the `grid`, (index + 1/2) / grid side; of its `grid_edge`, index / grid side (yl-1993);
            of the `image`, the receptive field's centre / image side; or `centred_pixels`, hundreds of pixels from
            pixel side / 2 to the receptive field's centre (the authors' code).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["em"] = "em"
    iterations: Annotated[int, Field(ge=1, le=100)] = 3
    inverse_temperature: InverseTemperature = InverseTemperature()
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    interim_activation: Literal["same", "softmax_of_mass"] = "same"
    variance_floor: NotNegative = 5e-4
    epsilon: Positive = 1e-8
    cost_scale: Positive | None = None
    competition: Literal["position", "all_positions"] = "position"
    first_assignments: Literal["competitors", "position"] = "competitors"
    damping: Rate = 0.0
    renormalise_input: bool = False
    densities: Literal["log", "shifted"] = "log"
    beta_u: Literal["parent", "element"] = "parent"
    beta_u_scale: Finite = 1.0
    beta_a_scale: Finite = 1.0
    coordinates: Literal["none", "right_column", "first_row", "appended"] = "none"
    coordinate_unit: Literal["grid", "grid_edge", "image", "centred_pixels"] = "grid"

    def of(self, layer: Layer) -> "EMRouting":
        """The variant as one layer routes by it: with the inverse temperature of class capsules, where it is one's."""
        heat = self.inverse_temperature
        if heat.class_factor == 1.0 or not isinstance(layer, ClassCapsules):
            return self
        return replace(self, inverse_temperature=replace(heat, final=heat.final * heat.class_factor, class_factor=1.0))

    def scaled(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """A layer's parameters, arrays of any kind, with the offsets times their scales."""
        scaled = dict(own)
        for name, scale in (("beta_u", self.beta_u_scale), ("beta_a", self.beta_a_scale)):
            if scale != 1.0:
                scaled[name] = own[name] * scale
        return scaled

    def starts_everywhere(self) -> bool:
        """Whether a child's first assignments sum to one over all positions that it feeds, not at each of them."""
        return self.competition == "all_positions" and self.first_assignments == "competitors"

    def cost_factor(self, children: int, parents: int) -> float:
        """What the cost of a parent with so many children is multiplied by."""
        return 1.0 if self.cost_scale is None else self.cost_scale * parents / children

    def coordinate_elements(self) -> tuple[int, int] | None:
        """Which of the 16 pose elements (rows first) the (row, column) is added to; None when none is."""
        return {"right_column": (3, 7), "first_row": (0, 1)}.get(self.coordinates)

    def class_pose_elements(self) -> int:
        """Elements of a class capsule's pose: 16, or 18 with coordinates appended."""
        return 18 if self.coordinates == "appended" else 16


@dataclass(frozen=True, slots=True, kw_only=True)
class VBRouting:
    """Variational Bayes routing between two layers of capsules (Ribeiro, Leontidis, Kollias, AAAI 2020, and its code).

    The votes of a position are a mixture of Gaussians, one a parent, whose weights have a Dirichlet prior, whose means
    a Gaussian one about zero, and whose precisions a Wishart one. An M-step updates the parents' posteriors, an E-step
    what each child expects of them. A parent's pose is the mean of its posterior; its logit is
    beta_a - beta_u - pi H, with its expected weight pi and the entropy H of its expected Gaussian. Class capsules are
    ranked by their activations.

    Attributes:
        iterations: M-steps; the E-step runs between two of them.
        prior_alpha: of the Dirichlet, alpha_0.
        prior_kappa: votes that the prior mean counts as, kappa_0.
        prior_nu: degrees of freedom of the Wishart, nu_0; more than the 16 elements of a pose less one.
        prior_psi: the diagonal of its inverse scale matrix, what is added to the sums of squares.
        covariance: `diagonal`, which is the default of the authors' code; it can do full matrices too.
        competition: a child's assignments sum to one over the parents at one `position`, or over its parents at
            `all_positions` (the authors' code). Before the first M-step they do at each position.
        density_floor: the sum of a child's expected densities is taken for no less, so that one far from all parents is
            assigned to none of them (the authors' code: 1e-8).
        normalisation: of the parents' poses and logits, with nothing learned (the authors' code); None for none.
        coordinates: where a class capsule's votes receive the child's (row, column): nowhere, or added to the first two
            elements of the pose's `right_column`.
        coordinate_unit: of the `grid`, (index + 1/2) / grid side; or `grid_tenths`, (index + 1) / (10 grid side) (the
            authors' code).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["vb"] = "vb"
    iterations: Annotated[int, Field(ge=1, le=100)] = 3
    prior_alpha: Positive = 1.0
    prior_kappa: Positive = 1.0
    prior_nu: Annotated[float, Field(gt=15.0, allow_inf_nan=False)] = 17.0
    prior_psi: Positive = 1.0
    covariance: Literal["diagonal"] = "diagonal"
    competition: Literal["position", "all_positions"] = "all_positions"
    density_floor: NotNegative = 1e-8
    normalisation: Normalisation | None = None
    coordinates: Literal["none", "right_column"] = "right_column"
    coordinate_unit: Literal["grid", "grid_tenths"] = "grid_tenths"

    def of(self, layer: Layer) -> "VBRouting":
        """The variant as one layer routes by it: children of class capsules feed one position, so compete there."""
        return replace(self, competition="position") if isinstance(layer, ClassCapsules) else self

    def coordinate_elements(self) -> tuple[int, int] | None:
        """Which of the 16 pose elements (rows first) the (row, column) is added to; None when none is."""
        return (3, 7) if self.coordinates == "right_column" else None

    def class_pose_elements(self) -> int:
        """Elements of a class capsule's pose."""
        return 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementRouting:
    """Dynamic routing between vectors (Sabour, Frosst, Hinton, NIPS 2017, procedure 1).

    Couplings are a softmax over the parents of logits that start at zero. In every iteration a parent is the squashed
    sum of its votes times their couplings, and before the next one each vote's inner product with its parent is added
    to its logit.

    Attributes:
        iterations: sums; logits are added to between two of them.
        gradient: flows through `all` iterations (the authors' code), or through the `last` one only, for which the
            couplings are then constants (several ports).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["agreement"] = "agreement"
    iterations: Annotated[int, Field(ge=1, le=100)] = 3
    gradient: Literal["all", "last"] = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfAttentionRouting:
    """Self-attention between votes (Mazzia, Salvetti, Chiaberge 2021, "Efficient-CapsNet", and its code).

    The votes U [children, elements] for one parent attend to each other, A = U U^T / sqrt(elements); a child's
    coupling is the softmax over the parents of the sum of its row of A, plus a prior that is learned and starts at
    zero. A parent is the squashed sum of its votes times their couplings. Nothing iterates.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["self_attention"] = "self_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfRouting:
    """Self-routing (Hahn, Pyeon, Kim, "Self-Routing Capsule Networks", NeurIPS 2019, section 3, and its code).

    A child decides by itself: its couplings r_ij are a softmax over the parents of w_ij . u_i + b_ij, u_i being its
    pose and w_ij, b_ij learned. A parent's activation is the mean of its couplings weighted by the activations of its
    children, a_j = sum_i a_i r_ij / sum_i a_i, and its pose the mean of its votes u_i W_ij weighted by a_i r_ij.
    Nothing iterates and no vote is looked at. Where classes are routed, they are ranked by log a_j, of which cross
    entropy is the negative log-likelihood, because activations sum to one.

    Attributes:
        epsilon: added to the sums that are divided by (the authors' code: none); not to those of classes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["self_routing"] = "self_routing"
    epsilon: Positive = 1e-12


MatrixRouting = EMRouting | VBRouting
VectorRouting = AgreementRouting | SelfAttentionRouting
Routing = MatrixRouting | VectorRouting | SelfRouting
