"""Two worlds: two cliques with a number of edges between them.

Source: Gaucher, Dieuleveut and Hendrikx, "Unified Breakdown Analysis for Byzantine Robust Gossip", ICML 2025, and its
code, which joins node i of one half to `hyper` consecutive nodes of the other, from its counterpart on. Where n is odd
the clique of ⌈n/2⌉ nodes comes first here, so that all its nodes are joined to the other, and all of the other to it.
Their graphs are of honest nodes only, 26 with 8 edges each or 16 with 6; here Byzantine nodes have places in it.
"""

import random

import numpy
from networkx import Graph

from experiments.topologies import Topology
from experiments.topologies.barbell import cliques, make_cliques, side_by_side
from tools.arguments import check_whole


class TwoWorlds(Topology, name="two-worlds"):
    """Two cliques of ⌈n/2⌉ and ⌊n/2⌋ nodes; each of the first hears `hyper` of the second, by default half of them."""

    @classmethod
    def check(cls, *, n: int, hyper: int | None = None) -> None:
        super().check(n=n)
        if hyper is not None:
            check_whole(cls.name, "hyper", hyper, least=1, most=n // 2)

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int, hyper: int | None = None) -> Graph:
        first, second = cliques(n, path=0)
        hyper = (second + 1) // 2 if hyper is None else hyper
        graph = make_cliques(n, path=0)
        graph.add_edges_from((i, first + (i + k) % second) for i in range(first) for k in range(hyper))
        return graph

    @classmethod
    def layout(cls, graph: Graph, *, hyper: int | None = None) -> numpy.ndarray:
        return side_by_side(len(graph), path=0)
