"""Epidemic learning with an oracle.

Source: de Vos, Farhadkhani, Guerraoui, Kermarrec, Pires and Sharma, "Epidemic Learning: Boosting Decentralized Learning
with Randomized Communication", NeurIPS 2023, EL-Oracle. Its s is k here. EL-Local, whose nodes draw for themselves, is
the protocol `epidemic`.
"""

import random

from networkx import Graph

from experiments.topologies import RedrawnTopology
from experiments.topologies.regular import check_degree, degree, draw_regular


class ELOracle(RedrawnTopology, name="el-oracle"):
    """Every node hears k others, all drawn anew every round among the graphs in which k is everybody's number."""

    @classmethod
    def check(cls, *, n: int, k: int | None = None) -> None:
        super().check(n=n)
        check_degree(cls.name, n, k, least=1)

    @classmethod
    def degrees(cls, n: int, k: int | None = None) -> tuple[int, ...]:
        return (degree(n, k),)

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int, k: int | None = None) -> Graph:
        return draw_regular(n, degree(n, k), rng)
