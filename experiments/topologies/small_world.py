"""Small worlds.

Source: Watts and Strogatz, "Collective Dynamics of 'Small-World' Networks", Nature 1998.
"""

import random

import networkx
from networkx import Graph

from experiments.topologies import Topology
from tools.arguments import check_number, check_whole


def degree(n: int, k: int | None) -> int:
    """Return the mean number of neighbours: k or, by default, 4, or 2 among fewer than five nodes."""
    return (4 if n > 4 else 2) if k is None else k


class SmallWorld(Topology, name="small-world"):
    """A ring in which every node hears the k closest, each edge moved elsewhere with probability p."""

    least = 3
    drawn = True

    @classmethod
    def check(cls, *, n: int, k: int | None = None, p: float = 0.1) -> None:
        super().check(n=n)
        k = degree(n, k)
        check_whole(cls.name, "k", k, least=2, most=n - 1)
        if k % 2:
            raise ValueError(f"{cls.name}: expected an even k, half of it on each side, got {k}")
        check_number(cls.name, "p", p, least=0, most=1)

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int, k: int | None = None, p: float = 0.1) -> Graph:
        return networkx.watts_strogatz_graph(n, degree(n, k), p, seed=rng)
