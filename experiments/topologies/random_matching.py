"""Random matchings: gossip in pairs.

Source: Boyd, Ghosh, Prabhakar and Shah, "Randomized Gossip Algorithms", IEEE Transactions on Information Theory 2006,
in its synchronous form: as many disjoint pairs as possible meet in a round, instead of one.
"""

import random

import networkx
from networkx import Graph

from experiments.topologies import RedrawnTopology


class RandomMatching(RedrawnTopology, name="random-matching"):
    """Nodes meet in pairs drawn anew every round; of an odd number of nodes one hears nobody."""

    @classmethod
    def degrees(cls, n: int) -> tuple[int, ...]:
        return (0, 1) if n % 2 else (1,)

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int) -> Graph:
        order = rng.sample(range(n), n)
        graph = networkx.empty_graph(n)
        graph.add_edges_from(zip(order[::2], order[1::2], strict=False))
        return graph
