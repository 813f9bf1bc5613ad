"""The mixing phase: what every node makes of the vectors it received, all nodes at a time.

Where the result is a mean of the vectors whose weights are known, or follow from distances alone, no vector is copied:
the distances between all vectors are computed once, and one product with all of them gives the results.

Otherwise nodes that received equally many vectors go through the rule as one batch, in blocks of so many nodes that
what they received (nodes, k, d) stays in cache: of all nodes it would take k times the memory of their models. In a
large dense graph a block is one node. There the rule's work takes the time, not its calls: of the 0.7 ms that trmean
takes for one of 200 nodes with 4,810 parameters, 0.5 ms. What one node makes of its vectors is not taken for another
that heard the same: they come in another order there, own first, on which ties and rounding depend.
"""

import contextlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from aggregators import mix
from aggregators.distances import squared_distances
from experiments.defence import Defender
from experiments.exchange import Exchange, Group, Sent
from tools.long_rows import column_means

CPU_GATHERED_VALUES = 2**19  # that received vectors, side by side, hold at once: 2 MiB of float32, which stay in cache
GPU_GATHERED_VALUES = 2**26
DISTANCES_AT_ONCE = 2**22


def gathered_values(rows: Tensor) -> int:
    """Return how many values of rows should be laid side by side at once."""
    return GPU_GATHERED_VALUES if rows.is_cuda else CPU_GATHERED_VALUES


def weighted_sums(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Return Σₖ weightsₖ · rows[indexₖ] for each of g nodes, (m, d), (g, k) and (g, k) → (g, d)."""
    weights = weights.to(rows.dtype)
    index = index.where(weights != 0, index[:, :1])  # no rest of a row that counts nothing, which may not be finite
    return F.embedding_bag(index, rows, mode="sum", per_sample_weights=weights)


def only_own(group: Group) -> Tensor:
    """Return the weights (g, k) of nodes that keep their own vectors."""
    weights = torch.zeros_like(group.weights)
    weights[:, 0] = 1
    return weights


class Mixer:
    """Mixes by weights, or by a rule.

    Args:
        defender: whose rule, which tolerates the local number of Byzantine neighbours; None: by weights.
        refused: numbers of vectors that the rule cannot take; nodes that receive so many keep their own.
        loss_of: the loss of parameters (d,) on a node's own data, by the node, for rules that need it.
    """

    def __init__(
        self,
        defender: Defender | None = None,
        refused: frozenset[int] = frozenset(),
        loss_of: Callable[[int], Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        self.defender = defender
        self.refused = refused
        self._loss_of = loss_of

    def __call__(self, exchange: Exchange, sent: Sent, out: Tensor, *, step: int) -> Tensor | None:
        """Mix, into `out` (receivers, d).

        Args:
            step: of the run; all nodes draw the same numbers in it.

        Returns:
            The weight that each receiver gave Byzantine nodes, (receivers,) in float64; None where that is not defined.
        """
        weights = self._weights(exchange, sent)
        if weights is not None:
            self._sum(exchange, sent, weights, out)
            mixes = self.defender is not None and self.defender.defence.before
            return None if mixes else self._accepted(exchange, sent, weights)
        accepted = out.new_zeros(len(out), dtype=torch.float64)
        defined = True
        for number, group in enumerate(exchange.groups):
            if group.size in self.refused:
                out[group.receivers] = sent.rows[group.receivers]
                continue
            defined &= self._aggregate(number, group, sent, out, accepted, step)
        return accepted if defined else None

    def one(
        self, node: int, weights: Tensor, received: Tensor, *, pivot: Tensor, step: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return what one node makes of what it received, and the share of each vector in it, with its own operations.

        Args:
            weights: the mixing weight of each vector, (k,) in float64.
            received: (k, d), its own first.
            pivot: (d,), its own.
            step: of the run.

        Returns:
            (d,), and (k,) or None where shares are not defined.
        """
        if self.defender is None:
            return weights.to(received.dtype) @ received, weights
        if len(received) in self.refused:
            return pivot, torch.zeros_like(weights)
        return self._defend(received, node, f"node-{node}", step, pivot=pivot, weights_row=weights)

    def rehearse(self, exchange: Exchange, sent: Sent, *, step: int) -> Tensor:
        """Return the mean over honest nodes of what they would make of the vectors, (d,), leaving no trace."""
        with contextlib.nullcontext() if self.defender is None else self.defender.rehearsing():
            weights = self._weights(exchange, sent)
            if weights is None:
                out = sent.rows.new_empty(exchange.receivers, sent.rows.shape[1])
                self(exchange, sent, out, step=step)
                return out[: sent.honest].mean(dim=0)
        shares = sent.rows.new_zeros(len(sent.rows), dtype=torch.float64)
        for group, own in zip(exchange.groups, weights, strict=True):
            chosen = group.receivers < sent.honest
            shares.index_add_(0, sent.index(group)[chosen].flatten(), own[chosen].double().flatten())
        return mix(shares.unsqueeze(0) / sent.honest, sent.rows).squeeze(0)

    def _aggregate(self, number: int, group: Group, sent: Sent, out: Tensor, accepted: Tensor, step: int) -> bool:
        """Give a group's vectors to the rule, as many nodes at a time as is sensible; return whether shares exist."""
        index, d, defined = sent.index(group), sent.rows.shape[1], True
        at_once = 1 if self._needs_loss else max(gathered_values(sent.rows) // (group.size * d), 1)
        for first in range(0, len(index), at_once):
            part = slice(first, first + at_once)
            receivers = group.receivers[part]
            vectors = sent.rows.index_select(0, index[part].flatten()).view(*index[part].shape, d)
            result, weights = self._defend(
                vectors,
                receivers[0],
                f"{number}-{first}",
                step,
                pivot=vectors[:, 0],
                weights_row=group.weights[part],
            )
            out[receivers] = result
            if weights is None:
                defined = False
            else:
                accepted[receivers] = (weights * (group.senders[part] >= sent.honest)).sum(dim=1).double()
        return defined

    @property
    def _needs_loss(self) -> bool:
        return "loss" in self.defender.defence.needs

    def _defend(
        self, vectors: Tensor, node: int | Tensor, part: str, step: int, **context: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the rule makes of the vectors that some nodes received, and the shares of these."""
        loss = {"loss": self._loss_of(int(node))} if self._needs_loss else {}
        return self.defender(vectors, draw=step, part=part, n=vectors.shape[-2], **context, **loss)

    def _weights(self, exchange: Exchange, sent: Sent) -> list[Tensor] | None:
        """Return the weights (g, k) of each group where no vector need be copied for them; else None."""
        if self.defender is None:
            return [group.weights for group in exchange.groups]
        defence, f = self.defender.defence, self.defender.f
        if defence.depends_on_number:
            return [self._weights_by_number(group) for group in exchange.groups]
        by_own = defence.depends_on_own_distances
        if not (exchange.dense and (by_own or defence.depends_on_distances)):
            return None
        if self.defender.device != sent.rows.device:
            return None  # the vectors have to be there
        centre = column_means(sent.rows[: sent.honest]) if sent.centre is None else sent.centre
        # Models are closer to each other than to the origin
        distances, dtype = squared_distances(sent.rows, sent.copies, centre), sent.rows.dtype
        found = []
        for group in exchange.groups:
            index = sent.index(group)
            if group.size in self.refused:
                weights = only_own(group)
            elif by_own:
                own = distances[index[:, :1], index]
                weights = defence.rule.weights_by_own_distance(
                    own, f=f, weights_row=group.weights, dtype=dtype, **defence.arguments
                )
            else:
                at_once = max(DISTANCES_AT_ONCE // group.size**2, 1)
                parts = [
                    defence.weights_by_distance(distances[part.unsqueeze(2), part.unsqueeze(1)], f=f, dtype=dtype)
                    for part in index.split(at_once)
                ]
                weights = torch.cat(parts)
            found.append(weights)
        return found

    def _weights_by_number(self, group: Group) -> Tensor:
        if group.size in self.refused:
            return only_own(group)
        defence = self.defender.defence
        weights = defence.rule.weights_by_number(group.size, f=self.defender.f, **defence.arguments)
        return weights.to(group.weights).expand_as(group.weights)

    @staticmethod
    def _sum(exchange: Exchange, sent: Sent, weights: list[Tensor], out: Tensor) -> None:
        """Write the weighted sums of rows to `out`."""
        rows = sent.rows
        if exchange.dense:
            matrix = rows.new_zeros(len(out), len(rows))
            for group, shares in zip(exchange.groups, weights, strict=True):
                places = group.receivers.unsqueeze(1).expand_as(shares), sent.index(group)
                matrix.index_put_(places, shares.to(rows.dtype), accumulate=bool(sent.private))
            torch.mm(matrix, rows, out=out)
            if out.sum().isfinite():  # 0 · inf is NaN; waits for the GPU
                return
        for group, shares in zip(exchange.groups, weights, strict=True):
            index, at_once = sent.index(group), max(gathered_values(rows) // rows.shape[1], 1)
            for first in range(0, len(index), at_once):
                part = slice(first, first + at_once)
                out[group.receivers[part]] = weighted_sums(rows, index[part], shares[part])

    @staticmethod
    def _accepted(exchange: Exchange, sent: Sent, weights: list[Tensor]) -> Tensor:
        accepted = weights[0].new_zeros(exchange.receivers, dtype=torch.float64)
        for group, shares in zip(exchange.groups, weights, strict=True):
            accepted[group.receivers] = (shares * (group.senders >= sent.honest)).sum(dim=1).double()
        return accepted
