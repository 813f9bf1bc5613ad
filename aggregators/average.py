"""Plain average, the rule of a world without Byzantine workers."""

import math
from typing import Any

import torch
from torch import Tensor

from aggregators import Aggregator


class Average(Aggregator, name="average"):
    """Average all vectors."""

    cost = "nd"
    keeps_non_finite = "the mean of vectors of which one is not finite is not finite"

    @classmethod
    def check(cls, *, n: int, f: int, **specialized: Any) -> None:
        cls.require(n=n, f=f, most=math.inf)

    @classmethod
    def weights_by_number(cls, n: int, /, *, f: int, **specialized: Any) -> Tensor:
        return torch.full((n,), 1 / n, dtype=torch.float64)
