"""The hypercube."""

import cmath
import random

import networkx
import numpy
from networkx import Graph

from experiments.topologies import Topology

AXES = (1, 1j, 0.42 + 0.3j)
"""Where a cube's three directions go on paper, as complex numbers."""
GROWTH = 4.6 * cmath.exp(0.15j)
"""How many times larger a cube of cubes is, and how far it is turned, so that edges do not lead through nodes."""


class Hypercube(Topology, name="hypercube"):
    """Every node hears those whose number differs from its own in one binary digit; n is a power of two."""

    @classmethod
    def check(cls, *, n: int) -> None:
        super().check(n=n)
        below = 1 << (n.bit_length() - 1)
        if n != below:
            raise ValueError(
                f"{cls.name}: expected a power of two as the number of nodes, got {n}; the nearest are {below} and "
                f"{2 * below}"
            )

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int) -> Graph:
        graph = networkx.empty_graph(n)
        digits = [1 << place for place in range(n.bit_length() - 1)]
        graph.add_edges_from((node, node ^ digit) for node in range(n) for digit in digits)
        return graph

    @classmethod
    def layout(cls, graph: Graph) -> numpy.ndarray:
        places = numpy.zeros(len(graph), dtype=complex)
        for digit in range(len(graph).bit_length() - 1):
            size, axis = divmod(digit, len(AXES))
            places += (numpy.arange(len(graph)) >> digit & 1) * AXES[axis] * GROWTH**size
        return numpy.stack([places.real, places.imag], axis=1)
