"""UBAR, also MOZI: neighbours have to be close, and to do well on the worker's own data.

Source: Guo, Zhang, Yu, Xie, Ma, Xiang and Liu, "Byzantine-resilient Decentralized Stochastic Gradient Descent", IEEE
Transactions on Circuits and Systems for Video Technology 2021, without the gradient step that its update also takes. A
model whose loss is NaN or infinite is never used.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aggregators import Aggregator
from aggregators.distances import order_by
from tools.arguments import check_number


class UBAR(Aggregator, name="ubar"):
    """Average own with the mean of those of the ρ(n − 1) nearest neighbours whose loss is at most own loss.

    Where none of them is, with the one of lowest loss; where no neighbour may be used at all, own is the result.
    """

    cost = "nd + a loss per neighbour"
    needs = ("loss",)
    finds_non_finite = True

    @classmethod
    def check(
        cls,
        *,
        n: int,
        f: int,
        rho: float | None = None,
        alpha: float = 0.5,
        loss: Callable[[Tensor], Tensor | float] | None = None,
        **specialized: Any,
    ) -> None:
        cls.require(n=n, f=f, most=n - 1)
        if rho is not None:
            check_number(cls.name, "rho", rho, above=0, most=1)
        check_number(cls.name, "alpha", alpha, least=0, most=1)
        if loss is not None and not callable(loss):
            raise TypeError(f"{cls.name}: expected a function of parameters as loss, got {loss!r}")

    @classmethod
    def weights(
        cls,
        gradients: Tensor,
        /,
        *,
        f: int,
        loss: Callable[[Tensor], Tensor | float],
        rho: float | None = None,
        alpha: float = 0.5,
        copies: int = 1,
        **specialized: Any,
    ) -> Tensor:
        n = gradients.shape[-2]
        distinct = n - copies + 1
        count = n - 1 - f if rho is None else max(int(rho * (n - 1) + 1e-9), min(n - 1, 1))
        distances = cls.squared_distances_to_own(gradients[..., :distinct, :]).sqrt()
        distances = distances[..., torch.arange(n, device=distances.device).clamp(max=distinct - 1)]
        order = order_by(distances, gradients.dtype)[..., : count + 1]  # own first
        usable = distances.isfinite().gather(-1, order)
        rows = order.clamp(max=distinct - 1).where(usable, 0)  # own in place of what no loss could be computed of
        losses = torch.full_like(distances, torch.inf).scatter(-1, order, losses_of(gradients, rows, loss, usable))
        good = losses.isfinite() & (losses <= losses[..., :1])
        good[..., 0] = False
        losses[..., 0] = torch.inf
        best = torch.zeros_like(good).scatter(-1, losses.argmin(dim=-1, keepdim=True), True) & losses.isfinite()
        kept = good.where(good.any(dim=-1, keepdim=True), best).to(torch.float64)
        shares = (1 - alpha) * kept / kept.sum(dim=-1, keepdim=True).clamp(min=1)
        shares[..., 0] = 1 - shares.sum(dim=-1)
        return shares


@torch.no_grad()
def losses_of(gradients: Tensor, rows: Tensor, loss: Callable[[Tensor], Tensor | float], usable: Tensor) -> Tensor:
    """Return the losses of some rows, (…, n, d) and indices (…, k) → (…, k) in float64; +inf if not usable or NaN."""
    losses = []
    for batch in itertools.product(*map(range, rows.shape[:-1])):  # the loss is a function of one vector only
        for i in range(rows.shape[-1]):
            row = gradients[batch].index_select(0, rows[batch][i : i + 1]).squeeze(0)
            losses.append(torch.as_tensor(loss(row), dtype=torch.float64, device=rows.device).reshape(()))
    values = torch.stack(losses).reshape(rows.shape)
    return values.where(usable & values.isfinite(), torch.inf)
