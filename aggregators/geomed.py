"""Geometric median by the smoothed Weiszfeld algorithm.

Source: Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning" (RFA), IEEE TSP 2022, algorithm 2:
wᵢ ∝ 1 / max(ν, ‖v − xᵢ‖), v ← Σ wᵢxᵢ. Here all iterates are weights of rows, on their inner products, and two things
differ. The start is the mean of the rows, but without those far from most others: the objective is convex, so that it
decides only how long the way is, and from a mean that f rows at 10³⁰ carry away it is too long, each iteration dividing
their share by (n − f) / f. And where a majority is closer together than 10⁻³, ν shrinks with it: tiny vectors are not
all at v.

Attackers that know all can make the start coincide with a row that is not the median, which Weiszfeld's step leaves by
no more than about ν at a time. There the first step is that of the modified algorithm of Vardi and Zhang, "The
multivariate L1-median and associated data depth", PNAS 2000.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aggregators import Aggregator
from aggregators.distances import ROUNDING, inner_products, squared_distances_to_means
from tools.arguments import check_number, check_whole

FAR = 10  # times the radius that holds a majority, beyond which a row is left out of the start
TINY = 1e-3  # a radius that holds a majority, below which ν shrinks with it
PRECISION = (ROUNDING * torch.finfo(torch.float32).eps) ** 0.5  # of distances by products, as a share of norms
SMALLEST = torch.finfo(torch.float64).tiny ** 0.5  # a distance whose square and inverse are still numbers


def majority_radii(squared_distances: Tensor) -> Tensor:
    """Return each row's distance to its ⌊n / 2⌋-th nearest other, (…, n, n) → (…, n): a ball that holds a majority.

    The smallest of them is at most the largest distance between honest rows, whatever a minority sends.
    """
    n = squared_distances.shape[-1]
    return squared_distances.kthvalue(n // 2 + 1, dim=-1).values.sqrt()


def robust_start(gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what iterations in the space of weights start from, for gradients (…, n, d).

    All is on the CPU: many products of (n, n) cost less there than it takes to launch them on a GPU, which waits once.

    Returns:
        The inner products of rows (…, n, n); which rows count (…, n), the others being non-finite or too large to
        square; equal weights of the rows that are not far from most others (…, n); and the radius of the smallest ball
        around a row that holds a majority (…, 1), above zero.
    """
    products, finite = (part.cpu() for part in inner_products(gradients))
    squares = products.diagonal(dim1=-2, dim2=-1)
    distances = (squares.unsqueeze(-1) + squares.unsqueeze(-2) - 2 * products).clamp(min=0)
    radii = majority_radii(distances.masked_fill(~(finite.unsqueeze(-1) & finite.unsqueeze(-2)), torch.inf))
    smallest = radii.amin(dim=-1, keepdim=True)
    near = (finite & (radii <= FAR * smallest)).double()
    return products, finite, near / near.sum(dim=-1, keepdim=True), smallest.clamp(min=SMALLEST)


def reweighted_means(
    products: Tensor, start: Tensor, reweight: Callable[[Tensor], Tensor], tolerance: float, iterations: int
) -> Tensor:
    """Repeat w ← reweight(distances of the rows to their mean by w), made to sum to one, until that mean stands still.

    It does once it moves by no more than the tolerance times its mean distance to the rows, by the new weights. What
    rounding may hide of a move counts as moved. Each element of a batch stops by itself.

    Args:
        products: inner products of rows, (…, n, n).
        start: weights of sum one, (…, n).
        reweight: distances (…, n) → weights ≥ 0 (…, n), not all zero.
    """
    weights, moving = start, torch.ones_like(start[..., :1], dtype=torch.bool)
    norms = products.diagonal(dim1=-2, dim2=-1).sqrt()
    for _ in range(iterations):
        distances = squared_distances_to_means(products, weights).sqrt()
        proposed = reweight(distances)
        proposed = (proposed / proposed.sum(dim=-1, keepdim=True)).where(moving, weights)
        change = proposed - weights
        squared_move = (change * (products @ change.unsqueeze(-1)).squeeze(-1)).sum(dim=-1, keepdim=True)
        squared_move += (PRECISION * (change.abs() * norms).sum(dim=-1, keepdim=True)).square()
        weights = proposed
        moving = moving & (squared_move > (tolerance * (weights * distances).sum(dim=-1, keepdim=True)).square())
        if not moving.any():
            break
    return weights


def smoothing(nu: float, radius: Tensor) -> Tensor:
    """Return ν, shrunk where the radius that holds a majority is tiny, (…, 1) → (…, 1)."""
    return (nu * (radius / TINY).clamp(max=1)).clamp(min=SMALLEST)


def leave_rows(products: Tensor, finite: Tensor, start: Tensor) -> Tensor:
    """Return the start, or the point to which Vardi and Zhang's step leads from it where it is at rows, (…, n).

    With η rows at it, and r the norm of the sum of unit vectors to all others: the mean of these rows and of
    Weiszfeld's step by all others, by weights η / r and 1 − η / r, if r > η. Otherwise the median is there.

    Args:
        products, finite, start: as `robust_start` gives them.
    """
    distances = squared_distances_to_means(products, start).sqrt()
    norms = products.diagonal(dim1=-2, dim2=-1).sqrt()
    at = finite & (distances <= PRECISION * (norms + (start * norms).sum(dim=-1, keepdim=True)))
    count = at.sum(dim=-1, keepdim=True)
    here = at.double() / count.clamp(min=1)
    others = (finite & ~at) / squared_distances_to_means(products, here).sqrt().clamp(min=SMALLEST)
    total = others.sum(dim=-1, keepdim=True)
    step = others / total.clamp(min=SMALLEST)
    away = step - here
    r = total * (away * (products @ away.unsqueeze(-1)).squeeze(-1)).sum(dim=-1, keepdim=True).clamp(min=0).sqrt()
    stay = (count / r).clamp(max=1)
    return (stay * here + (1 - stay) * step).where(count > 0, start)


def median_weights(
    products: Tensor, finite: Tensor, start: Tensor, nearest: Tensor, tolerance: float, iterations: int
) -> Tensor:
    """Return the weights by which the mean of the rows is their geometric median, (…, n).

    Args:
        products, finite, start: as `robust_start` gives them.
        nearest: ν, see `smoothing`.
    """
    start = leave_rows(products, finite, start)
    return reweighted_means(products, start, lambda d: finite / d.clamp(min=nearest), tolerance, iterations)


class GeometricMedian(Aggregator, name="geomed"):
    """Take the point with the smallest sum of distances to the vectors."""

    cost = "n²d + n² per iteration"
    finds_non_finite = True

    @classmethod
    def check(
        cls, *, n: int, f: int, nu: float = 1e-6, tolerance: float = 1e-6, iterations: int = 100, **specialized: Any
    ) -> None:
        super().check(n=n, f=f)
        check_number(cls.name, "nu", nu, above=0)
        check_number(cls.name, "tolerance", tolerance, least=0)
        check_whole(cls.name, "iterations", iterations, least=1)

    @classmethod
    def weights(
        cls,
        gradients: Tensor,
        /,
        *,
        f: int,
        nu: float = 1e-6,
        tolerance: float = 1e-6,
        iterations: int = 100,
        **specialized: Any,
    ) -> Tensor:
        products, finite, start, radius = robust_start(gradients)
        weights = median_weights(products, finite, start, smoothing(nu, radius), tolerance, iterations)
        return weights.to(gradients.device)
