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

    Groups have as many nodes as can be, larger ones first, and share their part equally at random. Parts are of equal
    size for each node, so that two groups may share a label (`by` samples), or have as many labels each as can be, and
    no label is in two (`by` labels). No node has more than `samples`, drawn at random from its part, if that is given.
    """

    @classmethod
    def check(
        cls, *, n: int, groups: int | None = None, by: str = "samples", samples: int | None = None, **specialized: Any
    ) -> None:
        if groups is not None:
            check_whole(cls.name, "groups", groups, least=1, most=n)
        if by not in ("samples", "labels"):
            raise ValueError(f"{cls.name}: expected samples or labels as by, got {by!r}")
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
        by: str = "samples",
        samples: int | None = None,
        **specialized: Any,
    ) -> list[np.ndarray]:
        ordered = sorted_at_random(labels, rng)
        nodes = np.array_split(np.arange(n), groups or n)
        if by == "labels":
            kinds = np.array_split(np.unique(labels), len(nodes))
            parts = [ordered[np.isin(labels[ordered], kind)] for kind in kinds]
        else:
            own = np.array_split(ordered, n)
            parts = [np.concatenate([own[node] for node in group]) for group in nodes]
        shared = []
        for group, part in zip(nodes, parts, strict=True):
            shared += [shard[:samples] for shard in np.array_split(rng.permutation(part), len(group))]
        return shared
