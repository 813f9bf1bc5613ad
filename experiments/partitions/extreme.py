"""Samples sorted by label.

Source: with two groups, He, Karimireddy and Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip", 2022,
experiments on a dumbbell, each clique of which has half of the classes.
"""

from typing import Any

import numpy as np

from experiments.partitions import Partition, sorted_at_random
from tools.arguments import check_whole


class Extreme(Partition, name="extreme"):
    """Sort samples by label and give each group of consecutive nodes, by default one node each, a consecutive part.

    Groups have as many nodes as can be, larger ones first, and share their part equally at random. Sizes of nodes
    differ by at most one. No node has more than `samples`, drawn at random from its part, if that is given.
    """

    @classmethod
    def check(cls, *, n: int, groups: int | None = None, samples: int | None = None, **specialized: Any) -> None:
        if groups is not None:
            check_whole(cls.name, "groups", groups, least=1, most=n)
        if samples is not None:
            check_whole(cls.name, "samples", samples, least=1)

    @classmethod
    def split(
        cls,
        labels: np.ndarray,
        n: int,
        rng: np.random.Generator,
        *,
        groups: int | None = None,
        samples: int | None = None,
        **specialized: Any,
    ) -> list[np.ndarray]:
        parts = np.array_split(sorted_at_random(labels, rng), n)
        shared = []
        for nodes in np.array_split(np.arange(n), groups or n):
            together = rng.permutation(np.concatenate([parts[node] for node in nodes]))
            shared += [shard[:samples] for shard in np.array_split(together, len(nodes))]
        return shared
