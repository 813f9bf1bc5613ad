"""The columns of `study`: what is measured at each step, on the device, copied out many steps at a time.

docs/metrics.md explains each column to someone who reads a plot.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tools.long_rows import gram, smallest_square

KINDS = ("Sampled", "Honest", "Attack", "Defense")
COLUMNS = (
    "Step number",
    "Training point count",
    "Average loss",
    "l2 from origin",
    *(f"{kind} gradient deviation" for kind in KINDS[:3]),
    *(f"{kind} gradient norm" for kind in KINDS),
    *(f"{kind} max coordinate" for kind in KINDS),
    "Sampled-honest cosine",
    "Sampled-attack cosine",
    "Sampled-defense cosine",
    "Honest-attack cosine",
    "Honest-defense cosine",
    "Attack-defense cosine",
    "Sampled-prev cosine",
    "Sampled composite curvature",
    "Attack acceptation ratio",
)
NODE_COLUMNS = (
    "Consensus distance",
    "Consensus distance before mixing",
    "Byzantine weight",
    "Largest Byzantine weight",
)
"""What follows them where every node has a model of its own."""
PREVIOUS = len(KINDS)  # the row of the previous step's sampled average
PAIRS = ([0, 0, 0, 1, 1, 2, 0], [1, 2, 3, 2, 3, 3, PREVIOUS])  # of the cosines, rows in the order of KINDS
MEASURED = len(COLUMNS) - 2


@dataclass(frozen=True)
class Vectors:
    """One step's vectors of one kind.

    Attributes:
        average: (d,), None when there are no vectors.
        scatter: the sum of their squared distances to it, 0-D.
        count: how many vectors.
    """

    average: Tensor | None
    scatter: Tensor | None
    count: int

    @property
    def deviation(self) -> Tensor | None:
        """The square root of their unbiased variance, 0-D; None for fewer than two vectors."""
        return (self.scatter / (self.count - 1)).sqrt() if self.count > 1 else None

    def __add__(self, other: "Vectors") -> "Vectors":
        """Return these and others, at least one each, as a whole.

        Source: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
        1979, equations 2.1.
        """
        count = self.count + other.count
        apart = other.average - self.average
        between = torch.linalg.vector_norm(apart).double().square() * (self.count * other.count / count)
        average = torch.add(self.average, apart, alpha=other.count / count)
        return Vectors(average, self.scatter + other.scatter + between, count)


class StudyMetrics:
    """Measures each step, and keeps what looks back: past averages, and the curvature's weighted sum of them.

    Args:
        origin: (d,), the initial parameters.
        past: P, how many past averages the curvature looks at.
        momentum: μ, its decay.
        capacity: steps between two calls of `flush`, at most.
        more: columns after the usual ones.
    """

    def __init__(
        self, origin: Tensor, *, past: int, momentum: float, capacity: int = 256, more: tuple[str, ...] = ()
    ) -> None:
        self.columns = COLUMNS + more
        self.origin = origin.clone()
        self.momentum = momentum
        d = origin.numel()
        self._window = origin.new_zeros(past, d)
        self._weighted_past = origin.new_zeros(d)
        self._averages = origin.new_full((len(KINDS) + 1, d), torch.nan)  # and the previous sampled one
        self._not_finite = torch.zeros(past, dtype=torch.bool, device=origin.device)  # which of the window were not
        self._measured = 0
        self._rows = origin.new_empty(capacity, MEASURED + len(more))
        self._labels: list[tuple[int, int]] = []
        self._nan = origin.new_tensor(torch.nan)
        self._pairs = tuple(torch.tensor(indices, device=origin.device) for indices in PAIRS)

    @property
    def full(self) -> bool:
        """Whether `flush` must come before another `measure`."""
        return len(self._labels) == len(self._rows)

    def measure(
        self,
        step: int,
        points: int,
        *,
        loss: Tensor,
        parameters: Tensor,
        sampled: Vectors,
        honest: Vectors,
        attack: Vectors,
        defense: Tensor,
        acceptation: Tensor | None,
        more: Sequence[Tensor | None] = (),
    ) -> None:
        """Measure one step.

        Args:
            points: training samples seen before it.
            loss: average loss, 0-D.
            parameters: (d,), before the update.
            defense: (d,), what the rule returned.
            acceptation: the share of Byzantine vectors in it, 0-D; None when it is not defined.
            more: the values of the columns after the usual ones, 0-D each.
        """
        averages = self._averages
        averages[PREVIOUS] = averages[0]
        for row, average in zip(averages, (sampled.average, honest.average, attack.average, defense), strict=False):
            row.fill_(torch.nan) if average is None else row.copy_(average)
        products = self._products()
        norms = products.diagonal().sqrt()
        cosines = products / torch.outer(norms, norms)
        curvature = None
        if self._measured:
            curvature = (averages[0] @ self._weighted_past).where(~self._not_finite.any(), torch.nan)
        values = [
            loss,
            torch.dist(parameters, self.origin),
            *(vectors.deviation for vectors in (sampled, honest, attack)),
            norms[:PREVIOUS],
            *(torch.stack(row.aminmax()).abs().amax() for row in averages[:PREVIOUS]),  # abs() would copy the matrix
            cosines[self._pairs],
            curvature,
            acceptation,
            *more,
        ]
        values = [self._nan if value is None else value for value in values]
        torch.cat([value.reshape(-1) for value in values], out=self._rows[len(self._labels)])
        self._labels.append((step, points))
        self._remember(averages[0], norms[0].isfinite())

    def _products(self) -> Tensor:
        """Return the inner products of the averages, in float64 where squares are beyond the range of float32."""
        averages = self._averages
        if averages.is_cuda:  # which should not wait for an answer
            return gram(averages.double())
        products = gram(averages)
        squares = products.diagonal()  # NaN where an average is missing
        if bool((squares.isinf() | (squares < smallest_square(averages.dtype))).any()):
            return gram(averages.double())
        return products

    def _remember(self, average: Tensor, finite: Tensor) -> None:
        """Put an average into the window; one that is not finite as zero, or the weighted sum would never recover."""
        past = len(self._window)
        index = self._measured % past
        slot = self._window[index]
        self._weighted_past.sub_(slot, alpha=self.momentum**past)  # the one that leaves; zero at first
        slot.copy_(average).masked_fill_(~finite, 0)
        self._not_finite[index] = ~finite
        self._weighted_past.add_(slot).mul_(self.momentum)
        self._measured += 1

    def flush(self) -> list[tuple[float, ...]]:
        """Return the rows measured since the last call, in the order of `columns`, and forget them."""
        rows = self._rows[: len(self._labels)].tolist()
        rows = [(*label, *row) for label, row in zip(self._labels, rows, strict=True)]
        self._labels.clear()
        return rows

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return what later rows depend on; flush first."""
        return {
            "origin": self.origin,
            "sampled": self._averages[0],
            "window": self._window,
            "not_finite": self._not_finite,
            "weighted_past": self._weighted_past,
            "measured": self._measured,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        self.origin.copy_(state["origin"])
        self._averages[0] = state["sampled"]
        self._window.copy_(state["window"])
        self._not_finite.copy_(state["not_finite"])
        self._weighted_past.copy_(state["weighted_past"])
        self._measured = state["measured"]
