"""A share of the samples equally at random, the rest sorted by label.

Source: Karimireddy, Kale, Mohri, Reddi, Stich and Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated
Learning", ICML 2020, section 7, where γ is "similarity".
"""

from typing import Any

import numpy as np

from experiments.partitions import Partition
from experiments.partitions.mixing import Mixing
from tools.arguments import check_number


class GammaSimilarity(Partition, name="gamma-similarity"):
    """Give nodes equal random parts of a share γ of the samples, and consecutive parts of the rest, sorted by label."""

    @classmethod
    def check(cls, *, n: int, gamma: float = 0.5, **specialized: Any) -> None:
        check_number(cls.name, "gamma", gamma, least=0, most=1)

    @classmethod
    def split(
        cls, labels: np.ndarray, n: int, rng: np.random.Generator, *, gamma: float = 0.5, **specialized: Any
    ) -> list[np.ndarray]:
        return Mixing.split(labels, n, rng, first="iid", second="extreme", share=gamma)
