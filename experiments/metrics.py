"""The columns of `study`: what is measured at each step, on the device, copied out many steps at a time.

docs/metrics.md explains each column to someone who reads a plot.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tools.long_rows import gram

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
PAIRS = ([0, 0, 0, 1, 1, 2], [1, 2, 3, 2, 3, 3])  # of the cosines, in the order of KINDS
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
    """

    def __init__(self, origin: Tensor, *, past: int, momentum: float, capacity: int = 256) -> None:
        self.origin = origin.clone()
        self.momentum = momentum
        d = origin.numel()
        self._window = origin.new_zeros(past, d)
        self._weighted_past = origin.new_zeros(d)
        self._averages = origin.new_empty(len(KINDS), d, dtype=torch.float64)  # products of float32 may overflow
        self._not_finite = torch.zeros(past, dtype=torch.bool, device=origin.device)  # which of the window were not
        self._measured = 0
        self._rows = origin.new_empty(capacity, MEASURED)
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
    ) -> None:
        """Measure one step.

        Args:
            points: training samples seen before it.
            loss: average loss, 0-D.
            parameters: (d,), before the update.
            defense: (d,), what the rule returned.
            acceptation: the share of Byzantine vectors in it, 0-D; None when it is not defined.
        """
        averages = self._averages
        for row, average in zip(averages, (sampled.average, honest.average, attack.average, defense), strict=True):
            row.fill_(torch.nan) if average is None else row.copy_(average)
        products = gram(averages)
        norms = products.diagonal().sqrt()
        cosines = products / torch.outer(norms, norms)
        previous_cosine = curvature = None
        if self._measured:
            last = (self._measured - 1) % len(self._window)
            previous = self._window[last].double().where(~self._not_finite[last], torch.nan)
            previous_cosine = averages[0] @ previous / (norms[0] * torch.linalg.vector_norm(previous))
            curvature = averages[0].to(self._window.dtype) @ self._weighted_past
            curvature = curvature.where(~self._not_finite.any(), torch.nan)
        values = [
            loss,
            torch.dist(parameters, self.origin),
            *(vectors.deviation for vectors in (sampled, honest, attack)),
            norms,
            *(torch.stack(row.aminmax()).abs().amax() for row in averages),  # unlike abs(), makes no second matrix
            cosines[self._pairs],
            previous_cosine,
            curvature,
            acceptation,
        ]
        values = [self._nan if value is None else value for value in values]
        torch.cat([value.reshape(-1) for value in values], out=self._rows[len(self._labels)])
        self._labels.append((step, points))
        self._remember(averages[0])

    def _remember(self, average: Tensor) -> None:
        past = len(self._window)
        index = self._measured % past
        slot = self._window[index]
        finite = average.isfinite().all()
        self._not_finite[index] = ~finite
        average = average.to(slot.dtype).where(finite, 0)  # or the sum below would never be finite again
        self._weighted_past.add_(average).mul_(self.momentum)
        self._weighted_past.sub_(slot, alpha=self.momentum ** (past + 1))  # the one that leaves; zero at first
        slot.copy_(average)
        self._measured += 1

    def flush(self) -> list[tuple[float, ...]]:
        """Return the rows measured since the last call, in the order of COLUMNS, and forget them."""
        rows = self._rows[: len(self._labels)].tolist()
        rows = [(*label, *row) for label, row in zip(self._labels, rows, strict=True)]
        self._labels.clear()
        return rows

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return what later rows depend on; flush first."""
        return {
            "origin": self.origin,
            "window": self._window,
            "not_finite": self._not_finite,
            "weighted_past": self._weighted_past,
            "measured": self._measured,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        self.origin.copy_(state["origin"])
        self._window.copy_(state["window"])
        self._not_finite.copy_(state["not_finite"])
        self._weighted_past.copy_(state["weighted_past"])
        self._measured = state["measured"]
