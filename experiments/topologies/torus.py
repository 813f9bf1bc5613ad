"""The torus: a grid whose opposite sides are joined."""

import math
import random

import networkx
import numpy
from networkx import Graph

from experiments.topologies import Topology


def shape(n: int) -> tuple[int, int]:
    """Return the rows and columns of the grid of n nodes that is closest to a square, no more rows than columns."""
    rows = next(rows for rows in range(math.isqrt(n), 0, -1) if n % rows == 0)
    return rows, n // rows


class Torus(Topology, name="torus"):
    """Every node hears the four around it, in the grid of n nodes closest to a square, opposite sides being joined.

    In a grid of two rows those above and below are one node, and a prime n leaves one row: the ring.
    """

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int) -> Graph:
        return networkx.convert_node_labels_to_integers(networkx.grid_2d_graph(*shape(n), periodic=True))

    @classmethod
    def layout(cls, graph: Graph) -> numpy.ndarray:
        rows, columns = shape(len(graph))
        if rows == 1:
            return super().layout(graph)
        return numpy.array([(column, -row) for row in range(rows) for column in range(columns)], dtype=float)
