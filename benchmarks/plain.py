"""The same training steps as plain torch loops written by hand: what `benchmarks/run.py` compares the simulation with.

No metrics, no other rule, attack, model or momentum position than the one needed; each step in the fewest passes over
memory that plain torch allows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.datasets import Data


class PlainLoop:
    """Training with worker momentum under the attack little (factor 1.5, negative), aggregated by krum-iclr21."""

    n: int
    f: int
    batch_size: int
    momentum = 0.9
    rate: float
    clip: float | None = None
    l2 = 0.0

    def __init__(self, data: Data, parameters: Tensor) -> None:
        self.data = data
        self.theta = parameters.clone()
        self.h = self.n - self.f
        d = self.theta.numel()
        self.sampled = self.theta.new_empty(self.h, d)
        self.distinct = self.theta.new_zeros(self.h + 1, d)  # momenta, then the one Byzantine vector
        self.order = torch.empty(0, dtype=torch.int64, device=self.theta.device)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return the next h batches of a shuffled pass; a partial one at the end is dropped, for equal shapes."""
        count = self.h * self.batch_size
        if len(self.order) < count:
            self.order = torch.randperm(len(self.data.train)).to(self.theta.device)
        indices, self.order = self.order[:count], self.order[count:]
        return self.data.train.inputs.index_select(0, indices), self.data.train.targets.index_select(0, indices)

    def gradients(self, inputs: Tensor, targets: Tensor) -> None:
        """Write the workers' gradients to `sampled`."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self) -> None:
        """Do one training step."""
        with torch.enable_grad():
            self.gradients(*self.batch())
        sampled, momenta, h, f = self.sampled, self.distinct[: self.h], self.h, self.f
        if self.l2:
            sampled.add_(self.theta / self.theta.norm(), alpha=self.l2)
        if self.clip is not None:
            norms = torch.linalg.vector_norm(sampled, dim=1, keepdim=True)
            sampled.mul_((self.clip / norms).clamp(max=1))
        momenta.mul_(self.momentum).add_(sampled)
        mean = momenta.mean(dim=0)
        deviation = (momenta - mean).square_().sum(dim=0).div_(h - 1).sqrt_()
        torch.sub(mean, deviation, alpha=1.5, out=self.distinct[h])

        products = self.distinct @ self.distinct.T
        squares = products.diagonal()
        distances = (squares[:, None] + squares - 2 * products).clamp_(min=0).sqrt_()
        index = torch.arange(self.n, device=mean.device).clamp(max=h)
        distances = distances[index][:, index]
        distances.fill_diagonal_(torch.inf)
        scores = distances.sort(dim=1).values[:, : self.n - f - 1].sum(dim=1)
        chosen = scores.argsort()[: self.n - f - 2].clamp(max=h)
        weights = torch.zeros(h + 1, device=mean.device).index_add_(
            0, chosen, torch.ones_like(chosen, dtype=torch.float)
        )
        self.theta.sub_(weights @ self.distinct / (self.n - f - 2), alpha=self.rate)

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the accuracy on the whole test set."""
        test = self.data.test
        return float((self.outputs(test.inputs).argmax(dim=1) == test.targets).float().mean())

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return the model's outputs."""
        raise NotImplementedError


class PlainFull(PlainLoop):
    """The MNIST cell of the ICLR 2021 paper: 784-100-10, n = 51, f = 24, batch 83; forward and backward by hand."""

    n, f, batch_size, rate, clip, l2 = 51, 24, 83, 0.5, 2.0, 1e-4

    def __init__(self, data: Data, parameters: Tensor) -> None:
        super().__init__(data, parameters)
        sizes, shapes = (78_400, 100, 1_000, 10), ((100, 784), (100,), (10, 100), (10,))
        self.layers = [part.view(shape) for part, shape in zip(self.theta.split(sizes), shapes, strict=True)]
        self.rows = [
            part.view(self.h, *shape) for part, shape in zip(self.sampled.split(sizes, dim=1), shapes, strict=True)
        ]

    @torch.no_grad()
    def gradients(self, inputs: Tensor, targets: Tensor) -> None:
        h, b = self.h, self.batch_size
        w1, b1, w2, b2 = self.layers
        inputs = inputs.view(h * b, 784)
        hidden = torch.addmm(b1, inputs, w1.T).relu_()
        grad = F.softmax(torch.addmm(b2, hidden, w2.T), dim=1)
        grad[torch.arange(h * b, device=grad.device), targets] -= 1
        grad /= b
        grad_hidden = (grad @ w2).mul_(hidden > 0)
        torch.bmm(grad_hidden.view(h, b, 100).mT, inputs.view(h, b, 784), out=self.rows[0])
        torch.sum(grad_hidden.view(h, b, 100), dim=1, out=self.rows[1])
        torch.bmm(grad.view(h, b, 10).mT, hidden.view(h, b, 100), out=self.rows[2])
        torch.sum(grad.view(h, b, 10), dim=1, out=self.rows[3])

    def outputs(self, inputs: Tensor) -> Tensor:
        w1, b1, w2, b2 = self.layers
        return torch.addmm(b2, torch.addmm(b1, inputs.view(-1, 784), w1.T).relu_(), w2.T)


class PlainConv(PlainLoop):
    """The convolutional default of the ICLR 2021 code: conv 20 and 50, 800-500-10, n = 11, f = 4, batch 25."""

    n, f, batch_size, rate = 11, 4, 25, 0.01

    def __init__(self, data: Data, parameters: Tensor) -> None:
        super().__init__(data, parameters)
        self.module = nn.Sequential(
            *(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10), nn.LogSoftmax(dim=1)),
        ).to(parameters.device)
        weights = list(self.module.parameters())
        for weight, part in zip(weights, self.theta.split([w.numel() for w in weights]), strict=True):
            weight.data = part.view(weight.shape)

    def gradients(self, inputs: Tensor, targets: Tensor) -> None:
        weights, b = list(self.module.parameters()), self.batch_size
        for i in range(self.h):
            part = slice(i * b, (i + 1) * b)
            grads = torch.autograd.grad(F.nll_loss(self.module(inputs[part]), targets[part]), weights)
            torch.cat([grad.flatten() for grad in grads], out=self.sampled[i])

    def outputs(self, inputs: Tensor) -> Tensor:
        return self.module(inputs)
