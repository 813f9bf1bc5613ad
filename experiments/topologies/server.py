"""The server: not a graph of workers, but what distributed learning has instead."""

import random

from networkx import Graph

from experiments.topologies import Topology


class Server(Topology, name="server"):
    """Every worker talks to one server, which mixes what it hears; the default, and the only one without a graph."""

    @classmethod
    def check(cls, *, n: int) -> None:
        raise ValueError(f"{cls.name}: expected workers that hear each other, but they talk to a server only")

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int) -> Graph:
        cls.check(n=n)
