"""Mimic: over-represent one honest worker, whom no rule can tell from the copies.

Source: Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022,
section 4 and its appendix, and their code. The worker is i* = argmax |Σₜ ⟨z, xᵢ⟩|, z being the direction of largest
variance of honest vectors over a warm-up, estimated by Oja's rule. Their experiments ran the default of their code, a
warm-up of one step. As vectors are not kept, each step's product is taken with the z of that step; their code takes the
product of the last step alone, and its sign counts.
"""

from typing import Any

import torch
from torch import Tensor

from attacks import Attack, honest_mean, repeat
from tools.arguments import check_whole
from tools.long_rows import column_blocks, normalised


def learn(honest: Tensor, mean: Tensor, state: dict[str, Any], generator: torch.Generator | None) -> None:
    """Take one step t of the warm-up, writing the running mean μ, the direction z and Σₜ ⟨z, xᵢ⟩ to `state`.

    With C = Σᵢ (xᵢ − μ)(xᵢ − μ)ᵀ, z is the normalised t/(t+1)·z + 1/(t+1)·Cz/‖Cz‖, t from 0; z starts at random.

    Args:
        honest: (…, h, d).
        mean: (…, d).
    """
    steps = state.get("steps", 0)
    if steps == 0:
        device = honest.device if generator is None else generator.device
        drawn = torch.randn(mean.shape[-1], generator=generator, dtype=honest.dtype, device=device)
        products = honest.new_zeros(honest.shape[:-1], dtype=torch.float64)
        state.update(mean=mean, direction=drawn.to(honest.device).expand_as(mean), products=products)
    centre, direction = state["mean"].lerp(mean, 1 / (steps + 1)), state["direction"]

    shares = torch.zeros_like(state["products"])
    for block in column_blocks(honest):
        shares += _products(honest[..., block] - centre[..., block].unsqueeze(-2), direction[..., block])
    largest = shares.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)  # zero of equal rows
    shares = (shares / largest).to(honest.dtype)  # squares need no large range
    stretched = torch.empty_like(centre)
    for block in column_blocks(honest):
        centred = honest[..., block] - centre[..., block].unsqueeze(-2)
        stretched[..., block] = (shares.unsqueeze(-2) @ centred).squeeze(-2)
    direction = normalised(direction.lerp(normalised(stretched), 1 / (steps + 1)))

    products = state["products"].clone()
    for block in column_blocks(honest):
        products += _products(honest[..., block], direction[..., block])
    state.update(mean=centre, direction=direction, products=products, steps=steps + 1)


def _products(rows: Tensor, vector: Tensor) -> Tensor:
    return (rows @ vector.unsqueeze(-1)).squeeze(-1)


class Mimic(Attack, name="mimic"):
    """Send what one honest worker sends: the one of this index, or the one farthest along the largest variance.

    The latter is chosen anew at each of the first `warmup` steps, and kept from then on; without a state to learn in,
    each step is the first.
    """

    cost = "hd"
    condition = "worker below h"

    @classmethod
    def check(cls, *, h: int, f: int, worker: int | str = "variance", warmup: int = 1, **specialized: Any) -> None:
        check_whole(cls.name, "warmup", warmup, least=1)
        if isinstance(worker, str) and worker != "variance":
            raise ValueError(f"{cls.name}: expected an index or variance as worker, got {worker!r}")
        if worker != "variance":
            check_whole(cls.name, "worker", worker, least=0, most=h - 1)

    @classmethod
    def generate(
        cls,
        honest_gradients: Tensor,
        /,
        *,
        f: int,
        worker: int | str = "variance",
        warmup: int = 1,
        state: dict[str, Any] | None = None,
        generator: torch.Generator | None = None,
        **specialized: Any,
    ) -> Tensor:
        if worker != "variance":
            return repeat(honest_gradients[..., worker, :], f)
        state = {} if state is None else state
        if state.get("steps", 0) < warmup:
            learn(honest_gradients, honest_mean(honest_gradients, specialized), state, generator)
        ranking = state["products"].abs().sort(dim=-1, descending=True, stable=True).indices
        return repeat(honest_gradients.take_along_dim(ranking[..., :1, None], dim=-2).squeeze(-2), f)
