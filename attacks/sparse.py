"""The hybrid sparse attack: aggressive where the network is sensitive, imperceptible elsewhere.

Source: Özfatura, Özfatura, Küpçü and Gündüz, "Aggressive or Imperceptible, or Both: Network Pruning Assisted Hybrid
Byzantines in Federated Learning", arXiv 2404.06230, 2024, and the defaults of their code: mean − z · σ with σ of
correction 1, 1.5 on the 0.5 % of the coordinates that pruning would keep, and the z of the attack alie elsewhere. They
prune layer by layer over several passes (FORCE); here coordinates are ranked once, all together, by the sensitivity
|parameter · gradient| of single-shot pruning: Lee, Ajanthan and Torr, "SNIP", ICLR 2019.
"""

from typing import Any

import torch
from torch import Tensor

from attacks import Attack, honest_deviation, repeat
from attacks.alie import largest_factor
from tools.arguments import check_number


def most_sensitive(mean: Tensor, parameters: Tensor | None, count: int) -> Tensor:
    """Return the indices (…, count) of the coordinates of largest |parameter · mean|, of equal ones of largest |mean|.

    Args:
        mean: (…, d).
        parameters: (d,); all alike if there are none.
    """
    order = mean.abs().argsort(dim=-1, descending=True, stable=True)
    if parameters is not None:
        sensitivity = (mean * parameters).abs().gather(-1, order)
        order = order.gather(-1, sensitivity.argsort(dim=-1, descending=True, stable=True))
    return order[..., :count].clone()  # the rest need not be kept


class Sparse(Attack, name="sparse"):
    """Send mean − z · σ coordinate-wise, with z_sensitive for z on this share of the coordinates, the most sensitive.

    These are found at the first step and kept: the model is pruned before it is trained.
    """

    cost = "hd + d log d at the first step"
    condition = "h ≥ 2; z as for alie"

    @classmethod
    def check(
        cls,
        *,
        h: int,
        f: int,
        share: float = 0.005,
        z_sensitive: float = 1.5,
        z: float | str = "max",
        **specialized: Any,
    ) -> None:
        check_number(cls.name, "share", share, least=0, most=1)
        check_number(cls.name, "z_sensitive", z_sensitive, least=0)
        if isinstance(z, str) and z != "max":
            raise ValueError(f"{cls.name}: expected a number or max as z, got {z!r}")
        if z != "max":
            check_number(cls.name, "z", z, least=0)
        if f and h < 2:
            raise ValueError(f"{cls.name}: expected at least 2 honest workers for a deviation, got {h}")
        if f and z == "max":
            try:
                largest_factor(h, f)
            except ValueError as error:
                raise ValueError(f"{cls.name}: {error}") from None

    @classmethod
    def notice(cls, *, h: int, f: int, z: float | str = "max", **specialized: Any) -> str | None:
        if f and z == "max" and largest_factor(h, f) == 0:
            return f"{cls.name}: z_max is 0 for h = {h}, f = {f}: all but the sensitive coordinates are the mean's"
        return None

    @classmethod
    def generate(
        cls,
        honest_gradients: Tensor,
        /,
        *,
        f: int,
        share: float = 0.005,
        z_sensitive: float = 1.5,
        z: float | str = "max",
        parameters: Tensor | None = None,
        state: dict[str, Any] | None = None,
        **specialized: Any,
    ) -> Tensor:
        h, d = honest_gradients.shape[-2:]
        mean, sigma = honest_deviation(honest_gradients, specialized, correction=1)
        state = {} if state is None else state
        if "sensitive" not in state:
            state["sensitive"] = most_sensitive(mean, parameters, max(round(share * d), 1) if share else 0)
        factors = torch.full_like(mean, largest_factor(h, f) if z == "max" else float(z))
        factors.scatter_(-1, state["sensitive"], float(z_sensitive))
        return repeat(torch.addcmul(mean, factors, sigma, value=-1), f)
