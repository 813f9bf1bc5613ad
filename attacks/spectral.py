"""Spectral heterogeneity: honest nodes are driven apart where their graph is weakest.

Source: Gaucher, Dieuleveut and Hendrikx, "Unified Breakdown Analysis for Byzantine Robust Gossip", ICML 2025, attack
SpH, and its code: with v the Fiedler vector, the unit eigenvector to the second smallest eigenvalue of the weighted
Laplacian of the honest subgraph, node i hears xᵢ + ε vᵢ Σⱼ vⱼ xⱼ from every Byzantine neighbour. The sign of v cancels.
The authors search ε against the rule; here it is given. Where that eigenvalue is multiple (rings, complete graphs) v is
not unique, and v vᵀ is here the projection on the whole eigenspace.
"""

from typing import Any

import torch
from torch import Tensor

from attacks.topology import TopologyAttack

ROUNDING = 1e-9  # share of the Laplacian's trace by which equal eigenvalues may differ


def fiedler_projection(weights: Tensor) -> Tensor:
    """Return v vᵀ, v the Fiedler vector of a graph with these weights, made symmetric: (h, h) → (h, h) in float64.

    Where the graph is not connected, v tells its components apart.
    """
    weights = (weights + weights.mT) / 2
    laplacian = weights.sum(dim=1).diag() - weights
    highest = 1 + laplacian.trace()
    # The constant vector, of eigenvalue 0, gets the highest one instead
    values, vectors = torch.linalg.eigh(laplacian + highest / len(weights))
    chosen = vectors * (values <= values[0] + ROUNDING * highest)
    return chosen @ chosen.mT


class Spectral(TopologyAttack, name="spectral"):
    """Send each honest neighbour its own vector, plus epsilon times its share of the graph's slowest disagreement."""

    cost = "h²d + h³"
    condition = "h ≥ 2"

    @classmethod
    def check(cls, *, h: int, f: int, **specialized: Any) -> None:
        super().check(h=h, f=f, **specialized)
        if f and h < 2:
            raise ValueError(f"{cls.name}: expected at least 2 honest nodes, who can disagree, got {h}")

    @classmethod
    def mixing(cls, honest: Tensor, byzantine: Tensor, epsilon: float) -> Tensor:
        return (epsilon * (byzantine > 0)).unsqueeze(-1) * fiedler_projection(honest)
