"""One-peer exponential graphs: an exponential graph, one edge per node at a time.

Source: Ying, Yuan, Chen, Hu, Pan and Yin, "Exponential Graph is Provably Efficient for Decentralized Deep Training",
NeurIPS 2021: if n is a power of two, the rounds of a period together give every node the exact average.
"""

import random

from networkx import DiGraph

from experiments.topologies import Topology
from experiments.topologies.exponential import circulant, distances


class OnePeerExponential(Topology, name="one-peer-exponential"):
    """Node i hears node i − 2ʲ, modulo n, with j = 0, 1 … ⌈log₂ n⌉ − 1 in turn; edges have one direction."""

    @classmethod
    def period(cls, n: int) -> int:
        return len(distances(n))

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int) -> DiGraph:
        return circulant(n, [distances(n)[step % cls.period(n)]])
