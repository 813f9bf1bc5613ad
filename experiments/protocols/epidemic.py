"""Epidemic learning: in every round nodes hear a few others at random, then mix by a rule.

Sources: de Vos, Farhadkhani, Guerraoui, Kermarrec, Pires and Sharma, "Epidemic Learning: Boosting Decentralized
Learning with Randomized Communication", NeurIPS 2023, EL-Local: every node pushes its model to s others, and averages
what it got with its own. "Robust Pull-based Epidemic Learning" (RPEL), arXiv 2510.08311, 2025: every node pulls from s
others, of which Byzantine ones cannot be more than chance allows, and mixes by a robust rule (there trmean after nnm).

With `mode:push` a node that got too few models for the rule keeps its own in that round, and Byzantine nodes, as all
others, reach s nodes, or with `flood:True` everybody.
"""

import math

import torch

from experiments.network import Neighbourhoods
from experiments.protocols import Protocol
from tools.errors import UserError
from tools.seeding import make_generator

MODES = ("pull", "push")


class Epidemic(Protocol, name="epidemic"):
    """A local step, then models pulled from, or pushed to, `peers` random neighbours, mixed by any rule."""

    @classmethod
    def check(
        cls, *, n: int, f: int, f_real: int, peers: int | None = None, mode: str = "pull", flood: bool = False
    ) -> None:
        if peers is not None and (type(peers) is not int or not 1 <= peers < n):
            raise UserError(f"--protocol-args: expected peers:1 to peers:{n - 1} for {n} nodes, got {peers!r}")
        if n < 2:
            raise UserError(f"--nb-workers: expected at least 2 nodes with --protocol epidemic, got {n}")
        if mode not in MODES:
            raise UserError(f"--protocol-args: expected mode:pull or mode:push, got {mode!r}")
        if type(flood) is not bool or (flood and mode != "push"):
            raise UserError(f"--protocol-args: expected flood:True or False, True with mode:push only, got {flood!r}")

    @property
    def peers(self) -> int:
        """How many others each node pulls from or pushes to: by default ⌈log₂ n⌉."""
        return self.arguments.get("peers") or max(math.ceil(math.log2(self.n)), 1)

    @property
    def pushes(self) -> bool:
        """Whether nodes push, and do not pull."""
        return self.arguments.get("mode", "pull") == "push"

    def neighbourhoods(self) -> Neighbourhoods:
        """Return whom every node hears in the next round, drawn by the seed among its neighbours."""
        allowed = torch.as_tensor(self.network.adjacency(self.step_index))  # row i: whom i hears
        order = torch.rand(self.n, self.n, generator=make_generator(self.seed, "peers", self.step_index))
        if self.pushes:
            allowed = allowed.mT
        order = order.where(allowed, torch.inf)
        ranks = order.argsort(dim=1).argsort(dim=1)
        heard = allowed & (ranks < self.peers)
        if self.pushes:
            if self.arguments.get("flood", False):
                heard[self.h :] = allowed[self.h :]
            heard = heard.mT
        receivers, senders = heard.nonzero(as_tuple=True)
        sizes = heard.sum(dim=1) + 1
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        own = torch.arange(self.n)
        everyone, heard_by = torch.cat([own, senders]), torch.cat([own, receivers])
        everyone = everyone[heard_by.argsort(stable=True)]  # themselves first
        return Neighbourhoods(
            offsets=offsets.numpy(),
            senders=everyone.numpy(),
            weights=(1 / sizes.double()).repeat_interleave(sizes).numpy(),
        )

    def changes_neighbours(self) -> bool:
        """Return whether nodes hear others from round to round: always."""
        return True

    def _refused_by_rule(self) -> frozenset[int]:
        if self.pushes:
            return frozenset(size for size in range(1, self.n + 1) if not self._takes(size))
        degrees = self.network.adjacency(0).sum(axis=1)
        for node, degree in zip(self.network.nodes[: self.h], degrees, strict=False):
            received = 1 + min(self.peers, int(degree))
            try:
                self._check_number(received)
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"--protocol-args, --nb-local-byz: expected enough peers for the rule, got node {node} with "
                    f"{received - 1}: {error}"
                ) from error
        return frozenset()

    def _takes(self, received: int) -> bool:
        try:
            self._check_number(received)
        except (ValueError, TypeError):
            return False
        return True
