"""ClippedGossip: a local step, then self-centred clipping of what neighbours sent.

Source: He, Karimireddy and Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip", arXiv 2202.01545, 2022,
algorithm 2: θᵢ ← θᵢ,½ + Σⱼ wᵢⱼ · clip(θⱼ,½ − θᵢ,½, τ). The radii τ that are not fixed are explained in
`aggregators/clippedgossip.py`.
"""

from typing import Any

from aggregators.clippedgossip import ClippedGossip
from experiments.protocols import Protocol
from tools.errors import UserError


class ClippedGossipProtocol(Protocol, name="clipped-gossip"):
    """A local step, then models mixed by weights, each difference to one's own clipped to norm τ."""

    rule = ClippedGossip.name
    takes_rules = False

    @classmethod
    def check(cls, *, n: int, f: int, f_real: int, tau: float | str = "adaptive") -> None:
        try:
            ClippedGossip.check(n=n, f=f, tau=tau)
        except (ValueError, TypeError) as error:
            raise UserError(f"--protocol-args: {error}") from error

    @classmethod
    def rule_arguments(cls, tau: float | str = "adaptive") -> dict[str, Any]:
        """Return the clipping radius."""
        return {"tau": tau}
