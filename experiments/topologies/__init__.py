"""Topologies: who hears whom, one file each.

A topology is a class that registers itself under its name. It makes graphs of n nodes and says how they change from
round to round. No dependency on torch, so that networks can be drawn without it. `template.py` is there to be copied.
"""

import math
import random
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy
from networkx import Graph

from tools.registry import Registry, import_modules

CONTEXT = frozenset({"n", "rng", "step"})
"""What the caller of `Topology.graph` fills in, and users do not set."""


class Topology(ABC):
    """Who hears whom: `class Ring(Topology, name="ring")`.

    What `graph` takes besides `CONTEXT` is for `--topology-args`; every other method receives it as well.
    """

    name: ClassVar[str]
    least: ClassVar[int] = 2
    """Nodes it has at least."""
    drawn: ClassVar[bool] = False
    """Whether the graph is drawn at random, so that another draw may give another one."""

    def __init_subclass__(cls, /, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:
            cls.name = name
            topologies.register(name, cls)

    @classmethod
    @abstractmethod
    def graph(cls, n: int, *, rng: random.Random, step: int, **arguments: Any) -> Graph:
        """Return who hears whom in a round.

        Args:
            rng: starts anew for every round, in the same way but where graphs are redrawn; one that must be connected
                and is not is drawn again with it.
            step: number of the round, from 0.

        Returns:
            A graph with nodes 0 … n−1 and without self-loops. Neighbours hear each other; in a DiGraph an edge u → v
            says that v hears u.
        """

    @classmethod
    def check(cls, *, n: int, **arguments: Any) -> None:
        """Raise ValueError or TypeError, with what was got and what was expected, if there is no such graph."""
        if n < cls.least:
            raise ValueError(f"{cls.name}: expected at least {cls.least} nodes, got {n}")

    @classmethod
    def period(cls, n: int, **arguments: Any) -> int | None:
        """Return after how many rounds the graphs repeat, 1 where there is only one; None: see `RedrawnTopology`."""
        return 1

    @classmethod
    def layout(cls, graph: Graph, **arguments: Any) -> numpy.ndarray:
        """Return where to draw the nodes, (n, 2): to the right and up, in any unit."""
        return circle(len(graph))


class RedrawnTopology(Topology):
    """A topology drawn anew every round, in which every node has the same chances to hear any other."""

    drawn = True

    @classmethod
    @abstractmethod
    def degrees(cls, n: int, **arguments: Any) -> tuple[int, ...]:
        """Return the numbers of neighbours that a node can have in a round."""

    @classmethod
    def period(cls, n: int, **arguments: Any) -> None:
        return None


topologies: Registry[Topology] = Registry("topology")


def circle(n: int) -> numpy.ndarray:
    """Return n points on the unit circle, (n, 2), from the top on clockwise."""
    angles = math.pi / 2 - 2 * math.pi * numpy.arange(n) / n
    return numpy.stack([numpy.cos(angles), numpy.sin(angles)], axis=1)


import_modules(__name__, __path__)
