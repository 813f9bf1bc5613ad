"""What nodes without a server have, and what each does by itself: momentum SGD on its own batches."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from experiments.batches import Batches
from experiments.datasets import Samples
from experiments.losses import Loss
from experiments.model import Model
from experiments.optimiser import Optimiser
from experiments.worker_gradients import WorkerGradients

Groups = Callable[[int, int], Iterator[slice]]
"""Groups of nodes, from a first to a last, whose samples go through the model in one pass."""


class Nodes:
    """The models and momenta of the nodes that train, a row each: honest nodes first, then poisoners.

    All matrices are made once, and what the phases of a round return lies in their memory.

    Args:
        model: whose parameters and buffers all start with.
        loss: what they minimise.
        optimiser: of every node.
        seed: of dropout.
        n: all nodes, those that send without training included.
        honest: h.
        trainers: how many train.
        groups: by default all nodes are one.

    Attributes:
        rows: (trainers, d), parameters.
        momenta: (trainers, d); None without momentum.
        buffers: by name (trainers, …), what each node's model keeps beside its parameters; never exchanged.
        vectors: (n, d), gradients, then what nodes send, Byzantine ones last.
        mixed: (trainers, d), what mixing makes of them; before it, room for other things.
        batches: of the round, `local_steps` of each node.
    """

    def __init__(
        self,
        model: Model,
        loss: Loss,
        optimiser: Optimiser,
        seed: int,
        *,
        n: int,
        honest: int,
        trainers: int,
        groups: Groups | None = None,
    ) -> None:
        self.optimiser = optimiser
        self.honest = honest
        self.trainers = trainers
        self._model = model
        self._loss = loss
        self._groups = groups or (lambda first, last: iter([slice(first, last)]))
        self._worker_gradients = WorkerGradients(
            model,
            loss,
            seed,
            local_steps=optimiser.local_steps,
            longest=optimiser.gradient_clip,
            train=optimiser.train,
        )
        self.rows = model.parameters.expand(trainers, -1).clone()
        self.mixed = torch.empty_like(self.rows)
        self.vectors = self.rows.new_empty(n, model.d)
        plain = optimiser.momentum == 0 and optimiser.dampening == 0
        self.momenta = None if plain else torch.zeros_like(self.rows)
        self.buffers = model.node_buffers(trainers)
        self.batches: Batches | None = None

    @property
    def parameters(self) -> Tensor:
        """Those of honest nodes, (h, d)."""
        return self.rows[: self.honest]

    @property
    def device(self) -> torch.device:
        """Where all is."""
        return self.rows.device

    def mean_buffers(self) -> dict[str, Tensor]:
        """Return the means of honest nodes' buffers, (1, …) by name, whole numbers rounded down."""
        means = {}
        for name, buffer in self.buffers.items():
            mean = buffer[: self.honest].double().mean(dim=0, keepdim=True)
            means[name] = (mean if buffer.is_floating_point() else mean.floor()).to(buffer.dtype)
        return means

    def mean_momentum(self) -> Tensor:
        """Return the mean momentum of honest nodes, (d,)."""
        return torch.zeros_like(self.rows[0]) if self.momenta is None else self.momenta[: self.honest].mean(dim=0)

    def compute_gradients(self, batches: Batches, step: int, rate: float) -> tuple[Tensor, Tensor]:
        """Compute the clipped gradient of each node at its own parameters, or where its momentum leads.

        Args:
            batches: `local_steps` of each node, a node's own following each other.
            step: of the run.
            rate: η.

        Returns:
            The gradients (trainers, d), in the first rows of `vectors`, and the losses of honest nodes (h,).
        """
        self.batches = batches
        gradients, losses = self.vectors[: self.trainers], []
        for group in self._groups(0, self.trainers):
            losses.append(
                self._worker_gradients(
                    batches.of(group, self.optimiser.local_steps),
                    gradients[group],
                    points=self._where(group, rate),
                    first=group.start,
                    step=step,
                    rate=rate,
                    buffers={name: buffer[group] for name, buffer in self.buffers.items()},
                )
            )
        return gradients, torch.cat(losses)[: self.honest]

    def _where(self, group: slice, rate: float) -> Tensor:
        """Return where some nodes compute their gradients; may use the memory of `mixed`."""
        points = self.rows[group]
        if not self.optimiser.nesterov or self.momenta is None:
            return points
        return torch.add(points, self.momenta[group], alpha=-self.optimiser.momentum * rate, out=self.mixed[group])

    def directions(self, gradients: Tensor) -> Tensor:
        """Return along what nodes go: their gradients, or momenta with these, in the memory of gradients."""
        steps = self._add_to_momenta(gradients)
        return gradients if steps is gradients else gradients.copy_(steps)

    def local_models(self, gradients: Tensor, rate: float) -> Tensor:
        """Return what models a step along their gradients, or momenta, makes, in the memory of gradients."""
        steps, decay = self._add_to_momenta(gradients), self.optimiser.step_decay
        if steps is gradients:
            return gradients.mul_(-rate).add_(self.rows, alpha=1 - rate * decay)
        local = torch.add(self.rows, steps, alpha=-rate, out=gradients)
        return local.sub_(self.rows, alpha=rate * decay) if decay else local

    def _add_to_momenta(self, gradients: Tensor) -> Tensor:
        """Add gradients to momenta and return these; without momentum of a node's own, the gradients."""
        optimiser = self.optimiser
        if optimiser.decays_gradient and optimiser.weight_decay:
            gradients.add_(self.rows, alpha=optimiser.weight_decay)
        if self.momenta is None or optimiser.momentum_at != "worker":
            return gradients
        return self.momenta.mul_(optimiser.momentum).add_(gradients, alpha=1 - optimiser.dampening)

    def taken_steps(self, rate: float) -> Tensor:
        """Return (θᵢ − θᵢ,½) / η of each honest node, (h, d), after `local_models`; may use the memory of `mixed`.

        Taken from the momenta, where there are some, since the difference has lost digits.
        """
        decay, out = self.optimiser.step_decay, self.mixed[: self.honest]
        if self.momenta is None:
            return torch.sub(self.parameters, self.vectors[: self.honest], out=out).div_(rate or torch.nan)
        if decay == 0:
            return self.momenta[: self.honest]
        return torch.add(self.momenta[: self.honest], self.parameters, alpha=decay, out=out)

    def loss_of(self, node: int) -> Callable[[Tensor], Tensor]:
        """Return a node's loss on its batch of this round, as a function of parameters (d,)."""
        batch = self.batches.of(slice(node, node + 1), self.optimiser.local_steps)

        def loss(parameters: Tensor) -> Tensor:
            self._model.load(parameters, {name: buffer[node] for name, buffer in self.buffers.items()})
            return self._loss(self._model.predict(batch.inputs), batch.targets)

        return loss

    def full_gradient(self, samples: Samples) -> Tensor:
        """Return the gradient (d,) of the honest nodes' mean model over samples."""
        buffers = {name: buffer[0] for name, buffer in self.mean_buffers().items()}
        self._model.load(self.parameters.mean(dim=0), buffers)
        return self._model.full_gradient(samples, self._loss)

    def move_to(self, models: Tensor) -> None:
        """Give nodes these models, (h, d) or all, which may be `mixed`."""
        if models is self.mixed:
            self.rows, self.mixed = self.mixed, self.rows
        else:
            self.rows[: len(models)] = models

    def step_along(self, vectors: Tensor, rate: float) -> None:
        """Let every node take a step along its vector, (trainers, d), or along its momentum with this added."""
        optimiser, steps = self.optimiser, vectors
        if self.momenta is not None and optimiser.momentum_at == "update":
            steps = self.momenta.mul_(optimiser.momentum).add_(vectors, alpha=1 - optimiser.dampening)
        if optimiser.step_decay:
            self.rows.mul_(1 - rate * optimiser.step_decay)
        self.rows.sub_(steps, alpha=rate)

    def next_step(self, vectors: Tensor, node: int) -> Tensor:
        """Return the vector (d,) along which `step_along` will let a node go, but for weight decay."""
        if self.momenta is None or self.optimiser.momentum_at != "update":
            return vectors[node]
        return self.optimiser.momentum * self.momenta[node] + (1 - self.optimiser.dampening) * vectors[node]

    def state_dict(self) -> dict[str, Any]:
        """Return all that later rounds depend on."""
        return {"parameters": self.rows, "momenta": self.momenta, "buffers": self.buffers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called."""
        self.rows.copy_(state["parameters"])
        if self.momenta is not None:
            self.momenta.copy_(state["momenta"])
        for name, buffer in self.buffers.items():
            buffer.copy_(state["buffers"][name])
