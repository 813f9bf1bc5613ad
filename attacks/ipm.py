"""Inner product manipulation.

Source: Xie, Koyejo and Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI
2019, section 4, with the name and the default of ByzFL. The attack empire-strict is the same with the 0.1 of
Karimireddy, He and Jaggi, ICML 2021, by default: a small factor passes for honest, a large one turns averages round.
"""

from typing import Any

import torch
from torch import Tensor

from attacks import Attack, honest_mean
from attacks.line_search import along_line, check_factor


class InnerProductManipulation(Attack, name="ipm"):
    """Send −tau times the mean of the honest vectors; a tau of −k searches the strongest of at least 0, k evaluations.

    Where honest vectors agree, those that do most damage lie near their mean: optimal-ipm looks on both sides of it.
    """

    cost = "hd, with a search R per evaluation"

    @classmethod
    def check(cls, *, h: int, f: int, tau: float = 2.0, **specialized: Any) -> None:
        check_factor(cls.name, "tau", tau)

    @classmethod
    def generate(cls, honest_gradients: Tensor, /, *, f: int, tau: float = 2.0, **specialized: Any) -> Tensor:
        mean = honest_mean(honest_gradients, specialized)
        return along_line(honest_gradients, torch.zeros_like(mean), -mean, tau, f, specialized.get("aggregate"))
