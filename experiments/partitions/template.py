"""A partition to copy: put your own file beside this one, with its own name. Nothing else needs to change.

Source: (authors, title, venue, year, section; and what differs from it).
"""

from typing import Any

import numpy as np

from experiments.partitions import Partition, cut
from tools.arguments import check_number


class Template(Partition, name="template"):
    """Give each node random samples, from node to node more of them, the last `ratio` times as many as the first."""

    @classmethod
    def check(cls, *, n: int, ratio: float = 3.0, **specialized: Any) -> None:
        # Errors are ValueError or TypeError; the command line puts --partition-args before them.
        check_number(cls.name, "ratio", ratio, least=1, most=1_000)

    @classmethod
    def reads_labels(cls, **specialized: Any) -> bool:
        return False  # the default is True, and refuses data that has no labels

    @classmethod
    def split(
        cls, labels: np.ndarray, n: int, rng: np.random.Generator, *, ratio: float = 3.0, **specialized: Any
    ) -> list[np.ndarray]:
        # labels: class numbers (samples,), from 0. Returns n arrays of indices, in any order; no sample may be in two
        # of them. All randomness comes from rng. What follows it is for --partition-args, e.g. ratio:5.
        shares = np.linspace(1, ratio, n)
        return cut(rng.permutation(len(labels)), shares / shares.sum(), rng)
