"""The ring."""

import random

import networkx
from networkx import Graph

from experiments.topologies import Topology


class Ring(Topology, name="ring"):
    """Every node hears the one before and the one after it."""

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int) -> Graph:
        return networkx.cycle_graph(n)
