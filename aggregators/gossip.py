"""What rules for decentralised mixing share: rows are the models a worker received, row 0 is its own.

`weights_row` holds the mixing weights, of sum one, own first. A row of weight zero is no neighbour and may hold
anything, so that neighbourhoods of different sizes fit in one batch. f counts Byzantine neighbours, and b, the declared
Byzantine weight, is the weight of the f heaviest neighbours unless the parameter `byzantine_weight` says it.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from aggregators import Aggregator
from aggregators.distances import order_by
from tools.arguments import check_number

WEIGHT_ROUNDING = 1e-6  # sums of mixing weights this close are equal: the weights may have come in float32


def check_weights(name: str, weights_row: Tensor) -> None:
    """Raise ValueError unless mixing weights (…, n) are at least 0 and of sum one, up to rounding in their dtype."""
    rounding = weights_row.shape[-1] * torch.finfo(weights_row.dtype).eps if weights_row.is_floating_point() else 0
    sums = weights_row.double().sum(dim=-1)
    if not ((weights_row >= 0).all() & ((sums - 1).abs() <= max(rounding, WEIGHT_ROUNDING)).all()):  # GPU waits
        raise ValueError(
            f"{name}: expected weights_row of at least 0 and of sum one, got weights from {weights_row.min():g} and "
            f"sums from {sums.min():g} to {sums.max():g}"
        )


def mixing_weights(gradients: Tensor, weights_row: Tensor) -> Tensor:
    """Return the mixing weights of each row, (…, n, d) and (…, n) or (n,) → (…, n) in float64."""
    return weights_row.to(gradients.device, torch.float64).expand(gradients.shape[:-1])


def neighbours(squared_distances: Tensor, weights_row: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight of and distance to each row, (…, n) in float64; the distance of those of weight zero is zero."""
    weights = weights_row.to(squared_distances).expand_as(squared_distances)
    return weights, squared_distances.sqrt().masked_fill(weights == 0, 0)


def declared_weight(weights: Tensor, f: int, byzantine_weight: float | None) -> Tensor:
    """Return b, the weight that Byzantine neighbours have at most, (…, n) → (…, 1)."""
    if byzantine_weight is not None:
        return weights.new_full((*weights.shape[:-1], 1), byzantine_weight)
    return weights[..., 1:].topk(f, dim=-1).values.sum(dim=-1, keepdim=True)


def weight_beyond(distances: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Return for each row the total weight of those farther from own, two (…, n) → (…, n).

    Of equally far rows, up to rounding in the dtype of the rows, a later one counts as farther.
    """
    order = order_by(distances, dtype)
    ordered = weights.gather(-1, order)
    beyond = ordered.flip(-1).cumsum(dim=-1).flip(-1) - ordered
    return torch.empty_like(beyond).scatter_(-1, order, beyond)


def farthest_distance(distances: Tensor, among: Tensor) -> Tensor:
    """Return the largest distance among the rows of a mask, 0 if there are none, two (…, n) → (…, 1)."""
    return distances.where(among, 0).amax(dim=-1, keepdim=True)


def estimated_radius(distances: Tensor, weights: Tensor, among: Tensor, declared: Tensor) -> Tensor:
    """Return √(Σ wⱼ‖xⱼ − own‖² / b) over the finite rows of a mask, +inf or NaN where b = 0: (…, n) → (…, 1)."""
    squares = distances.where(among & distances.isfinite(), 0).square()
    return ((weights * squares).sum(dim=-1, keepdim=True) / declared).sqrt()


def clipped(weights: Tensor, distances: Tensor, radius: Tensor | float) -> Tensor:
    """Return each row's share of own + Σ wⱼ · clip(xⱼ − own, radius), two (…, n) → (…, n); NaN as radius clips none."""
    return own_takes_rest(weights * (radius / distances).where(distances > radius, 1), distances)


def own_takes_rest(weights: Tensor, distances: Tensor) -> Tensor:
    """Return the weights with own raised so that all sum to one; rows at infinite distance get none."""
    shares = weights.masked_fill(distances.isinf(), 0)
    shares[..., 0] = (1 - shares[..., 1:].sum(dim=-1)).clamp(min=0)
    return shares


class GossipRule(Aggregator):
    """A rule that mixes a worker's own model with its neighbours', up to all of which may be Byzantine."""

    needs = ("weights_row",)
    finds_non_finite = True

    @classmethod
    def check(
        cls,
        *,
        n: int,
        f: int,
        byzantine_weight: float | None = None,
        weights_row: Tensor | None = None,
        **specialized: Any,
    ) -> None:
        cls.require(n=n, f=f, most=n - 1)
        if weights_row is not None:
            check_weights(cls.name, weights_row)
        if byzantine_weight is not None:
            check_number(cls.name, "byzantine_weight", byzantine_weight, least=0, most=1)


class FarthestFirstRule(GossipRule):
    """A rule that treats neighbours by their distance to own and by what those farther away weigh together.

    A subclass writes `shares`.
    """

    cost = "nd"

    @classmethod
    @abstractmethod
    def shares(cls, weights: Tensor, distances: Tensor, beyond: Tensor, declared: Tensor) -> Tensor:
        """Return each row's share of the result, (…, n).

        Args:
            weights: of the rows, (…, n).
            distances: of the rows to own, see `distances_to_own`, (…, n).
            beyond: the total weight of those farther than each row, (…, n).
            declared: b, (…, 1).
        """

    @classmethod
    def weights_by_own_distance(
        cls,
        squared_distances: Tensor,
        /,
        *,
        f: int,
        dtype: torch.dtype,
        weights_row: Tensor,
        byzantine_weight: float | None = None,
        **specialized: Any,
    ) -> Tensor:
        weights, distances = neighbours(squared_distances, weights_row)
        beyond = weight_beyond(distances, weights, dtype)
        return cls.shares(weights, distances, beyond, declared_weight(weights, f, byzantine_weight))
