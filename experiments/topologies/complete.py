"""The complete graph."""

import random

import networkx
from networkx import Graph

from experiments.topologies import Topology


class Complete(Topology, name="complete"):
    """Every node hears every other."""

    least = 1

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int) -> Graph:
        return networkx.complete_graph(n)
