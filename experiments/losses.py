"""Training losses: every loss of `torch.nn`, with L1 and L2 regularisation."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tools.errors import UserError, one_line

LOSSES: dict[str, type[nn.Module]] = {
    name.removesuffix("Loss").lower(): getattr(nn, name)
    for name in sorted(nn.modules.loss.__all__)
    if name.endswith("Loss") and hasattr(nn, name)
}
"""Loss classes of torch by lower-case name without "Loss": nll, crossentropy, bce, mse …"""


REPLACED = ("size_average", "reduce")  # by reduction


def get(name: str) -> type[nn.Module]:
    """Return a loss class of torch by its short name; an unknown one raises a UserError that lists the known ones."""
    if name not in LOSSES:
        raise UserError(f"unknown loss {name!r}, expected one of: {', '.join(LOSSES)}")
    return LOSSES[name]


class Loss:
    """A training loss as a function of outputs and targets, plus λ₁‖θ‖₁ + λ₂‖θ‖₂ of the parameters.

    The L2 term is the norm itself, not its square, as in the ICLR 2021 code; `--weight-decay` is the usual square.

    Args:
        name: as on the command line.
        arguments: of the class's constructor; a list is taken as a tensor (class weights).
        l1: λ₁.
        l2: λ₂.
        device: where lists of weights go.

    Raises:
        UserError: an unknown name, or arguments the class does not take.
    """

    def __init__(
        self, name: str, arguments: dict[str, Any] | None = None, l1: float = 0.0, l2: float = 0.0, device: Any = "cpu"
    ) -> None:
        cls, arguments = get(name), arguments or {}
        known = [name for name in inspect.signature(cls).parameters if name not in REPLACED]
        if unknown := [key for key in arguments if key not in known]:
            raise UserError(f"--loss-args: {name} has no argument {unknown[0]!r}, expected: {', '.join(known)}")
        if arguments.get("reduction", "mean") in ("none", None):
            raise UserError("--loss-args: expected reduction:mean or sum, got none: a worker's loss is one number")
        arguments = {
            key: torch.tensor(value, dtype=torch.float32, device=device) if isinstance(value, list) else value
            for key, value in arguments.items()
        }
        try:
            self.whole = cls(**arguments)
        except (TypeError, ValueError) as error:
            raise UserError(f"--loss-args: {name} does not take {arguments}: {one_line(error)}") from error
        if any(True for _ in self.whole.parameters()):
            raise UserError(f"--loss {name}: it has parameters of its own, which no worker would train")
        # Where the mean over a batch is the mean of its samples' losses, one call serves the batches of all workers.
        plain_mean = self.whole.reduction == "mean" and not {"weight", "ignore_index"} & arguments.keys()
        self.by_sample = cls(**{**arguments, "reduction": "none"}) if plain_mean and name != "ctc" else None
        self.l1, self.l2 = l1, l2

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of one batch, 0-D, without regularisation."""
        return self.whole(outputs, targets)

    def per_worker(self, outputs: Tensor, targets: Tensor, workers: int) -> Tensor:
        """Return the losses (workers,) of as many batches of equal size, concatenated along the first axis."""
        if self.by_sample is not None:
            return self.by_sample(outputs, targets).reshape(workers, -1).mean(dim=1)
        batches = zip(outputs.chunk(workers), targets.chunk(workers), strict=True)
        return torch.stack([self.whole(*batch) for batch in batches])

    def add_regularisation(self, parameters: Tensor, gradients: Tensor, losses: Tensor) -> None:
        """Add the regularisation and its gradient in place.

        Args:
            parameters: (d,), or (workers, d) where each worker has its own.
            gradients: (workers, d).
            losses: (workers,).
        """
        if self.l1:
            gradients.add_(parameters.sign(), alpha=self.l1)
            losses.add_(parameters.abs().sum(dim=-1), alpha=self.l1)
        if self.l2:
            norm = torch.linalg.vector_norm(parameters, dim=-1, keepdim=True)
            gradients.add_(parameters / norm.clamp(min=torch.finfo(norm.dtype).tiny), alpha=self.l2)
            losses.add_(norm.squeeze(-1), alpha=self.l2)


class FunctionLoss(Loss):
    """Any function of outputs and targets of one batch as a training loss, without regularisation."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.whole = function
        self.by_sample = None
        self.l1 = self.l2 = 0.0
