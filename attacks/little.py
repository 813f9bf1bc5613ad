"""A little is enough, with a given number of deviations.

Source: Baruch, Baruch and Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS
2019, as the ICLR 2021 paper ran it: σ with correction 1, the factor chosen by hand. The attack alie derives it.
"""

from typing import Any

from torch import Tensor

from attacks import Attack, honest_deviation
from attacks.line_search import along_line, check_factor


class Little(Attack, name="little"):
    """Send the mean plus (minus if negative) factor · σ coordinate-wise; a factor of −k searches the strongest."""

    cost = "hd, with a search R per evaluation"
    condition = "h ≥ 2"

    @classmethod
    def check(cls, *, h: int, f: int, factor: float = 1.5, negative: bool = False, **specialized: Any) -> None:
        check_factor(cls.name, "factor", factor)
        if not isinstance(negative, bool):
            raise TypeError(f"{cls.name}: expected True or False as negative, got {negative!r}")
        if f and h < 2:
            raise ValueError(f"{cls.name}: expected at least 2 honest workers for a deviation, got {h}")

    @classmethod
    def generate(
        cls, honest_gradients: Tensor, /, *, f: int, factor: float = 1.5, negative: bool = False, **specialized: Any
    ) -> Tensor:
        mean, sigma = honest_deviation(honest_gradients, specialized, correction=1)
        direction = sigma.neg_() if negative else sigma
        return along_line(honest_gradients, mean, direction, factor, f, specialized.get("aggregate"))
