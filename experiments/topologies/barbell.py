"""Two cliques joined by a path."""

import math
import random
from itertools import combinations

import networkx
import numpy
from networkx import Graph

from experiments.topologies import Topology
from tools.arguments import check_whole


def cliques(n: int, path: int) -> tuple[int, int]:
    """Return the sizes of two cliques, as equal as can be, that take the nodes a path leaves."""
    return (n - path + 1) // 2, (n - path) // 2


def make_cliques(n: int, path: int) -> Graph:
    """Return two cliques, of the first and of the last nodes, the rest being in neither."""
    first, second = cliques(n, path)
    graph = networkx.empty_graph(n)
    graph.add_edges_from(combinations(range(first), 2))
    graph.add_edges_from(combinations(range(n - second, n), 2))
    return graph


def make_barbell(n: int, path: int) -> Graph:
    """Return two cliques whose closest numbers are joined by a path of further nodes, or by one edge."""
    first, second = cliques(n, path)
    graph = make_cliques(n, path)
    networkx.add_path(graph, range(first - 1, n - second + 1))
    return graph


def side_by_side(n: int, path: int) -> numpy.ndarray:
    """Return two circles with a path between them, (n, 2)."""
    first, second = cliques(n, path)
    gap = max((path + 1) * 2 * math.sin(math.pi / max(first, 2)), 1)  # nodes as far apart as on the circles
    left = 2 * math.pi * (numpy.arange(first) + 1) / first  # the last one, and on the right the first, at the path
    right = math.pi + 2 * math.pi * numpy.arange(second) / second
    middle = 1 + gap * numpy.arange(1, path + 1) / (path + 1)
    x = numpy.concatenate([numpy.cos(left), middle, 2 + gap + numpy.cos(right)])
    y = numpy.concatenate([numpy.sin(left), numpy.zeros(path), numpy.sin(right)])
    return numpy.stack([x, y], axis=1)


class Barbell(Topology, name="barbell"):
    """Two cliques as equal as can be, joined by a path of `path` further nodes, by default a third of all."""

    @classmethod
    def check(cls, *, n: int, path: int | None = None) -> None:
        super().check(n=n)
        if path is not None:
            check_whole(cls.name, "path", path, least=0, most=n - 2)

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int, path: int | None = None) -> Graph:
        return make_barbell(n, n // 3 if path is None else path)

    @classmethod
    def layout(cls, graph: Graph, *, path: int | None = None) -> numpy.ndarray:
        return side_by_side(len(graph), len(graph) // 3 if path is None else path)
