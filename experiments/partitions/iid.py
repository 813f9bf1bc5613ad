"""Equal random parts."""

from typing import Any

import numpy as np

from experiments.partitions import Partition
from tools.arguments import check_whole


class IID(Partition, name="iid"):
    """Give each node as many samples, drawn at random from all; sizes differ by at most one.

    No node has more than `samples`, if that is given; the rest is of no node.
    """

    @classmethod
    def check(cls, *, n: int, samples: int | None = None, **specialized: Any) -> None:
        if samples is not None:
            check_whole(cls.name, "samples", samples, least=1)

    @classmethod
    def reads_labels(cls, **specialized: Any) -> bool:
        return False

    @classmethod
    def split(
        cls, labels: np.ndarray, n: int, rng: np.random.Generator, *, samples: int | None = None, **specialized: Any
    ) -> list[np.ndarray]:
        return [shard[:samples] for shard in np.array_split(rng.permutation(len(labels)), n)]
