"""Dissensus: each neighbour is pulled back from what it learns of the honest ones.

Source: He, Karimireddy and Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip", arXiv 2202.01545, 2022,
the dissensus attack: honest node i hears xᵢ − ε Σⱼ honest wᵢⱼ (xⱼ − xᵢ) / Σⱼ Byzantine wᵢⱼ from every Byzantine
neighbour. With ε = 1 plain gossip leaves it where it was, with more it moves away (their experiments have 1.5).
"""

from torch import Tensor

from attacks.topology import TopologyAttack


class Dissensus(TopologyAttack, name="dissensus"):
    """Send each honest neighbour its own vector, less epsilon times what gossip with honest nodes would add to it."""

    cost = "h²d"

    @classmethod
    def mixing(cls, honest: Tensor, byzantine: Tensor, epsilon: float) -> Tensor:
        strength = (epsilon / byzantine).where(byzantine > 0, 0)
        mixing = -strength.unsqueeze(-1) * honest
        mixing.diagonal().copy_(strength * honest.sum(dim=1))
        return mixing
