"""Sampled gradients: what honest workers compute from their batches, clipped, before any momentum."""

from collections.abc import Mapping

import torch
from torch import Tensor

from experiments.batches import Batches
from experiments.losses import Loss
from experiments.model import Model
from experiments.per_worker import NoiseSeeds
from tools.seeding import derive_seed


class WorkerGradients:
    """Computes the sampled gradients of a run.

    Args:
        model: its parameters are θ unless other points are given.
        loss: what is minimised.
        seed: the seed really used.
        local_steps: SGD steps that make one gradient.
        longest: norm to which gradients, of each local step, are clipped; None: not at all.
        train: the mode of batch normalisation and dropout.
    """

    def __init__(
        self, model: Model, loss: Loss, seed: int, *, local_steps: int = 1, longest: float | None = None, train: bool
    ) -> None:
        self.model = model
        self.loss = loss
        self.seed = seed
        self.local_steps = local_steps
        self.longest = longest
        self.train = train

    def __call__(
        self,
        batches: Batches,
        out: Tensor,
        *,
        points: Tensor | None,
        first: int,
        step: int,
        rate: float,
        update_statistics: bool = True,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Compute the clipped gradients of k consecutive workers.

        With several local steps, (θ_start − θ_end) / η, the sum of the clipped local gradients, counts as the gradient.

        Args:
            batches: for each worker one per local step, a worker's own following each other.
            out: (k, d), written to: the gradients.
            points: where they start, (d,) or one row each (k, d); θ if None.
            first: the first worker's number.
            step: of the run.
            rate: η of the local steps.
            update_statistics: whether running statistics of batch normalisation change.
            buffers: of each worker's own model, (k, …) by name; None: those of the module.

        Returns:
            Losses (k,), averaged over local steps.
        """

        def noise(local_step: int) -> NoiseSeeds:
            return lambda worker: derive_seed(self.seed, "noise", step, first + worker, local_step)

        if self.local_steps == 1:
            return self._once(batches, out, points, noise(0), update_statistics, buffers)
        start = self.model.parameters if points is None else points
        positions = start.expand_as(out).clone()
        gradients, losses = torch.empty_like(out), []
        out.zero_()
        for k in range(self.local_steps):
            part = batches.every(self.local_steps, k)
            losses.append(self._once(part, gradients, positions, noise(k), update_statistics, buffers))
            out += gradients
            positions.sub_(gradients, alpha=rate)
        return torch.stack(losses).mean(dim=0)

    def _once(
        self,
        batches: Batches,
        out: Tensor,
        points: Tensor | None,
        seeds: NoiseSeeds,
        update_statistics: bool,
        buffers: Mapping[str, Tensor] | None,
    ) -> Tensor:
        losses = self.model.gradients(
            batches,
            self.loss,
            out=out,
            parameters=points,
            train=self.train,
            seeds=seeds,
            update_statistics=update_statistics,
            buffers=buffers,
        )
        if self.longest is not None:
            clip(out, self.longest)
        return losses


def clip(gradients: Tensor, longest: float) -> None:
    """Shorten rows (k, d) that are longer than that, in place."""
    wide = torch.float64 if gradients.is_cuda else None
    norms = torch.linalg.vector_norm(gradients, dim=1, dtype=wide)
    if not gradients.is_cuda:  # where looking is cheaper than writing, and waits for nothing
        if norms.amax() <= longest:
            return
        if norms.isinf().any():  # squares are too large for float32
            norms = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64)
    factors = (longest / norms).where(norms > longest, 1)
    gradients.mul_(factors.to(gradients.dtype).unsqueeze(1))
