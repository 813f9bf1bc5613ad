"""Nodes with more samples than others, of the same labels.

Source: quantity skew in Li, Diao, Chen and He, "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE
2022. What differs: no node goes without a sample.
"""

from typing import Any

import numpy as np

from experiments.partitions import Partition, cut
from experiments.partitions.dirichlet import MOST_ALPHA
from tools.arguments import check_number


class Quantity(Partition, name="quantity"):
    """Give each node one sample, and of the others, all at random, a share drawn from Dirichlet(α, …, α).

    The smaller α, the more sizes differ.
    """

    @classmethod
    def check(cls, *, n: int, alpha: float = 0.5, **specialized: Any) -> None:
        check_number(cls.name, "alpha", alpha, above=0, most=MOST_ALPHA)

    @classmethod
    def reads_labels(cls, **specialized: Any) -> bool:
        return False

    @classmethod
    def split(
        cls, labels: np.ndarray, n: int, rng: np.random.Generator, *, alpha: float = 0.5, **specialized: Any
    ) -> list[np.ndarray]:
        one_each, others = np.split(rng.permutation(len(labels)), [min(n, len(labels))])
        parts = cut(others, rng.dirichlet(np.full(n, alpha)), rng)
        return [np.concatenate(pair) for pair in zip(np.array_split(one_each, n), parts, strict=True)]
