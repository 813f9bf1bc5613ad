"""Nearest neighbour averaging.

Source: Farhadkhani, Guerraoui, Gupta, Hoang, Pinot and Stephan, "Robust Collaborative Learning with Linear Gradient
Overhead" (MoNNA), ICML 2023.
"""

from typing import Any

import torch
from torch import Tensor

from aggregators import Aggregator
from aggregators.distances import equal_weights_of_smallest
from tools.long_rows import squared_norms


class NearestNeighbourAverage(Aggregator, name="nna"):
    """Average the n − f vectors closest to `pivot`, the worker's own; without one, to the first finite row."""

    cost = "nd"

    @classmethod
    def squared_distances_to_own(cls, gradients: Tensor, *, pivot: Tensor | None = None, **specialized: Any) -> Tensor:
        return squared_norms(gradients, first_finite_row(gradients) if pivot is None else pivot.to(gradients))

    @classmethod
    def weights_by_own_distance(
        cls, squared_distances: Tensor, /, *, f: int, dtype: torch.dtype, **specialized: Any
    ) -> Tensor:
        return equal_weights_of_smallest(squared_distances, squared_distances.shape[-1] - f, dtype)


def first_finite_row(gradients: Tensor) -> Tensor:
    """Return the first row without NaN and ±inf, (…, n, d) → (…, d); the first where there is none."""
    first = gradients[..., 0, :]
    if first.isfinite().all():  # waits for the GPU, so that the common case needs no pass over all rows
        return first
    index = gradients.isfinite().all(dim=-1).to(torch.uint8).argmax(dim=-1)
    return gradients.take_along_dim(index[..., None, None], dim=-2).squeeze(-2)
