"""The dumbbell: two cliques joined by one edge, the hardest graph for robust gossip.

Source: He, Karimireddy and Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip", arXiv 2202.01545, 2022.
"""

import random

import numpy
from networkx import Graph

from experiments.topologies import Topology
from experiments.topologies.barbell import make_barbell, side_by_side


class Dumbbell(Topology, name="dumbbell"):
    """Two cliques of ⌈n/2⌉ and ⌊n/2⌋ nodes, the last of one and the first of the other being joined by an edge."""

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int) -> Graph:
        return make_barbell(n, path=0)

    @classmethod
    def layout(cls, graph: Graph) -> numpy.ndarray:
        return side_by_side(len(graph), path=0)
