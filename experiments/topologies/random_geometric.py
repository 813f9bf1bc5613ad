"""Random geometric graphs: nodes that are close hear each other, as radios do.

Source: Gilbert, "Random Plane Networks", Journal of the Society for Industrial and Applied Mathematics 1961; Gupta and
Kumar, "Critical Power for Asymptotic Connectivity in Wireless Networks", 1998, show that most are connected from
radius √(ln(n) / (πn)) on.
"""

import math
import random

import networkx
import numpy
from networkx import Graph

from experiments.topologies import Topology
from tools.arguments import check_number


class RandomGeometric(Topology, name="random-geometric"):
    """Nodes at random places of the unit square hear those within `radius`, by default √(3 ln(n) / (πn))."""

    drawn = True

    @classmethod
    def check(cls, *, n: int, radius: float | None = None) -> None:
        super().check(n=n)
        if radius is not None:
            check_number(cls.name, "radius", radius, above=0, most=math.sqrt(2))

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int, radius: float | None = None) -> Graph:
        radius = math.sqrt(3 * math.log(n) / (math.pi * n)) if radius is None else radius
        return networkx.random_geometric_graph(n, radius, seed=rng)

    @classmethod
    def layout(cls, graph: Graph, *, radius: float | None = None) -> numpy.ndarray:
        return numpy.array([place for _, place in graph.nodes(data="pos")])
