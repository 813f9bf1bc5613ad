"""Partitions of the training samples over nodes, one file each.

A partition is a class that registers itself under its name. Its file holds how it splits the samples, `split`, and what
its arguments may be, `check`. `template.py` is there to be copied.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from tools.registry import Registry, import_modules

CONTEXT = frozenset({"labels", "n", "rng"})
"""What the caller fills in; users do not set these."""


class Partition(ABC):
    """A way to split samples over nodes: `class IID(Partition, name="iid")`."""

    name: ClassVar[str]

    def __init_subclass__(cls, /, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:
            cls.name = name
            partitions.register(name, cls)

    @classmethod
    def check(cls, *, n: int, **specialized: Any) -> None:
        """Raise ValueError or TypeError for arguments of `split` that are impossible with n nodes."""

    @classmethod
    def reads_labels(cls, **specialized: Any) -> bool:
        """Return whether `split` needs to know which samples are alike."""
        return True

    @classmethod
    @abstractmethod
    def split(cls, labels: np.ndarray, n: int, rng: np.random.Generator, **specialized: Any) -> list[np.ndarray]:
        """Return the indices of the samples of each node, no sample being of two nodes.

        Args:
            labels: class numbers (samples,); all 0 where `reads_labels` is False.
            specialized: in subclasses, named parameters with defaults; `check` has passed them.
        """


partitions: Registry[Partition] = Registry("partition")


def sorted_at_random(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of all samples, sorted by label, those of one label in random order."""
    order = rng.permutation(len(labels))
    return order[np.argsort(labels[order], kind="stable")]


def cut(indices: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut indices (k,) into consecutive parts, one per share.

    A part has its share of k on average, and never differs from it by 1 or more: what is rounded up is drawn, as
    otherwise the same nodes would gain by rounding in every class.

    Args:
        shares: from 0 to 1, of sum 1.
    """
    ends = np.floor(np.cumsum(shares[:-1]) * len(indices) + rng.random())
    return np.split(indices, ends.astype(np.int64))


import_modules(__name__, __path__)
