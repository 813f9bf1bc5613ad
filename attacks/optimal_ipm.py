"""Inner-product manipulation, with the factor that does the greatest damage.

Source: Xie, Koyejo and Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI
2019, for the line; Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and
Defenses for Federated Learning", NDSS 2021, for searching it against the actual rule. Here with either sign.
"""

from typing import Any

from torch import Tensor

from attacks import honest_mean
from attacks.line_search import TwoSidedSearch


class OptimalIPM(TwoSidedSearch, name="optimal-ipm"):
    """Send −tau times the mean, with the tau of either sign, of those tried, that moves the rule farthest."""

    @classmethod
    def line(cls, honest: Tensor, specialized: dict[str, Any]) -> tuple[Tensor, Tensor]:
        mean = honest_mean(honest, specialized)
        return mean, -mean  # from the mean, near which vectors still pass for honest where workers agree
