"""Random regular graphs.

Source: Steger and Wormald, "Generating Random Regular Graphs Quickly", Combinatorics, Probability and Computing 1999.
"""

import random

import networkx
from networkx import Graph

from experiments.topologies import Topology
from tools.arguments import check_whole


def degree(n: int, k: int | None) -> int:
    """Return the number of neighbours: k or, by default, 4, which goes with every n above it."""
    return min(4, n - 1) if k is None else k


def check_degree(name: str, n: int, k: int | None, least: int) -> None:
    """Raise unless n nodes can have k neighbours each, k being at least so many."""
    k = degree(n, k)
    check_whole(name, "k", k, least=least, most=n - 1)
    if n * k % 2:
        raise ValueError(f"{name}: expected an even k for an odd number of nodes, got k = {k} for n = {n}")


def draw_regular(n: int, k: int, rng: random.Random) -> Graph:
    """Return a random graph of n nodes with k neighbours each."""
    if 2 * k < n:
        return networkx.random_regular_graph(k, n, seed=rng)
    # Edges are tried one by one, and among many neighbours hardly a free one is found: draw those that are not there
    return networkx.complement(networkx.random_regular_graph(n - 1 - k, n, seed=rng))


class Regular(Topology, name="regular"):
    """Every node hears k others, drawn at random among the graphs in which k is everybody's number."""

    drawn = True

    @classmethod
    def check(cls, *, n: int, k: int | None = None) -> None:
        super().check(n=n)
        check_degree(cls.name, n, k, least=min(2, n - 1))

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int, k: int | None = None) -> Graph:
        return draw_regular(n, degree(n, k), rng)
