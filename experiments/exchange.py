"""The exchange of a round: who receives what from whom."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from experiments.network import Neighbourhoods

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

    Attributes:
        neighbourhoods, receivers: as given.
        groups: receivers by how many vectors they receive.
        dense: whether so many nodes are linked that dense matrices are faster.
    """

    def __init__(self, neighbourhoods: Neighbourhoods, receivers: int, device: torch.device) -> None:
        offsets = torch.as_tensor(neighbourhoods.offsets[: receivers + 1])
        senders = torch.as_tensor(neighbourhoods.senders).to(device)
        weights = torch.as_tensor(neighbourhoods.weights).to(device)
        sizes = offsets.diff()
        self.neighbourhoods = neighbourhoods
        self.receivers = receivers
        self._device = device
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

    @cached_property
    def weights(self) -> Tensor:
        """What each of all nodes gives to each, (n, n) in float64."""
        return self._matrix(torch.as_tensor(self.neighbourhoods.weights))

    @cached_property
    def adjacency(self) -> Tensor:
        """Which of all nodes hears which other, (n, n) of dtype bool, False on the diagonal."""
        return self._matrix(torch.ones(len(self.neighbourhoods.senders), dtype=torch.bool)).fill_diagonal_(False)

    def _matrix(self, values: Tensor) -> Tensor:
        """Return values by receiver and sender, (n, n), 0 where nothing is sent."""
        offsets, senders = (
            torch.as_tensor(part) for part in (self.neighbourhoods.offsets, self.neighbourhoods.senders)
        )
        n = len(offsets) - 1
        matrix = values.new_zeros(n, n)
        matrix[torch.arange(n).repeat_interleave(offsets.diff()), senders] = values
        return matrix.to(self._device)


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
