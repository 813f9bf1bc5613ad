"""Relocated orthogonal perturbation: beside the previous aggregate, across the way that training goes.

Source: Özfatura, Özfatura, Küpçü and Gündüz, "Byzantines Can Also Learn From History: Fall of Centered Clipping in
Federated Learning", IEEE TIFS 2024, and their code, which perturbs along the all-ones vector. Before the first step the
previous aggregate is zero.
"""

import math
from typing import Any

import torch
from torch import Tensor

from attacks import Attack, honest_mean, repeat
from tools.arguments import check_number
from tools.long_rows import normalised


class RelocatedOrthogonalPerturbation(Attack, name="rop"):
    """Send the previous aggregate plus a vector of norm z, at theta degrees from where training goes.

    That is history · previous aggregate + (1 − history) · mean. With a relocation below 1, what is perturbed lies so
    far on the way from the mean to the previous aggregate. In one dimension nothing lies across, and nothing is added.
    """

    cost = "hd"

    @classmethod
    def check(
        cls,
        *,
        h: int,
        f: int,
        z: float = 1.0,
        history: float = 0.9,
        theta: float = 90.0,
        relocation: float = 1.0,
        **specialized: Any,
    ) -> None:
        check_number(cls.name, "z", z, least=0)
        check_number(cls.name, "history", history, least=0, most=1)
        check_number(cls.name, "theta", theta, least=0, most=360)
        check_number(cls.name, "relocation", relocation, least=0, most=1)

    @classmethod
    def generate(
        cls,
        honest_gradients: Tensor,
        /,
        *,
        f: int,
        z: float = 1.0,
        history: float = 0.9,
        theta: float = 90.0,
        relocation: float = 1.0,
        pivot: Tensor | None = None,
        **specialized: Any,
    ) -> Tensor:
        mean = honest_mean(honest_gradients, specialized)
        previous = torch.zeros_like(mean) if pivot is None else pivot.to(mean).expand_as(mean)
        along = normalised(mean.lerp(previous, history))
        across = normalised(1 - along.sum(dim=-1, keepdim=True) * along)
        perturbation = z * (math.sin(math.radians(theta)) * across + math.cos(math.radians(theta)) * along)
        return repeat(mean.lerp(previous, relocation) + perturbation, f)
