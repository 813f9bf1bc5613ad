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
import torch

from experiments.network import Neighbourhoods
from experiments.protocols import Protocol
from tools.errors import UserError
from tools.seeding import make_generator

REACHES = ("all", "sampled")


class Monna(Protocol, name="monna"):
    """A local step of dampened momentum SGD, then the mean of the n − 2f nearest of n − f models received."""

    rule = "nna"
    dampens = True

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

    def neighbourhoods(self) -> Neighbourhoods:
        """Return whom every node hears in the next round, drawn by the seed."""
        n, h, received = self.n, self.h, self.n - self.f_declared
        order = torch.rand(n, n, generator=make_generator(self.seed, "responders", self.step_index))
        if self.arguments.get("reach", "all") == "all":
            order[:h, h:] = -1  # all Byzantine nodes come first
        order.fill_diagonal_(torch.inf)
        others = order.argsort(dim=1)[:, : received - 1].sort(dim=1).values
        senders = torch.cat([torch.arange(n).unsqueeze(1), others], dim=1)
        return Neighbourhoods(
            offsets=numpy.arange(n + 1) * received,
            senders=senders.flatten().numpy(),
            weights=numpy.full(n * received, 1 / received),
        )

    def changes_neighbours(self) -> bool:
        """Return whether nodes hear others from round to round: always."""
        return True

    def local_byz(self, given: int | None) -> int:
        """Return how many of the models that a node has may be Byzantine: as many as are declared."""
        return self.f_declared if given is None else given

    def _refused_by_rule(self) -> frozenset[int]:
        if not self.network.complete:
            raise UserError(f"--topology: expected complete with --protocol monna, got {self.network.name}")
        received = self.n - self.f_declared
        try:
            self._check_number(received)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"--nb-workers, --nb-decl-byz: expected numbers with which nodes receive enough models, got n - f = "
                f"{received}: {error}"
            ) from error
        return frozenset()
