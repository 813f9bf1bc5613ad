"""Divide and conquer.

Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
Federated Learning", NDSS 2021, algorithm 2. Added: what follows if no vector was kept in every round; and that a vector
over a million times as far away as n − f vectors are is left out of the centring and dropped, as a non-finite one is.
Several of these do not all show along one direction, and beside one the order of the others is lost to rounding.
"""

import math
from typing import Any

import torch
from torch import Tensor

from aggregators import Aggregator
from aggregators.caf import scaled_products, top_direction
from aggregators.distances import ROUNDING, order_by
from tools.arguments import check_number, check_whole

FAR = 1e6  # times the largest distance of the n − f closest vectors, beyond which one is dropped anyhow
PERMUTED = 16  # times the number of coordinates to draw, up to which all are permuted


class DnC(Aggregator, name="dnc"):
    """Average the vectors kept in every round or, where there is none, in the most rounds.

    A round draws coordinates, without replacement, and keeps the n − ⌈c f⌉ vectors that are closest to the mean along
    their top right singular vector once centred on it. What is not drawn is not seen: in many dimensions, a vector that
    is far away in a few coordinates may be kept.
    """

    cost = "n² · coordinates · rounds + nd"

    @classmethod
    def check(
        cls, *, n: int, f: int, rounds: int = 5, coordinates: int = 10_000, c: float = 1.0, **specialized: Any
    ) -> None:
        super().check(n=n, f=f)
        check_whole(cls.name, "rounds", rounds, least=1)
        check_whole(cls.name, "coordinates", coordinates, least=1)
        check_number(cls.name, "c", c, above=0)
        if number_dropped(c, f) >= n:
            raise ValueError(f"{cls.name}: expected c of at most (n - 1) / f = {(n - 1) / f:g}, got {c!r}")

    @classmethod
    def weights(
        cls,
        gradients: Tensor,
        /,
        *,
        f: int,
        rounds: int = 5,
        coordinates: int = 10_000,
        c: float = 1.0,
        generator: torch.Generator | None = None,
        **specialized: Any,
    ) -> Tensor:
        n, d = gradients.shape[-2:]
        count = n - number_dropped(c, f)
        if coordinates >= d:  # all rounds are equal
            times = kept(gradients, f, count)
        else:
            device = gradients.device if generator is None else generator.device
            drawn = (draw(d, coordinates, generator, device).to(gradients.device) for _ in range(rounds))
            times = sum(kept(gradients.index_select(-1, chosen), f, count) for chosen in drawn)
        most = (times == times.amax(dim=-1, keepdim=True)).double()
        return (most / most.sum(dim=-1, keepdim=True)).to(gradients.device)


def number_dropped(c: float, f: int) -> int:
    """Return ⌈c f⌉, without the rounding of the product: 1.12 · 25 is 28."""
    return math.ceil(round(c * f, 9))


def draw(d: int, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return `count` different numbers below d, all such sets being equally likely.

    If few of many, the first different ones of a sequence: to permute millions takes longer than all the rest.
    """
    if d <= PERMUTED * count:
        return torch.randperm(d, generator=generator, device=device)[:count]
    drawn = torch.empty(0, dtype=torch.long, device=device)
    while True:
        more = torch.randint(d, (count + count // 4 + 1,), generator=generator, device=device)
        drawn = torch.cat([drawn, more])
        ordered, order = drawn.sort(stable=True)
        repeated = torch.zeros_like(drawn, dtype=torch.bool).scatter_(0, order[1:], ordered[1:] == ordered[:-1])
        different = drawn[~repeated]
        if len(different) >= count:
            return different[:count]


def kept(rows: Tensor, f: int, count: int) -> Tensor:
    """Return 1 for the `count` rows closest to the mean along the top singular vector, else 0: (…, n, k) → (…, n)."""
    products, counted = scaled_products(rows)
    squares = products.diagonal(dim1=-2, dim2=-1).masked_fill(~counted, torch.inf)
    counted = counted & (squares <= FAR**2 * squares.kthvalue(rows.shape[-2] - f, dim=-1, keepdim=True).values)
    _, distances = top_direction(products, counted / counted.sum(dim=-1, keepdim=True, dtype=torch.float64))
    scores = distances.square().masked_fill(~counted, torch.inf)
    chosen = order_by(scores, rows.dtype, units=ROUNDING * rows.shape[-2])[..., :count]  # each is a sum over rows
    return torch.zeros_like(squares).scatter_(-1, chosen, 1) * counted
