"""Sampled gradients: what honest workers compute from their batches, clipped, before any momentum."""

import torch
from torch import Tensor

from experiments.batches import Batches
from experiments.config import RunConfig
from experiments.losses import Loss
from experiments.model import Model
from experiments.per_worker import NoiseSeeds
from tools.seeding import derive_seed


class WorkerGradients:
    """Computes the sampled gradients of a run.

    Args:
        config: batch size, local steps, clipping and training mode.
        model: its parameters are θ unless other points are given.
        loss: what is minimised.
        seed: the seed really used.
    """

    def __init__(self, config: RunConfig, model: Model, loss: Loss, seed: int) -> None:
        self.config = config
        self.model = model
        self.loss = loss
        self.seed = seed

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

        Returns:
            Losses (k,), averaged over local steps.
        """

        def noise(local_step: int) -> NoiseSeeds:
            return lambda worker: derive_seed(self.seed, "noise", step, first + worker, local_step)

        local_steps = self.config.nb_local_steps
        if local_steps == 1:
            return self._once(batches, out, points, noise(0), update_statistics)
        start = self.model.parameters if points is None else points
        positions = start.expand_as(out).clone()
        gradients, losses = torch.empty_like(out), []
        out.zero_()
        for k in range(local_steps):
            losses.append(self._once(batches.every(local_steps, k), gradients, positions, noise(k), update_statistics))
            out += gradients
            positions.sub_(gradients, alpha=rate)
        return torch.stack(losses).mean(dim=0)

    def _once(
        self, batches: Batches, out: Tensor, points: Tensor | None, seeds: NoiseSeeds, update_statistics: bool
    ) -> Tensor:
        losses = self.model.gradients(
            batches,
            self.loss,
            out=out,
            parameters=points,
            train=self.config.train_mode == "train",
            seeds=seeds,
            update_statistics=update_statistics,
        )
        if self.config.gradient_clip is not None:
            clip(out, self.config.gradient_clip)
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
