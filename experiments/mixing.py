"""The mixing phase: what every node makes of the vectors it received, all nodes at a time.

Nodes that received equally many vectors go through a rule as one batch. Where the result is a mean of the vectors whose
weights are known, or follow from distances alone, no vector is copied: the distances between all vectors are computed
once, and one product with all of them gives the results.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aggregators import mix
from aggregators.distances import squared_distances
from experiments.defence import Defender
from experiments.network import Neighbourhoods
from tools.long_rows import column_means

CPU_GATHERED_VALUES = 2**19  # that received vectors, side by side, hold at once: 2 MiB of float32, which stay in cache
GPU_GATHERED_VALUES = 2**26
DISTANCES_AT_ONCE = 2**22
DENSE_SHARE = 1 / 16  # of all pairs of nodes that must be linked for dense matrices to be faster


@dataclass(frozen=True)
class Group:
    """Nodes that receive equally many vectors.

    Attributes:
        receivers: (g,).
        senders: whom each hears, (g, k), itself first.
        weights: the mixing weight of each, (g, k) in float64.
    """

    receivers: Tensor
    senders: Tensor
    weights: Tensor

    @property
    def size(self) -> int:
        """How many vectors each of them receives, its own included."""
        return self.senders.shape[1]


class Exchange:
    """Who receives what in one round.

    Args:
        neighbourhoods: of all n nodes, honest ones first.
        receivers: how many nodes mix, the first ones.
        device: of the vectors.
    """

    def __init__(self, neighbourhoods: Neighbourhoods, receivers: int, device: torch.device) -> None:
        offsets = torch.as_tensor(neighbourhoods.offsets[: receivers + 1])
        senders = torch.as_tensor(neighbourhoods.senders).to(device)
        weights = torch.as_tensor(neighbourhoods.weights).to(device)
        sizes = offsets.diff()
        self.receivers = receivers
        self.groups = []
        for size in sizes.unique().tolist():
            nodes = (sizes == size).nonzero().squeeze(1)
            places = (offsets[nodes].unsqueeze(1) + torch.arange(size)).to(device)
            self.groups.append(Group(nodes.to(device), senders[places], weights[places]))
        self.dense = float(sizes.sum()) > DENSE_SHARE * receivers * (len(neighbourhoods.offsets) - 1)

    def of(self, node: int) -> tuple[Tensor, Tensor]:
        """Return whom a node hears, itself first, (k,), and the weights, (k,)."""
        for group in self.groups:
            places = (group.receivers == node).nonzero()
            if len(places):
                return group.senders[places[0, 0]], group.weights[places[0, 0]]
        raise ValueError(f"expected a node from 0 to {self.receivers - 1}, got {node}")


@dataclass(frozen=True)
class Sent:
    """The vectors of one round.

    Attributes:
        rows: (m, d), those of honest nodes first, each by its number.
        honest: h; rows from there on are what Byzantine nodes sent.
        copies: the last so many rows are known to be equal.
        private: how many rows from there on each honest node hears alone, f, or 1 where all f are the same; 0 where
            Byzantine nodes send the same to all.
        centre: (d,), the mean of honest rows, if it is known.
    """

    rows: Tensor
    honest: int
    copies: int = 1
    private: int = 0
    centre: Tensor | None = None

    @classmethod
    def of(cls, vectors: Tensor, byzantine: Tensor, honest: int, centre: Tensor | None = None) -> "Sent":
        """Return the vectors of a round.

        Args:
            vectors: (n, d) with those of Byzantine nodes in the last rows, unless these are sent in private.
            byzantine: (f, d), or (h, f, d) for each recipient its own.
            honest: h.
            centre: (d,), the mean of honest ones, if it is known.
        """
        if byzantine.dim() == 2:
            equal = len(byzantine) > 1 and byzantine.stride(0) == 0
            return cls(vectors, honest, copies=len(byzantine) if equal else 1, centre=centre)
        private = byzantine[:, :1] if byzantine.stride(1) == 0 else byzantine
        rows = torch.cat([vectors[:honest], private.flatten(0, 1)])
        return cls(rows, honest, private=private.shape[1], centre=centre)

    def index(self, group: Group) -> Tensor:
        """Return the rows that each node of a group hears, (g, k)."""
        if not self.private:
            return group.senders
        byzantine = group.senders - self.honest
        own = self.honest + group.receivers.unsqueeze(1) * self.private + byzantine.clamp(max=self.private - 1)
        return group.senders.where(byzantine < 0, own)


def gathered_values(rows: Tensor) -> int:
    """Return how many values of rows should be laid side by side at once."""
    return GPU_GATHERED_VALUES if rows.is_cuda else CPU_GATHERED_VALUES


def weighted_sums(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Return Σₖ weightsₖ · rows[indexₖ] for each of g nodes, (m, d), (g, k) and (g, k) → (g, d)."""
    weights = weights.to(rows.dtype)
    index = index.where(weights != 0, index[:, :1])  # no rest of a row that counts nothing, which may not be finite
    return F.embedding_bag(index, rows, mode="sum", per_sample_weights=weights)


class Mixer:
    """Mixes by weights, or by a rule.

    Args:
        defender: whose rule, which tolerates the local number of Byzantine neighbours; None: by weights.
        refused: numbers of vectors that the rule cannot take; nodes that receive so many keep their own.
    """

    def __init__(self, defender: Defender | None, refused: frozenset[int] = frozenset()) -> None:
        self.defender = defender
        self.refused = refused

    def __call__(
        self,
        exchange: Exchange,
        sent: Sent,
        out: Tensor,
        *,
        step: int,
        loss_of: Callable[[int], Callable[[Tensor], Tensor]] | None = None,
    ) -> Tensor | None:
        """Mix, into `out` (receivers, d).

        Args:
            step: of the run; all nodes draw the same numbers in it.
            loss_of: the loss of parameters (d,) on a node's own data, by the node, for rules that need it.

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
            defined &= self._aggregate(number, group, sent, out, accepted, step, loss_of)
        return accepted if defined else None

    def mean(self, exchange: Exchange, sent: Sent, honest: int, **context: Any) -> Tensor:
        """Return the mean over the first nodes, the honest ones, of what they would make of the vectors, (d,).

        Args:
            context: as for `__call__`.
        """
        weights = self._weights(exchange, sent)
        if weights is None:
            out = sent.rows.new_empty(exchange.receivers, sent.rows.shape[1])
            self(exchange, sent, out, **context)
            return out[:honest].mean(dim=0)
        shares = sent.rows.new_zeros(len(sent.rows), dtype=torch.float64)
        for group, own in zip(exchange.groups, weights, strict=True):
            chosen = group.receivers < honest
            shares.index_add_(0, sent.index(group)[chosen].flatten(), own[chosen].double().flatten())
        return mix(shares.unsqueeze(0) / honest, sent.rows).squeeze(0)

    def _aggregate(
        self,
        number: int,
        group: Group,
        sent: Sent,
        out: Tensor,
        accepted: Tensor,
        step: int,
        loss_of: Callable[[int], Callable[[Tensor], Tensor]] | None,
    ) -> bool:
        """Give a group's vectors to the rule, as many nodes at a time as is sensible; return whether shares exist."""
        index, d, defined = sent.index(group), sent.rows.shape[1], True
        at_once = 1 if loss_of is not None else max(gathered_values(sent.rows) // (group.size * d), 1)
        for first in range(0, len(index), at_once):
            part = slice(first, first + at_once)
            receivers = group.receivers[part]
            vectors = sent.rows.index_select(0, index[part].flatten()).view(*index[part].shape, d)
            context: dict[str, Any] = {} if loss_of is None else {"loss": loss_of(int(receivers[0]))}
            result, weights = self.defender(
                vectors,
                draw=step,
                part=f"{number}-{first}",
                n=group.size,
                pivot=vectors[:, 0],
                weights_row=group.weights[part],
                **context,
            )
            out[receivers] = result
            if weights is None:
                defined = False
            else:
                accepted[receivers] = (weights * (group.senders[part] >= sent.honest)).sum(dim=1).double()
        return defined

    def _weights(self, exchange: Exchange, sent: Sent) -> list[Tensor] | None:
        """Return the weights (g, k) of each group where no vector need be copied for them; else None."""
        if self.defender is None:
            return [group.weights for group in exchange.groups]
        defence, f = self.defender.defence, self.defender.f
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
                weights = torch.zeros_like(group.weights)
                weights[:, 0] = 1
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
