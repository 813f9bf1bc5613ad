"""Criteria: which samples a model gets right."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from tools.errors import UserError
from tools.registry import Registry


class Criterion(ABC):
    """Scores each sample from 0 to 1; the accuracy is their mean."""

    name: ClassVar[str]

    def __init_subclass__(cls, /, name: str) -> None:
        super().__init_subclass__()
        cls.name = name
        criteria.register(name, cls)

    @abstractmethod
    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the score (samples,) of each sample, given outputs (samples, …) and targets (samples, …)."""


criteria: Registry[Criterion] = Registry("criterion")


class TopK(Criterion, name="top-k"):
    """Right when the class is among the k of largest output."""

    def __init__(self, k: int = 1) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise UserError(f"top-k: expected k of at least 1, got {k!r}")
        self.k = k

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.dim() != 2 or targets.dim() != 1 or outputs.shape[1] < self.k:
            raise UserError(
                f"top-k: expected at least {self.k} outputs and one class per sample, got outputs of shape "
                f"{tuple(outputs.shape)} and targets of shape {tuple(targets.shape)}"
            )
        if self.k == 1:
            return (outputs.argmax(dim=1) == targets).to(outputs.dtype)
        return (outputs.topk(self.k, dim=1).indices == targets.unsqueeze(1)).any(dim=1).to(outputs.dtype)


class Sigmoid(Criterion, name="sigmoid"):
    """Right when an output from 0 to 1 is on the target's side of one half; the share of right outputs if several."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.shape != targets.shape:
            raise UserError(
                f"sigmoid: expected outputs and targets of one shape, got {tuple(outputs.shape)} and "
                f"{tuple(targets.shape)}"
            )
        return ((outputs - targets).abs() < 0.5).to(torch.float32).flatten(1).mean(dim=1)
