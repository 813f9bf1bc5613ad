"""Remove-then-clip.

Source: Yang and Ghaderi, "Byzantine-Robust Decentralized Learning via Remove-then-Clip Aggregation", AAAI 2024,
algorithm 1. Removed are whole neighbours, the farthest first, as long as they weigh at most b together: at least the f
farthest. What they weighed goes to own, about whom the others are clipped.
"""

from torch import Tensor

from aggregators.gossip import WEIGHT_ROUNDING, FarthestFirstRule, clipped, estimated_radius


class RTC(FarthestFirstRule, name="rtc"):
    """Remove the farthest neighbours, of weight b, and clip the others to τ = √(Σ wⱼ‖xⱼ − own‖² / b), their own sum."""

    @classmethod
    def shares(cls, weights: Tensor, distances: Tensor, beyond: Tensor, declared: Tensor) -> Tensor:
        kept = beyond + weights > declared + WEIGHT_ROUNDING
        return clipped(weights * kept, distances, estimated_radius(distances, weights, kept, declared))
