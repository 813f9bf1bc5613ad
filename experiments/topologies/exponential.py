"""Exponential graphs: few edges, and few rounds from any node to any other.

Source: Ying, Yuan, Chen, Hu, Pan and Yin, "Exponential Graph is Provably Efficient for Decentralized Deep Training",
NeurIPS 2021. Node i hears those behind it, instead of those ahead: the same graph with its nodes numbered backwards.
"""

import random

from networkx import DiGraph

from experiments.topologies import Topology


def distances(n: int) -> list[int]:
    """Return the powers of two below n, of which there are ⌈log₂ n⌉."""
    return [2**exponent for exponent in range((n - 1).bit_length())]


def circulant(n: int, distances: list[int]) -> DiGraph:
    """Return the graph in which every node hears those so far behind it on a ring."""
    graph = DiGraph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(((node - distance) % n, node) for node in range(n) for distance in distances)
    return graph


class Exponential(Topology, name="exponential"):
    """Node i hears nodes i − 1, i − 2, i − 4, i − 8 …, modulo n; edges have one direction."""

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int) -> DiGraph:
        return circulant(n, distances(n))
