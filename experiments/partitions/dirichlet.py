"""Random shares of each class.

Source: Yurochkin, Agarwal, Ghosh, Greenewald, Hoang and Khazaeni, "Bayesian Nonparametric Federated Learning of Neural
Networks", ICML 2019. Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019, draw the labels of each node instead, all nodes having as many samples; here sizes differ.
"""

from typing import Any

import numpy as np

from experiments.partitions import Partition, cut
from tools.arguments import check_number

MOST_ALPHA = 1e6  # shares are then equal to a thousandth, and far above it Dirichlet draws overflow


class Dirichlet(Partition, name="dirichlet"):
    """Split each class over nodes in shares drawn from Dirichlet(α, …, α): the smaller α, the less alike nodes are.

    Every sample is used. With a small α a node may get nothing.
    """

    @classmethod
    def check(cls, *, n: int, alpha: float = 0.5, **specialized: Any) -> None:
        check_number(cls.name, "alpha", alpha, above=0, most=MOST_ALPHA)

    @classmethod
    def split(
        cls, labels: np.ndarray, n: int, rng: np.random.Generator, *, alpha: float = 0.5, **specialized: Any
    ) -> list[np.ndarray]:
        parts: list[list[np.ndarray]] = [[] for _ in range(n)]
        for label in range(labels.max(initial=0) + 1):
            indices = rng.permutation(np.flatnonzero(labels == label))
            for node, part in enumerate(cut(indices, rng.dirichlet(np.full(n, alpha)), rng)):
                parts[node].append(part)
        return [np.concatenate(part) for part in parts]
