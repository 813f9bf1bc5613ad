"""The balanced tree."""

import random

import networkx
import numpy
from networkx import Graph

from experiments.topologies import Topology
from tools.arguments import check_whole

HEIGHT = 0.5
"""Of a drawing, at least, as a share of its width."""


class Tree(Topology, name="tree"):
    """A balanced tree, filled level by level from node 0 on: every node hears its parent and `branching` children."""

    @classmethod
    def check(cls, *, n: int, branching: int = 2) -> None:
        super().check(n=n)
        check_whole(cls.name, "branching", branching, least=1)

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int, branching: int = 2) -> Graph:
        return networkx.full_rary_tree(branching, n)

    @classmethod
    def layout(cls, graph: Graph, *, branching: int = 2) -> numpy.ndarray:
        places = numpy.zeros((len(graph), 2))
        children = dict(networkx.bfs_successors(graph, 0))
        leaves = (node for node in networkx.dfs_preorder_nodes(graph, 0) if node not in children)
        for column, leaf in enumerate(leaves):
            places[leaf, 0] = column
        for node in sorted(children, reverse=True):  # a parent has a smaller number than its children
            places[node, 0] = places[children[node], 0].mean()
        depths = networkx.shortest_path_length(graph, 0)
        between_levels = max(1, HEIGHT * places[:, 0].max() / max(depths.values()))
        for node, depth in depths.items():
            places[node, 1] = -between_levels * depth
        return places
