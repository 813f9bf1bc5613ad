"""A rule to copy: put your own file beside this one, with its own name. Nothing else needs to change.

Source: (authors, title, venue, year, equation or algorithm; and what differs from it).
"""

from typing import Any

import torch
from torch import Tensor

from aggregators import Aggregator


class Template(Aggregator, name="template"):
    """Average the vectors, weighted by the inverse of their norms."""

    @classmethod
    def check(cls, *, n: int, f: int, power: float = 1.0, **specialized: Any) -> None:
        super().check(n=n, f=f)  # n ≥ 2f + 1
        if not power >= 0:
            raise ValueError(f"template: expected power of at least 0, got {power!r}")

    @classmethod
    def weights(cls, gradients: Tensor, /, *, f: int, power: float = 1.0, **specialized: Any) -> Tensor:
        # gradients: (…, n, d), a row that held NaN or ±inf being +inf throughout. Returns shares (…, n).
        # A rule that is not a weighted mean of rows writes `aggregate` instead, with the same arguments: → (…, d).
        norms = torch.linalg.vector_norm(gradients, dim=-1)
        inverses = norms.clamp(min=torch.finfo(norms.dtype).tiny).pow(-power)
        inverses = inverses.where(norms.isfinite(), 0)
        return inverses / inverses.sum(dim=-1, keepdim=True)
