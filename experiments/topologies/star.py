"""The star."""

import random

import networkx
import numpy
from networkx import Graph

from experiments.topologies import Topology, circle


class Star(Topology, name="star"):
    """Node 0 and every other hear each other; `server` is what has a server in the middle."""

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int) -> Graph:
        return networkx.star_graph(n - 1)

    @classmethod
    def layout(cls, graph: Graph) -> numpy.ndarray:
        return numpy.concatenate([numpy.zeros((1, 2)), circle(len(graph) - 1)])
