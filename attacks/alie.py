"""A little is enough, with the largest factor that hides.

Source: Baruch, Baruch and Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS
2019, algorithm 3: s = ⌊n/2⌋ + 1 − f supporters are needed, and z_max = Φ⁻¹((h − s) / h), with the proportion taken over
the h honest workers, and σ with correction 0 over all of them (an omniscient adversary).
"""

import sys
from collections.abc import Sequence
from enum import Enum
from numbers import Real
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from attacks import Attack, honest_deviation, repeat
from tools.long_rows import stack_rows


class Direction(Enum):
    """The side of the mean on which Byzantine vectors lie."""

    POSITIVE = 1
    NEGATIVE = -1


def largest_factor(h: int, f: int) -> float:
    """Return z_max for h honest and f Byzantine workers; ValueError where no non-negative factor exists."""
    supporters = (h + f) // 2 + 1 - f
    if f < 0 or not 0 < 2 * supporters <= h:
        raise ValueError(
            f"alie: no factor of at least 0 exists for h = {h} honest and f = {f} Byzantine workers: expected "
            f"⌊n/2⌋ + 1 - f from 1 to h/2, got {supporters}; give z, or other numbers of workers"
        )
    return NormalDist().inv_cdf((h - supporters) / h)


class ALIEAttack(Attack, name="alie"):
    """Send mean ± z · σ coordinate-wise, by default minus, with the largest z that hides among honest vectors."""

    cost = "hd"
    condition = "without z: 1 ≤ ⌊n/2⌋ + 1 − f ≤ h/2"

    @classmethod
    def check(
        cls,
        *,
        h: int,
        f: int,
        z: float | str = "max",
        direction: Direction = Direction.NEGATIVE,
        **specialized: Any,
    ) -> None:
        if z != "max" and (isinstance(z, bool) or not isinstance(z, Real)):
            raise TypeError(f'alie: expected a number or "max" as z, got {z!r}')
        if not isinstance(direction, Direction):
            raise TypeError(f"alie: expected a Direction, got {direction!r}")
        if z != "max" and not 0 <= z <= sys.float_info.max:
            raise ValueError(f"alie: expected z of at least 0, got {z!r}")
        if f and z == "max":
            largest_factor(h, f)

    @classmethod
    def notice(cls, *, h: int, f: int, z: float | str = "max", **specialized: Any) -> str | None:
        if f and z == "max" and largest_factor(h, f) == 0:
            return f"alie: z_max is 0 for h = {h}, f = {f}: Byzantine workers send the mean of the honest vectors"
        return None

    @staticmethod
    def max_z(honest_gradients: Tensor | Sequence[Tensor], f: int) -> Tensor:
        """Return z_max as a 0-D tensor, on the device and in the dtype of the gradients (…, h, d).

        Raises:
            ValueError: no non-negative factor exists, a Byzantine majority included.
        """
        honest = stack_rows(honest_gradients, "alie")
        return honest.new_tensor(largest_factor(honest.shape[-2], f))

    @classmethod
    def generate(
        cls,
        honest_gradients: Tensor,
        /,
        *,
        f: int,
        z: float | str = "max",
        direction: Direction = Direction.NEGATIVE,
        **specialized: Any,
    ) -> Tensor:
        mean, sigma = honest_deviation(honest_gradients, specialized)
        factor = largest_factor(honest_gradients.shape[-2], f) if z == "max" else float(z)
        return repeat(torch.add(mean, sigma, alpha=direction.value * factor), f)
