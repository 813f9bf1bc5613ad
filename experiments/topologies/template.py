"""A topology to copy: put your own file beside this one, with its own name. Nothing else needs to change.

Source: (authors, title, venue, year; and what differs from it).
"""

import random

import networkx
from networkx import Graph

from experiments.topologies import Topology
from tools.arguments import check_whole


class Template(Topology, name="template"):
    """A ring in which every node also hears the one across, or `across` nodes further on."""

    @classmethod
    def check(cls, *, n: int, across: int | None = None) -> None:
        super().check(n=n)  # at least `least` nodes
        if across is not None:
            check_whole(cls.name, "across", across, least=1, most=n - 1)

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int, across: int | None = None) -> Graph:
        # Nodes 0 … n−1. What follows `step` is for --topology-args, e.g. across:3. Whatever is drawn is drawn from rng,
        # in a class with `drawn = True`. Graphs that change from round to round: write `period`, or make it a
        # RedrawnTopology.
        return networkx.circulant_graph(n, [1, n // 2 if across is None else across])
