"""MoNNA: momentum SGD at every node, then the mean of the nearest of the models received.

Source: Farhadkhani, Guerraoui, Gupta, Hoang, Pinot and Stephan, "Robust Collaborative Learning with Linear Gradient
Overhead", ICML 2023, algorithm 1. Momentum is m ← βm + (1−β)(g + λθ). A node has n − f models, its own among them, of
which the rule, nearest neighbour averaging, keeps the n − 2f nearest to its own. Which n − f these are:

- reach `all`, the worst case: its own, those of all Byzantine nodes, and n − 2f − 1 of random honest ones (more, if
  fewer are Byzantine than declared);
- reach `sampled`: its own, and n − f − 1 drawn from all others.

With another `--gar` the same models go through that rule, as in the paper's comparisons.
"""

import numpy

from experiments.network import Heard, Neighbourhoods
from experiments.protocols import Protocol
from experiments.worker_streams import random_ranks
from tools.errors import UserError

REACHES = ("all", "sampled")


class Monna(Protocol, name="monna"):
    """A local step of dampened momentum SGD, then the mean of the n − 2f nearest of n − f models received."""

    rule = "nna"
    dampens = True
    way_out = "n ≥ 3f + 1 for nna, --protocol-args reach:sampled"

    @classmethod
    def check(cls, *, n: int, f: int, f_real: int, reach: str = "all") -> None:
        if reach not in REACHES:
            raise UserError(f"--protocol-args: expected reach:all or reach:sampled, got {reach!r}")
        if n - 2 * f < 1:
            raise UserError(f"--nb-decl-byz: expected less than half of {n} nodes with --protocol monna, got {f}")
        if reach == "all" and n - f < 1 + f_real:
            raise UserError(
                f"--nb-real-byz: expected at most {n - f - 1}, whose models and a node's own are among the "
                f"{n - f} it receives, got {f_real}; with --protocol-args reach:sampled there may be more"
            )

    @property
    def received(self) -> int:
        """How many models a node has in a round, its own among them."""
        return self.n - self.f_declared

    def neighbourhoods(self) -> Neighbourhoods:
        """Return whom every node hears in the next round, drawn by the seed."""
        n, h, received = self.n, self.h, self.received
        order = random_ranks(self.seed, "responders", self.step_index, n)
        if self.arguments.get("reach", "all") == "all":
            order[:h, h:] = -1  # all Byzantine nodes come first
        numpy.fill_diagonal(order, n)
        others = numpy.sort(order.argsort(axis=1, kind="stable")[:, : received - 1], axis=1)
        senders = numpy.concatenate([numpy.arange(n)[:, None], others], axis=1)
        weights = numpy.full(n * received, 1 / received)
        return Neighbourhoods(numpy.arange(n + 1) * received, senders.ravel(), weights)

    def changes_neighbours(self) -> bool:
        """Return whether nodes hear others from round to round: always."""
        return True

    def local_byz(self, given: int | None) -> int:
        """Return how many of the models that a node has may be Byzantine: as many as are declared."""
        return self.f_declared if given is None else given

    def heard(self) -> Heard:
        """Return how many others nodes hear in a round, and how many Byzantine ones they hear for certain."""
        others = numpy.full((1, self.n), self.received - 1)
        reached = self.arguments.get("reach", "all") == "all"
        certain = self.f if reached else max(self.received - self.h, 0)
        return Heard(others, numpy.full((1, self.h), certain), at_least=True)

    def check_rule(self) -> frozenset[int]:
        """Return the number of received vectors, of all nodes the same, if the rule cannot take it; see `Protocol`."""
        if not self.network.complete:
            raise UserError(f"--topology: expected complete with --protocol monna, got {self.network.name}")
        return super().check_rule()

    def describe_condition(self) -> str:
        """Return where the condition of the rule holds, for people."""
        if self.weak_nodes:
            return super().describe_condition()
        most = min(self.f, self.received - 1)
        heard = f"of the {self.received} models that a node has"
        if most <= self.nb_local_byz:
            return f"holds in every round; at most {most} {heard} are Byzantine"
        return f"holds in rounds in which at most {self.nb_local_byz} {heard} are Byzantine; chance may give it {most}"
