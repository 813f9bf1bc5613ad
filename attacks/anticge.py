"""The attack against comparative gradient elimination.

Source: El Mhamdi, Guerraoui and Rouault, "Distributed Momentum for Byzantine-resilient Stochastic Gradient Descent",
ICLR 2021, code, attack `anticge`, which counts the smallest vector twice; it is kept so.
"""

from typing import Any

import torch
from torch import Tensor

from attacks import Attack, repeat
from tools.long_rows import squared_norms


def _norms(rows: Tensor) -> Tensor:
    return squared_norms(rows).sqrt_().to(rows.dtype)


class AntiCGE(Attack, name="anticge"):
    """Send minus the sum of the h − f vectors of smallest norm, f as declared, scaled to just below the next norm.

    NaN if there are more attackers than declared.
    """

    cost = "hd"
    condition = "h above the declared f"

    @classmethod
    def check(cls, *, h: int, f: int, f_declared: int | None = None, **specialized: Any) -> None:
        declared = f if f_declared is None else f_declared
        if f and f <= declared and h <= declared:
            raise ValueError(f"anticge: expected more honest workers than f = {declared} declared, got {h}")

    @classmethod
    def generate(
        cls, honest_gradients: Tensor, /, *, f: int, f_declared: int | None = None, **specialized: Any
    ) -> Tensor:
        declared = f if f_declared is None else f_declared
        if f > declared:
            return repeat(honest_gradients.new_full(honest_gradients[..., 0, :].shape, torch.nan), f)
        count = honest_gradients.shape[-2] - declared
        norms, order = _norms(honest_gradients).sort(dim=-1, stable=True)
        shares = torch.zeros_like(norms).scatter_(-1, order[..., :count], 1.0)
        shares.scatter_(-1, order[..., :1], 2.0)
        total = -(shares.unsqueeze(-2) @ honest_gradients)
        below = norms[..., count : count + 1] * (1 - 8 * torch.finfo(norms.dtype).eps)
        scale = (below / _norms(total)).unsqueeze(-1)
        return repeat((total * scale.where(scale.isfinite(), 0)).squeeze(-2), f)
