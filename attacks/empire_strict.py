"""Fall of empires: the mean turned round.

Source: Xie, Koyejo and Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI
2019, section 4 (−ε times the mean of the honest vectors).
"""

from typing import Any

import torch
from torch import Tensor

from attacks import Attack, honest_mean
from attacks.line_search import along_line, check_factor


class EmpireStrict(Attack, name="empire-strict"):
    """Send −epsilon times the mean of the honest vectors; −k searches the strongest of at least 0, k evaluations.

    Where honest vectors agree, those that do most damage lie near their mean: optimal-ipm looks on both sides of it.
    """

    cost = "hd, with a search R per evaluation"

    @classmethod
    def check(cls, *, h: int, f: int, epsilon: float = 0.1, **specialized: Any) -> None:
        check_factor(cls.name, "epsilon", epsilon)

    @classmethod
    def generate(cls, honest_gradients: Tensor, /, *, f: int, epsilon: float = 0.1, **specialized: Any) -> Tensor:
        mean = honest_mean(honest_gradients, specialized)
        return along_line(honest_gradients, torch.zeros_like(mean), -mean, epsilon, f, specialized.get("aggregate"))
