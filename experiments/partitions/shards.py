"""Consecutive pieces of the samples sorted by label, dealt to nodes.

Source: McMahan, Moore, Ramage, Hampson and Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, section 3: two shards per node. `similarity` chooses between one shard per node and
one sample per shard, which is `iid`.
"""

from typing import Any

import numpy as np

from experiments.partitions import Partition, sorted_at_random
from tools.arguments import check_number, check_whole

DEFAULT_PER_NODE = 2


class Shards(Partition, name="shards"):
    """Sort samples by label, cut them into equal shards, and deal these to nodes at random, `per-node` (2) to each.

    With `similarity` λ instead there are n·(samples / n)^λ shards, from one per node, λ = 0, to one per sample, λ = 1,
    and some nodes may have one more than others. There are never more shards than samples.
    """

    @classmethod
    def check(cls, *, n: int, per_node: int | None = None, similarity: float | None = None, **specialized: Any) -> None:
        if per_node is not None and similarity is not None:
            raise ValueError(f"{cls.name}: expected per-node or similarity, got both")
        if per_node is not None:
            check_whole(cls.name, "per-node", per_node, least=1)
        if similarity is not None:
            check_number(cls.name, "similarity", similarity, least=0, most=1)

    @classmethod
    def split(
        cls,
        labels: np.ndarray,
        n: int,
        rng: np.random.Generator,
        *,
        per_node: int | None = None,
        similarity: float | None = None,
        **specialized: Any,
    ) -> list[np.ndarray]:
        samples = len(labels)
        if similarity is None:
            count = n * (per_node or DEFAULT_PER_NODE)
        else:
            count = round(n * (samples / n) ** similarity)
        shards = np.array_split(sorted_at_random(labels, rng), max(min(count, samples), 1))
        order = rng.permutation(len(shards))
        return [np.concatenate([shards[i] for i in order[node::n]] or [order[:0]]) for node in range(n)]
