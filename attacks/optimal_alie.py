"""A little is enough, with the number of deviations that does the greatest damage.

Source: Baruch, Baruch and Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS
2019, for the line; Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and
Defenses for Federated Learning", NDSS 2021, for searching it against the actual rule. Here on both sides of the mean.
"""

from typing import Any

from torch import Tensor

from attacks import honest_deviation
from attacks.line_search import TwoSidedSearch


class OptimalALIE(TwoSidedSearch, name="optimal-alie"):
    """Send mean + z · σ coordinate-wise, with the z of either sign, of those tried, that moves the rule farthest."""

    @classmethod
    def line(cls, honest: Tensor, specialized: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return honest_deviation(honest, specialized)
