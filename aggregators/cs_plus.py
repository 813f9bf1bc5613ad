"""CS₊, the clipped sum of robust gossip.

Source: Gaucher, Dieuleveut and Hendrikx, "Unified Breakdown Analysis for Byzantine Robust Gossip", ICML 2025, CS₊ in
their framework F-RG with communication step 1. As in their code, whole neighbours are clipped, those that weigh
*at least* 2b together: where 2b is passed inside a neighbour, it is clipped as well.
"""

from torch import Tensor

from aggregators.gossip import WEIGHT_ROUNDING, FarthestFirstRule, clipped, farthest_distance


class CSPlus(FarthestFirstRule, name="cs+"):
    """Clip the farthest neighbours, of weight 2b, to the distance of the farthest other one, and mix by weight.

    Where all neighbours together weigh no more than 2b, that distance is zero, and own is the result.
    """

    @classmethod
    def shares(cls, weights: Tensor, distances: Tensor, beyond: Tensor, declared: Tensor) -> Tensor:
        radius = farthest_distance(distances, beyond >= 2 * declared - WEIGHT_ROUNDING)
        return clipped(weights, distances, radius)
