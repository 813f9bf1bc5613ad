"""ClippedGossip, self-centred clipping (SSClip).

Source: He, Karimireddy and Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip", arXiv 2202.01545, 2022.
Their theory takes τ = √(Σ wⱼ‖xⱼ − own‖² / b) over the honest neighbours, whom no worker knows. Of the two ways to
choose τ without knowing them,

- `tau:adaptive`, what their code runs for one attacker, here by weight: the farthest neighbours of total weight at most
  b, whole ones, are clipped to the distance of the farthest that is not;
- `tau:estimate`, their formula over the rows left when the fewest farthest ones of total weight at least b are put
  aside, which is the ClippedGossip that Gaucher et al. (ICML 2025) compare with. It may clip a few more.
"""

from typing import Any

import torch
from torch import Tensor

from aggregators.gossip import (
    WEIGHT_ROUNDING,
    GossipRule,
    clipped,
    declared_weight,
    estimated_radius,
    farthest_distance,
    neighbours,
    weight_beyond,
)
from tools.arguments import check_number


class ClippedGossip(GossipRule, name="clippedgossip"):
    """Mix by weight what neighbours sent, each difference to own clipped to norm τ: own + Σ wⱼ · clip(xⱼ − own, τ)."""

    cost = "nd"

    @classmethod
    def check(cls, *, n: int, f: int, tau: float | str = "adaptive", **specialized: Any) -> None:
        super().check(n=n, f=f, **specialized)
        if isinstance(tau, str):
            if tau not in ("adaptive", "estimate"):
                raise ValueError(f"{cls.name}: expected a number, adaptive or estimate as tau, got {tau!r}")
            return
        check_number(cls.name, "tau", tau, above=0)

    @classmethod
    def weights_by_own_distance(
        cls,
        squared_distances: Tensor,
        /,
        *,
        f: int,
        dtype: torch.dtype,
        weights_row: Tensor,
        tau: float | str = "adaptive",
        byzantine_weight: float | None = None,
        **specialized: Any,
    ) -> Tensor:
        weights, distances = neighbours(squared_distances, weights_row)
        if not isinstance(tau, str):
            return clipped(weights, distances, tau)
        declared = declared_weight(weights, f, byzantine_weight)
        beyond = weight_beyond(distances, weights, dtype)
        if tau == "adaptive":
            radius = farthest_distance(distances, beyond + weights > declared + WEIGHT_ROUNDING)
        else:
            radius = estimated_radius(distances, weights, beyond >= declared - WEIGHT_ROUNDING, declared)
        return clipped(weights, distances, radius)
