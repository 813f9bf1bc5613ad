"""Phocas.

Source: Xie, Koyejo and Gupta, "Phocas: Dimensional Byzantine-Resilient Stochastic Gradient Descent", 2018,
definition 7.
"""

from typing import Any

from torch import Tensor

from aggregators import Aggregator
from aggregators.order_statistics import mean_of_closest, mean_of_ranks


class Phocas(Aggregator, name="phocas"):
    """Average, in each coordinate, the n − f values closest to the trimmed mean."""

    @classmethod
    def aggregate(cls, gradients: Tensor, /, *, f: int, **specialized: Any) -> Tensor:
        n = gradients.shape[-2]
        return mean_of_closest(gradients, mean_of_ranks(gradients, f, n - f), n - f)
