"""Random graphs with independent edges.

Source: Gilbert, "Random Graphs", Annals of Mathematical Statistics 1959. Erdős and Rényi, "On Random Graphs", 1959,
show that from p = ln(n) / n on most are connected.
"""

import math
import random

import networkx
from networkx import Graph

from experiments.topologies import Topology
from tools.arguments import check_number


class ErdosRenyi(Topology, name="erdos-renyi"):
    """Any two nodes hear each other with probability p, by default 2 ln(n) / n."""

    drawn = True

    @classmethod
    def check(cls, *, n: int, p: float | None = None) -> None:
        super().check(n=n)
        if p is not None:
            check_number(cls.name, "p", p, above=0, most=1)

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int, p: float | None = None) -> Graph:
        p = min(2 * math.log(n) / n, 1) if p is None else p
        return networkx.gnp_random_graph(n, p, seed=rng)
