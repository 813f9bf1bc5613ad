"""No partition: all workers read one stream of all samples."""

from typing import Any

import numpy as np

from experiments.partitions import Partition


class Shared(Partition, name="shared"):
    """Leave the samples together: no node has samples of its own."""

    @classmethod
    def reads_labels(cls, **specialized: Any) -> bool:
        return False

    @classmethod
    def split(cls, labels: np.ndarray, n: int, rng: np.random.Generator, **specialized: Any) -> list[np.ndarray]:
        raise TypeError("shared: it splits nothing, all workers read one stream")
