"""Automatically weighted geometric median.

Source: Li, Ngai and Voigt, "Byzantine-Robust Aggregation in Federated Learning Empowered Industrial IoT", IEEE TII
2021: minimise Σ αᵢ‖v − xᵢ‖ + (λ / 2)‖α‖² over v and over weights α ≥ 0 of sum one, in turns, from equal weights. For
given v, αᵢ = max(η − ‖v − xᵢ‖, 0) / λ. Two things differ: α follows each step of Weiszfeld towards the weighted median
instead of each median, which lowers the same objective to the same end; and λ, which is a distance, is given in units
of n times the radius that holds a majority of the vectors, so that the scale of the vectors does not matter.
"""

from typing import Any

import torch
from torch import Tensor

from aggregators import Aggregator
from aggregators.geomed import median_weights, reweighted_means, robust_start, smoothing
from tools.arguments import check_number, check_whole


def simplex_weights(distances: Tensor, lamb: Tensor) -> Tensor:
    """Return λα for the α ≥ 0 of sum one with the smallest Σ αᵢdᵢ + (λ / 2)‖α‖², (…, n) and λ (…, 1) → (…, n).

    η is the mean of λ and the k smallest distances, for the largest k for which η exceeds the k-th of them.
    """
    beyond = distances - distances.amin(dim=-1, keepdim=True)  # the same weights, with more digits
    ordered = beyond.sort(dim=-1).values
    levels = (ordered.cumsum(dim=-1) + lamb) / torch.arange(1, ordered.shape[-1] + 1, device=ordered.device)
    kept = (levels > ordered).sum(dim=-1, keepdim=True)
    kept = kept.clamp(min=1)  # none exceeds where nothing is finite
    return (levels.gather(-1, kept - 1) - beyond).clamp(min=0)


class AutoGM(Aggregator, name="autogm"):
    """Take the geometric median with weights that favour close vectors: none beyond a distance, more for a small λ.

    A vector has no weight once it is farther, by λ divided by the number of those with weight, than these are on
    average.
    """

    cost = "n²d + n² per iteration"
    finds_non_finite = True

    @classmethod
    def check(
        cls,
        *,
        n: int,
        f: int,
        lamb: float = 1.0,
        nu: float = 1e-6,
        tolerance: float = 1e-6,
        iterations: int = 1000,
        **specialized: Any,
    ) -> None:
        super().check(n=n, f=f)
        check_number(cls.name, "lamb", lamb, above=0)
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
        lamb: float = 1.0,
        nu: float = 1e-6,
        tolerance: float = 1e-6,
        iterations: int = 1000,
        **specialized: Any,
    ) -> Tensor:
        products, finite, start, radius = robust_start(gradients)
        unit, nearest = lamb * gradients.shape[-2] * radius, smoothing(nu, radius)

        def reweight(distances: Tensor) -> Tensor:
            return simplex_weights(distances.masked_fill(~finite, torch.inf), unit) / distances.clamp(min=nearest)

        median = median_weights(products, finite, start, nearest, tolerance, iterations)
        weights = reweighted_means(products, median, reweight, tolerance, iterations)
        return weights.to(gradients.device)
