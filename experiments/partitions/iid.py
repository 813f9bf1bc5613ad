"""Equal random parts."""

from typing import Any

import numpy as np

from experiments.partitions import Partition


class IID(Partition, name="iid"):
    """Give each node as many samples, drawn at random from all; sizes differ by at most one."""

    @classmethod
    def reads_labels(cls, **specialized: Any) -> bool:
        return False

    @classmethod
    def split(cls, labels: np.ndarray, n: int, rng: np.random.Generator, **specialized: Any) -> list[np.ndarray]:
        return np.array_split(rng.permutation(len(labels)), n)
