"""GTS, the geometric trimmed sum of robust gossip.

Source: Gaucher, Dieuleveut and Hendrikx, "Unified Breakdown Analysis for Byzantine Robust Gossip", ICML 2025, GTS in
their framework F-RG with communication step 1. Exactly the weight b is removed, from the neighbour in which b is passed
only its part (their code keeps the part that is to go, and a neighbour less where nothing is to be split). With equal
weights the neighbours kept are those of nearest neighbour averaging (`nna`), which shares the weight removed among all
rows kept; here own takes it.
"""

from torch import Tensor

from aggregators.gossip import WEIGHT_ROUNDING, FarthestFirstRule, own_takes_rest


class GTS(FarthestFirstRule, name="gts"):
    """Remove the weight b from the neighbours farthest from own and give it to own, then mix by weight."""

    @classmethod
    def shares(cls, weights: Tensor, distances: Tensor, beyond: Tensor, declared: Tensor) -> Tensor:
        kept = weights.minimum((weights + beyond - declared).clamp(min=0))
        # What rounding left of a removed neighbour could still be a share of something huge
        return own_takes_rest(kept.where(kept > WEIGHT_ROUNDING, 0), distances)
