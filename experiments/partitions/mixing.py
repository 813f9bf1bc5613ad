"""Two partitions at once.

Source: the mixture of an equal and a sorted part in Karimireddy, Kale, Mohri, Reddi, Stich and Suresh, "SCAFFOLD:
Stochastic Controlled Averaging for Federated Learning", ICML 2020, section 7, for any two.
"""

from typing import Any

import numpy as np

from experiments.partitions import CONTEXT, Partition, partitions
from experiments.partitions.shared import Shared
from tools.arguments import bind, check_number


class Mixing(Partition, name="mixing"):
    """Split a share of the samples, drawn at random, by the `first` partition, and the rest by the `second`."""

    @classmethod
    def check(
        cls,
        *,
        n: int,
        first: str = "iid",
        second: str = "extreme",
        share: float = 0.5,
        first_args: dict[str, Any] | None = None,
        second_args: dict[str, Any] | None = None,
        **specialized: Any,
    ) -> None:
        check_number(cls.name, "share", share, least=0, most=1)
        for which, name, arguments in (("first", first, first_args), ("second", second, second_args)):
            if not isinstance(name, str) or name == Shared.name:
                raise ValueError(f"{cls.name}: expected a partition that splits as {which}, got {name!r}")
            partition, bound = _bound(name, arguments, f"{cls.name}: {which}-args")
            partition.check(n=n, **bound)

    @classmethod
    def reads_labels(
        cls,
        *,
        first: str = "iid",
        second: str = "extreme",
        first_args: dict[str, Any] | None = None,
        second_args: dict[str, Any] | None = None,
        **specialized: Any,
    ) -> bool:
        both = (_bound(first, first_args, cls.name), _bound(second, second_args, cls.name))
        return any(partition.reads_labels(**arguments) for partition, arguments in both)

    @classmethod
    def split(
        cls,
        labels: np.ndarray,
        n: int,
        rng: np.random.Generator,
        *,
        first: str = "iid",
        second: str = "extreme",
        share: float = 0.5,
        first_args: dict[str, Any] | None = None,
        second_args: dict[str, Any] | None = None,
        **specialized: Any,
    ) -> list[np.ndarray]:
        order = rng.permutation(len(labels))
        middle = round(share * len(labels))
        parts = []
        for indices, name, arguments in (
            (order[:middle], first, first_args),
            (order[middle:], second, second_args),
        ):
            partition, bound = _bound(name, arguments, cls.name)
            parts.append([indices[part] for part in partition.split(labels[indices], n, rng, **bound)])
        return [np.concatenate(pair) for pair in zip(*parts, strict=True)]


def _bound(name: str, arguments: dict[str, Any] | None, what: str) -> tuple[type[Partition], dict[str, Any]]:
    """Return a partition and its arguments, whose keys may have hyphens as on the command line."""
    partition = partitions[name]
    if arguments is not None and not isinstance(arguments, dict):
        raise TypeError(f"{what}: expected a dictionary such as {{'alpha':1}}, got {arguments!r}")
    pairs = {str(key).replace("-", "_"): value for key, value in (arguments or {}).items()}
    return partition, bind(partition.split, pairs, f"{what}: {name}", CONTEXT)
