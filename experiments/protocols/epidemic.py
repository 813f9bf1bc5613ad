"""Epidemic learning: in every round nodes hear a few others at random, then mix by a rule.

Sources: de Vos, Farhadkhani, Guerraoui, Kermarrec, Pires and Sharma, "Epidemic Learning: Boosting Decentralized
Learning with Randomized Communication", NeurIPS 2023, EL-Local: every node pushes its model to s others, and averages
what it got with its own. "Robust Pull-based Epidemic Learning" (RPEL), arXiv 2510.08311, 2025: every node pulls from s
others, of which Byzantine ones cannot be more than chance allows, and mixes by a robust rule (there trmean after nnm).

With `mode:push` a node that got too few models for the rule keeps its own in that round, and Byzantine nodes, as all
others, reach s nodes, or with `flood:True` everybody.
"""

import math

import numpy

from experiments.network import Heard, Neighbourhoods
from experiments.protocols import Protocol
from experiments.worker_streams import random_ranks
from tools.errors import UserError

MODES = ("pull", "push")


class Epidemic(Protocol, name="epidemic"):
    """A local step, then models pulled from, or pushed to, `peers` random neighbours, mixed by any rule."""

    way_out = "other --protocol-args"

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
            raise UserError(f"--protocol-args: expected flood:False, or flood:True with mode:push, got {flood!r}")

    @property
    def peers(self) -> int:
        """How many others each node pulls from or pushes to: by default ⌈log₂ n⌉."""
        return self.arguments.get("peers") or max(math.ceil(math.log2(self.n)), 1)

    @property
    def pushes(self) -> bool:
        """Whether nodes push, and do not pull."""
        return self.arguments.get("mode", "pull") == "push"

    def _allowed(self) -> numpy.ndarray:
        """Return whom each node may hear in this round, (n, n)."""
        if self.network.varies:
            return self.network.adjacency(self.step_index)
        if self._adjacency is None:
            self._adjacency = self.network.adjacency(0)
        return self._adjacency

    _adjacency: numpy.ndarray | None = None

    def neighbourhoods(self) -> Neighbourhoods:
        """Return whom every node hears in the next round, drawn by the seed among its neighbours."""
        allowed = self._allowed()  # row i: whom i hears
        order = random_ranks(self.seed, "peers", self.step_index, self.n)
        if self.pushes:
            allowed = allowed.T
        chosen = numpy.where(allowed, order, self.n).argsort(axis=1, kind="stable")[:, : self.peers]
        heard = numpy.zeros((self.n, self.n), dtype=bool)
        numpy.put_along_axis(heard, chosen, True, axis=1)
        heard &= allowed
        if self.pushes:
            if self.arguments.get("flood", False):
                heard[self.h :] = allowed[self.h :]
            heard = heard.T
        receivers, senders = heard.nonzero()
        sizes = heard.sum(axis=1) + 1
        own = numpy.arange(self.n)
        order = numpy.concatenate([own, receivers]).argsort(kind="stable")  # themselves first
        return Neighbourhoods(
            offsets=numpy.concatenate([[0], sizes.cumsum()]),
            senders=numpy.concatenate([own, senders])[order],
            weights=numpy.repeat(1 / sizes, sizes),
        )

    def changes_neighbours(self) -> bool:
        """Return whether nodes hear others from round to round: always."""
        return True

    def heard(self) -> Heard:
        """Return how many others nodes hear in a round, at most, and how many Byzantine ones they hear for certain."""
        around, honest = self.network.heard, self.network.most_honest_neighbours
        if not self.pushes:
            others = numpy.minimum(around.others, self.peers)
            return Heard(others, numpy.maximum(others[:, : self.h] - honest, 0), at_least=True)
        certain = around.others[:, : self.h] - honest
        if not self.arguments.get("flood", False):  # Byzantine nodes with few enough neighbours reach all of them
            certain *= around.others[:, self.h :].max(axis=1, initial=0, keepdims=True) <= self.peers
        return Heard(around.others, certain, at_least=True)

    def check_rule(self) -> frozenset[int]:
        """Return the numbers of received vectors with which nodes keep their own: where others push, any may come."""
        if not self.pushes:
            return super().check_rule()
        sizes = range(1, self.n + 1)
        refused = self.refused_among(sizes)
        check = self.check_number if len(refused) == len(sizes) else lambda _: None  # chance may give enough
        rule = self.defender.defences[0].rule.name
        self.weak_nodes = self.network.check_rule(check, rule, self.nb_local_byz, self.heard(), self.way_out)
        return refused

    def describe_condition(self) -> str:
        """Return where the condition of the rule holds, for people."""
        most = min(self.f, self.network.largest_byzantine_neighbours, self.n if self.pushes else self.peers)
        byzantine = f"at most {self.nb_local_byz} that a node hears are Byzantine"
        chance = "" if most <= self.nb_local_byz else f"; chance may give it {most}"
        weak = f"{super().describe_condition()}; for others it " if self.weak_nodes else ""
        if not self.pushes or not self.refused:
            return f"{weak}holds in rounds in which {byzantine}{chance}"
        least = min(set(range(1, self.n + 1)) - self.refused, default=self.n + 1)
        return f"{weak}holds where {byzantine}, and {least - 1} others or more{chance}; with fewer it keeps its own"
